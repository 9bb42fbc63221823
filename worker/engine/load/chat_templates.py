"""Chat templates, which a model brings and every prompt is put into: rendered within bounds of work and memory.

transformers keeps them from running code; but loops in loops, or a text doubled forty times, take for ever or
all memory there is. So everything that a template repeats or makes is paid for out of what one prompt may cost.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from string import Formatter
from typing import Any

import transformers.utils.chat_template_utils as used_by_transformers
from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import do_indent
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEMPLATE = 100_000  # characters; the longest that models for pictures bring have some 5,000
MAX_WORK = 10_000_000  # characters and values that are made for one prompt; each repetition costs the template's length
MAX_VALUE = 200_000  # characters of a text, values in lists of lists
MAX_NUMBER = 10**12

_FILTERS = "capitalize d default e escape first int items last length list lower reject rejectattr select selectattr"
_MORE_FILTERS = "safe string title trim upper tojson map abs count dictsort float max min reverse round sort unique"
_OF_TEXTS = "capitalize count endswith find format index isalnum isalpha isdigit isspace isupper islower join lower"
_MORE_OF_TEXTS = "lstrip partition removeprefix removesuffix replace rfind rpartition rsplit rstrip split splitlines"
_STILL_MORE_OF_TEXTS = "startswith strip title upper"
_TEXTS = frozenset(f"{_OF_TEXTS} {_MORE_OF_TEXTS} {_STILL_MORE_OF_TEXTS}".split())
_LISTS = frozenset({"count", "index"})
# What is as long as what is put into it: without a width or a precision.
_PLAIN_PERCENTS = re.compile(r"(?:[^%]|%(?:\(\w+\))?[sdr%])*")

_work = threading.local()


class BoundedTemplate(Template):
    """A template that starts with all it may spend, whenever it is rendered."""

    def render(self, *given: Any, **named: Any) -> str:
        """As in Jinja.

        Raises:
            SecurityError: it costs more than a prompt may.
        """
        _work.left = MAX_WORK
        return super().render(*given, **named)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Has templates pay for each repetition, call and value; what could make much of little is not there."""

    template_class = BoundedTemplate
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, *given: Any, **named: Any) -> None:
        """As in Jinja, with fewer filters and globals."""
        super().__init__(*given, **named, finalize=_pay)
        own = {"_each": self._each, "_join": _join, "_made": _pay}
        self.filters = {name: self.filters[name] for name in f"{_FILTERS} {_MORE_FILTERS}".split()} | own
        self.filters |= {"string": lambda value: str(_pay(value)), "join": _join_with, "replace": _replace}
        self.filters["indent"] = _indent
        del self.globals["lipsum"]
        self._step = MAX_TEMPLATE

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_TEMPLATE:
            raise SecurityError(f"the chat template has {len(source)} characters; allowed: {MAX_TEMPLATE}")
        self._step = len(source)
        return _watch(super()._parse(source, name, filename))

    def _each(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values that a loop goes through."""
        for value in values:
            _spend(self._step)
            yield value

    def call(__self, __context: Any, __obj: Any, *given: Any, **named: Any) -> Any:
        """As in Jinja, which names its arguments so that a template's can have any name."""
        _spend(__self._step)
        if isinstance(text := getattr(__obj, "__self__", None), str):
            __obj = partial(_BOUNDED[__obj.__name__], text) if __obj.__name__ in _BOUNDED else __obj
        return _pay(super().call(__context, __obj, *given, **named))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Sums of anything, texts with plain places for values, and what else numbers can do to numbers."""
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if operator == "%" and isinstance(left, str):
            _check_format(_PLAIN_PERCENTS.fullmatch(left) is not None, left.count("%"), right)
            return _pay(super().call_binop(context, operator, left, right))
        if operator == "**" or not (numbers or operator == "+"):
            raise SecurityError(f"a chat template may use {operator} with numbers alone, and no powers")
        return _pay(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template sees it: of texts, numbers and lists only what makes nothing large."""
        if isinstance(obj, (str, bytes, int, float)):
            return isinstance(obj, str) and attr in _TEXTS
        if isinstance(obj, (list, tuple)):
            return attr in _LISTS
        return bool(super().is_safe_attribute(obj, attr, value))

    def wrap_str_format(self, value: Any) -> Any:
        """Formats with plain places for values; a width could be anything."""
        if isinstance(text := getattr(value, "__self__", None), str) and value.__name__ == "format":
            return partial(_format, text)
        return None


def bound_chat_templates() -> None:
    """Have transformers render every chat template from now on within these bounds."""
    used_by_transformers.ImmutableSandboxedEnvironment = BoundedEnvironment


def _watch(tree: nodes.Template) -> nodes.Template:
    """The template with a filter wherever something is repeated or put together."""
    for loop in [*tree.find_all(nodes.For)]:
        if loop.recursive:
            raise SecurityError("a chat template may have no recursive loops")
        loop.iter = _filtered(loop.iter, "_each")
    for used in [*tree.find_all(nodes.Filter)]:
        if used.name == "tojson" and (used.args or any(_may_be_wide(one.value) for one in used.kwargs)):
            raise SecurityError("a chat template may use tojson with an indent of 16 at most")
    _watch_parts(tree)
    return tree


def _watch_parts(node: nodes.Node) -> None:
    for name, value in [*node.iter_fields()]:
        if isinstance(value, list):
            setattr(node, name, [_watch_one(part) for part in value])
        elif isinstance(value, nodes.Node):
            setattr(node, name, _watch_one(value))


def _watch_one(part: Any) -> Any:
    if not isinstance(part, nodes.Node):
        return part
    _watch_parts(part)
    if isinstance(part, nodes.Concat):
        return _filtered(nodes.List(part.nodes), "_join")
    is_made = isinstance(part, (nodes.List, nodes.Dict)) or (isinstance(part, nodes.Tuple) and part.ctx == "load")
    return _filtered(part, "_made") if is_made else part


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _may_be_wide(given: nodes.Node) -> bool:
    return not isinstance(given, nodes.Const) or (isinstance(given.value, int) and given.value > 16)


def _join(values: Iterable[Any]) -> str:
    return str(_pay("".join(str(_pay(value)) for value in values)))


def _join_with(values: Iterable[Any], between: str = "") -> str:
    parts = [part for value in values for part in (between, value)]
    return _join(parts[1:])


def _join_texts(between: str, values: Iterable[Any]) -> str:
    """As `str.join`, which takes texts alone."""
    texts = _pay([*values])
    _check_size(len(texts) * len(between))
    return between.join(texts)


def _format(text: str, *given: Any, **named: Any) -> str:
    fields = [(name, spec) for _, name, spec, _ in Formatter().parse(text) if name is not None]
    _check_format(all(re.fullmatch(r"\w*", name) and not spec for name, spec in fields), len(fields), [given, named])
    return text.format(*given, **named)


def _check_format(is_plain: bool, places: int, values: Any) -> None:
    if not is_plain:
        raise SecurityError("a chat template may format values as they are, with no width, precision or attribute")
    _spend(places * _measure(values, 0))


def _indent(text: str, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    lines = len(text.splitlines()) + 1
    _check_size(len(text) + lines * (len(width) if isinstance(width, str) else int(width)))
    return do_indent(text, width, first, blank)


def _replace(text: Any, old: str, new: str, count: int = -1) -> str:
    _check_size(len(text) + str(text).count(old) * len(new))
    return str(_pay(str(text).replace(old, new, -1 if count is None else count)))


_BOUNDED: Mapping[str, Callable[..., str]] = {"join": _join_texts, "replace": _replace}


def _pay(value: Any) -> Any:
    """The value, once it is found to be of a size that may be."""
    _spend(_measure(value, 0))
    return value


def _measure(value: Any, depth: int) -> int:
    """Characters and values in it.

    Raises:
        SecurityError: there are too many.
    """
    if isinstance(value, (int, float)) and not abs(value) <= MAX_NUMBER:
        raise SecurityError(f"a chat template makes a number beyond {MAX_NUMBER:g}")
    if isinstance(value, str):
        return _check_size(len(value))
    if depth > 20:
        raise SecurityError("a chat template makes lists in lists, 20 times")
    size = 1
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        for part in value:
            size = _check_size(size + _measure(part, depth + 1))
    return size


def _check_size(size: int) -> int:
    if size > MAX_VALUE:
        raise SecurityError(f"a chat template makes a text or a list of more than {MAX_VALUE} characters or values")
    return size


def _spend(amount: int) -> None:
    _work.left = getattr(_work, "left", MAX_WORK) - amount
    if _work.left < 0:
        raise SecurityError("the chat template takes too much work")
