"""`[from:to:when]` says one thing before a step and another after it, as in AUTOMATIC1111's web UI."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.asking import SDXL, ask, model_of, picture
from tests.helpers.fuzzing import examples
from worker.engine.prompts.schedule import PassSteps, list_pass_steps, parse_schedule
from worker.plan import make_plan

TEN = PassSteps(earlier=0, earlier_steps=0, length=10, start=0, count=10)
SECOND = PassSteps(earlier=1, earlier_steps=10, length=10, start=0, count=10)


def _say(prompt: str, steps: PassSteps = TEN) -> list[tuple[int, str]]:
    """From which step on the prompt says what."""
    found = parse_schedule(prompt)
    return [(done, found.text_at(done, steps)) for done in found.changes(steps)]


# The first ones are the web UI's own examples, counted in steps that are done.
@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("test", [(0, "test")]),
        ("a [b:3]", [(0, "a "), (3, "a b")]),
        ("a [b: 3]", [(0, "a "), (3, "a b")]),
        ("a [[[b]]:2]", [(0, "a "), (2, "a [[b]]")]),
        ("[(a:2):3]", [(0, ""), (3, "(a:2)")]),
        ("a [b : c : 1] d", [(0, "a b  d"), (1, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(0, "abe"), (1, "ace"), (2, "ade")]),
        ("a [unbalanced", [(0, "a [unbalanced")]),
        ("a [b:.5] c", [(0, "a  c"), (5, "a b c")]),
        ("((a][:b:c [d:3]", [(0, "((a][:b:c "), (3, "((a][:b:c d")]),
        ("a [cat:dog:0.5]", [(0, "a cat"), (5, "a dog")]),
        ("[a::0.3]b", [(0, "ab"), (3, "b")]),
        ("[cat:embedding:dot:0.5]", [(0, "cat"), (5, "embedding:dot")]),
        ("[Embedding:dot:embedding:cat:0.5]", [(0, "Embedding:dot"), (5, "embedding:cat")]),
        ("[embedding:dot:0.5]", [(0, ""), (5, "embedding:dot")]),
        ("[a:b:0.29]", [(0, "a"), (2, "b")]),
        ("[a:b:0]", [(0, "b")]),
        ("[a:b:-1]", [(0, "b")]),
        ("[a:b:1.0]", [(0, "a")]),
        ("[a:b:1]", [(0, "a"), (1, "b")]),
        ("[a:b:10]", [(0, "a")]),
        ("[a:b:99999999999999999999]", [(0, "a")]),
        ("[[a:b:2]:c:4]", [(0, "a"), (2, "b"), (4, "c")]),
        ("[a:b:2] [c:d:2]", [(0, "a c"), (2, "b d")]),
        ("[a (b:1.2):c:0.5]", [(0, "a (b:1.2)"), (5, "c")]),
        (r"[\]\::b:5]", [(0, r"\]\:"), (5, "b")]),
        ("[<x>:3]", [(0, ""), (3, "<x>")]),
    ],
)
def test_the_text_of_each_step(prompt: str, said: list[tuple[int, str]]) -> None:
    assert _say(prompt) == said


NO_CHANGE = ["[a]", "[a:b]", "[a:b:c]", "[a:b:c:0.5]", "(a:b:0.5)", "{a:b:0.5}", "a:b:0.5", "[a:b:0.5", "a:b:0.5]"]
NO_CHANGE += [r"\[a:b:0.5\]", "[(a:b:0.5]", "[a:b:0.5)", "[a:b:0,5]", "[a:b:nan]", "[a:b:]", "[]", "[:]"]


@pytest.mark.parametrize("prompt", NO_CHANGE)
def test_what_is_no_change_stays_as_it_is(prompt: str) -> None:
    assert _say(prompt) == [(0, prompt)]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("[a:b:0.5]", [(0, "b")]),
        ("[a:b:5]", [(0, "b")]),
        ("[a:b:1.5]", [(0, "a"), (5, "b")]),
        ("[a:b:15]", [(0, "a"), (5, "b")]),
        ("[a:b:2.5]", [(0, "a")]),
    ],
)
def test_a_second_schedule_goes_on_counting(prompt: str, said: list[tuple[int, str]]) -> None:
    assert _say(prompt, SECOND) == said


def test_two_passes_of_one_schedule_share_its_steps() -> None:
    first, last = PassSteps(0, 0, 10, 0, 8), PassSteps(0, 0, 10, 8, 2)
    for prompt, said in {
        "[a:b:0.5]": ([(0, "a"), (5, "b")], [(8, "b")]),
        "[a:b:0.9]": ([(0, "a")], [(8, "a"), (9, "b")]),
    }.items():
        assert (_say(prompt, first), _say(prompt, last)) == said


HIRES = {"hires": {"scale": 2.0, "strength": 0.5, "steps": 8}}


def test_the_steps_of_every_plan() -> None:
    sdxl = {"num_inference_steps": 20}
    model = model_of("sdxl", refiner=True)
    expected = {
        "text": (SDXL, sdxl, [PassSteps(0, 0, 20, 0, 20)]),
        "image": (SDXL, {**sdxl, "image": picture(), "strength": 0.5}, [PassSteps(0, 0, 10, 0, 10)]),
        "hires": (SDXL, {**sdxl, **HIRES}, [PassSteps(0, 0, 20, 0, 20), PassSteps(1, 20, 4, 0, 4)]),
        "refiner": (model, sdxl, [PassSteps(0, 0, 20, 0, 16), PassSteps(0, 0, 20, 16, 4)]),
        "all": (
            model,
            {**sdxl, **HIRES},
            [PassSteps(0, 0, 20, 0, 16), PassSteps(0, 0, 20, 16, 4), PassSteps(1, 20, 4, 0, 4)],
        ),
    }
    for kind, (able, fields, steps) in expected.items():
        assert list_pass_steps(make_plan(ask(able, **fields)).passes) == steps, kind


def test_alternation_is_text() -> None:
    """Its brackets are neither weights nor changes, whatever stands around them."""
    assert _say("a [b|c] d") == [(0, r"a \[b|c\] d")]
    assert _say("[x:[b|c]:0.5]") == [(0, "x"), (5, r"\[b|c\]")]
    assert _say("[[b|c]:x:0.5]") == [(0, r"\[b|c\]"), (5, "x")]


Tree = tuple[str, dict[int, str]]
STEPS = range(10)
PLAIN = st.text("ab ,|", max_size=4).map(lambda text: (text, dict.fromkeys(STEPS, text)))


def _change(parts: tuple[Tree, Tree, int, bool]) -> Tree:
    before, after, when, share = parts
    number = f"{when / 10:.1f}" if share else str(when)
    text = f"[{before[0]}:{after[0]}:{number}]"
    return text, {step: (before if step < when else after)[1][step] for step in STEPS}


def _join(parts: tuple[Tree, Tree]) -> Tree:
    return parts[0][0] + parts[1][0], {step: parts[0][1][step] + parts[1][1][step] for step in STEPS}


def _weigh(tree: Tree) -> Tree:
    return f"({tree[0]}:1.2)", {step: f"({text}:1.2)" for step, text in tree[1].items()}


TREES: st.SearchStrategy[Tree] = st.recursive(
    PLAIN.map(lambda tree: (tree[0].replace("|", ""), {step: text.replace("|", "") for step, text in tree[1].items()})),
    lambda inner: st.one_of(
        st.tuples(inner, inner, st.integers(0, 9), st.booleans()).map(_change),
        st.tuples(inner, inner).map(_join),
        inner.map(_weigh),
    ),
    max_leaves=6,
)


@examples(150)
@given(TREES)
def test_what_is_written_to_change_changes(tree: Tree) -> None:
    prompt, expected = tree
    found = parse_schedule(prompt)
    changes = found.changes(TEN)
    assert {step: found.text_at(step, TEN) for step in STEPS} == expected
    for step in set(STEPS) - set(changes):
        assert expected[step] == expected[step - 1]


@examples(300)
@given(st.lists(st.sampled_from([*"ab ()[]:|.059\\-e\n", ":0.5]"]), max_size=40).map("".join), st.integers(0, 10))
def test_any_prompt_is_read(prompt: str, done: int) -> None:
    found = parse_schedule(prompt)
    said = found.text_at(done, TEN)
    letters = iter(prompt)
    kept = said if not found.letters else said.replace("\\", "")
    assert all(letter in letters for letter in kept)
    if not found.edits and not found.letters:
        assert said == prompt


LONGEST = {
    "open": "[" * 5_000,
    "closed": "[" * 2_500 + "]" * 2_500,
    "crossed": "([)]" * 1_250,
    "nested": "[a:" * 830 + "b" + ":1]" * 830,
    "many": "[a:1]" * 1_000,
    "bars": "[" + "|" * 4_998 + "]",
    "a number": "[a:" + "1" * 4_995 + "]",
    "no number": "[a:" + "1" * 4_994 + "x]",
}


@pytest.mark.parametrize("prompt", LONGEST.values(), ids=LONGEST)
def test_the_longest_prompts_are_read_in_no_time(prompt: str) -> None:
    started = time.process_time()
    found = parse_schedule(prompt)
    found.text_at(5, TEN)
    found.changes(TEN)
    assert time.process_time() - started < 0.5
