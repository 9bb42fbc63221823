"""A chat template costs no more than a prompt may, whatever it says; those of models do not notice."""

import time

import pytest
from jinja2 import Template
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers.utils import chat_template_utils

from worker.engine.load.chat_templates import bound_chat_templates

MESSAGES = [
    {"role": "system", "content": "You draw."},
    {"role": "user", "content": [{"type": "text", "text": "a red square"}, {"type": "image"}]},
]
# In the manner of Qwen's and Mistral's.
USUAL = """
{%- macro show(content) -%}
  {%- if content is string -%}{{ content }}
  {%- else -%}{%- for part in content -%}
    {%- if part.type == 'text' -%}{{ part['text'] }}{%- else -%}<|image|>{%- endif -%}
  {%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(count=0, last=messages|length - 1) -%}
{%- for message in messages[::-1] -%}{%- set ns.count = ns.count + 1 -%}{%- endfor -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\n' }}{{ show(message.content).strip() }}{{ '<|im_end|>' ~ '\n' -}}
{%- if (message.role == 'user') != (loop.index0 % 2 == 1) -%}{{ raise_exception('turns') }}{%- endif -%}
{{- [] | join(', ') -}}{{- 'a' | replace('a', '') -}}{{- 'b'.replace('b', '') -}}
{%- if message.tools -%}{{ message.tools | tojson(indent=4) }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""
HOSTILE = {
    "loops in loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "a text multiplied": "{{ 'a' * 3000000000 }}",
    "a text doubled": "{% set n = namespace(s='aa') %}{% for a in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "a text added": "{% set ns = namespace(s='aa') %}{% for a in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "a text in blocks": "{% set s = 'aa' %}" + "{% set s %}{{ s }}{{ s }}{% endset %}" * 60,
    "lists in lists": "{% set x = ['a'] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "a width": "{{ 'a'.center(3000000000) }}",
    "a width of a filter": "{{ 'a' | center(3000000000) }}",
    "a format": "{{ '{:3000000000}'.format(1) }}",
    "a format with a width in it": "{{ '{:{w}}'.format(1, w=3000000000) }}",
    "a format of much": "{% set s = 'abcdefghij' %}" + "{% set s = '{0}{0}{0}{0}{0}{0}{0}{0}{0}{0}'.format(s) %}" * 7,
    "a format that looks inside": "{{ '{0.__class__}'.format(1) }}",
    "a format that looks into a list": "{{ '{0[0]}'.format([1]) }}",
    "a format of a map": "{{ '{a}'.format_map({'a': 1}) }}",
    "an old format": "{{ '%3000000000d' % 1 }}",
    "an old format with a width beside it": "{{ '%*d' % (3000000000, 1) }}",
    "an old format with a precision": "{{ '%.3000000000f' % 1 }}",
    "an old format of much": "{% set s = 'abcdefghij' %}" + "{% set s = '%s%s%s%s%s' % (s, s, s, s, s) %}" * 9,
    "much joined by its method": "{{ (range(20000) | join).join((range(20000) | join).split('1')) }}",
    "a text indented": "{{ 'a' | indent(3000000000, true) }}",
    "lines indented by much": "{{ (range(9000) | join('\n')) | indent(range(9000) | join, true) }}",
    "a power": "{{ 9 ** 9 ** 9 }}",
    "bytes": "{{ (1).to_bytes(3000000000, 'big') }}",
    "much joined": "{{ range(90000) | join('a' ~ range(20000) | join) }}",
    "replacements": "{% set s = 'aaaaaaaaaa' %}" + "{% set s = s.replace('a', s) %}" * 6,
    "replacements by a filter": "{% set s = 'aaaaaaaaaa' %}" + "{% set s = s | replace('a', s) %}" * 6,
    "an indent": "{{ [1] | tojson(indent=3000000000) }}",
    "words": "{{ lipsum(100000) }}",
    "a loop that calls itself": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "much text": "{# " + "a" * 200_000 + " #}",
}


@pytest.fixture(autouse=True)
def bounded() -> None:
    bound_chat_templates()


def _render(template: str) -> str:
    (text,) = chat_template_utils.render_jinja_template([MESSAGES], chat_template=template, add_generation_prompt=True)[
        0
    ]
    return str(text)


def test_a_usual_template_is_rendered_as_ever() -> None:
    system, user = "<|im_start|>system\nYou draw.<|im_end|>\n", "<|im_start|>user\na red square<|image|><|im_end|>\n"

    assert _render(USUAL) == system + user + "<|im_start|>assistant\n"


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_template_ends_soon(kind: str) -> None:
    started = time.monotonic()

    with pytest.raises(TemplateError):
        _render(HOSTILE[kind])

    assert time.monotonic() - started < 5


FORMS = {
    "joined": "{{ ', '.join(['a', 'b']) }}{{ '-'.join('abc') }}{{ '+'.join(messages | map(attribute='role')) }}",
    "formatted": "{{ 'x{}y{}'.format(1, [2]) }}{{ '{0}{1!r}{0} {{}}'.format('a', 'b') }}{{ '{a}'.format(a=none) }}",
    "formatted as of old": "{{ '%s of %d, %r, 100%%' % ('a', 3, 'b') }}{{ '%(a)s' % {'a': 1.5} }}{{ '%s' % 'c' }}",
    "indented": "{{ 'a\nb\n\nc' | indent }}{{ 'a\nb' | indent(2, true) }}{{ 'a\n\nb' | indent('> ', blank=true) }}",
    "parted": "{{ 'a=b=c'.partition('=')[2] }}{{ 'a=b=c'.rpartition('=')[0] }}",
    "sorted": "{{ messages[1]['content'] | sort(attribute='type') | map(attribute='type') | join(' ') }}",
    "what is no text joined": "{{ ', '.join([1]) }}",
    "too little formatted": "{{ '%s%s' % 'a' }}",
    "a place without a value": "{{ '{}{}'.format(1) }}",
}


@pytest.mark.parametrize("kind", FORMS)
def test_ways_of_putting_texts_together_do_as_in_transformers(kind: str) -> None:
    compile_template = chat_template_utils._cached_compile_jinja_template
    bounded = compile_template(FORMS[kind])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_template_utils, "ImmutableSandboxedEnvironment", ImmutableSandboxedEnvironment)
        unbounded = compile_template(FORMS[kind])

    assert type(unbounded) is not type(bounded)
    assert _render_or_fail(bounded) == _render_or_fail(unbounded)


def _render_or_fail(template: Template) -> str:
    try:
        return template.render(messages=MESSAGES)
    except (TypeError, IndexError) as error:
        return type(error).__name__


def test_each_prompt_may_cost_as_much() -> None:
    template = "{% for a in range(9000) %}{{ 'a' * 0 if false else 'abcdefgh' }}{% endfor %}"

    assert len({len(_render(template)) for _ in range(40)}) == 1
