"""`(word:1.3)` weighs a word, as in AUTOMATIC1111's web UI; every other parenthesis is what it always was."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.fuzzing import examples
from worker.engine.prompts.weighting import MAX_WEIGHT, Fragment, is_weighted, parse_weights


def _weights(prompt: str) -> list[tuple[str, float]]:
    return [(fragment.text, round(fragment.weight, 9)) for fragment in parse_weights(prompt)]


@pytest.mark.parametrize(
    ("prompt", "cut"),
    [
        ("(a:1.3)", [("a", 1.3)]),
        ("a (red:1.3) square", [("a ", 1), ("red", 1.3), (" square", 1)]),
        ("(a b, c:0.5)d", [("a b, c", 0.5), ("d", 1)]),
        ("(a:2)(b:3)", [("a", 2), ("b", 3)]),
        ("(a:2) (b:2)", [("a", 2), (" ", 1), ("b", 2)]),
        ("(a:.5)", [("a", 0.5)]),
        ("(a:0)", [("a", 0)]),
        ("(a:4)", [("a", 4)]),
        ("(a: 1.5 )", [("a", 1.5)]),
        ("(a:1)", [("a", 1)]),
        ("(12:30:1.5)", [("12:30", 1.5)]),
        ("(a\nb:1.5)", [("a\nb", 1.5)]),
        ("(красный 🟥:1.5)", [("красный 🟥", 1.5)]),
        ("((a):1.5)", [("(a)", 1.5)]),
        ("(a (b) c:1.5)", [("a (b) c", 1.5)]),
        ("x(a:1.5)", [("x", 1), ("a", 1.5)]),
    ],
)
def test_what_is_weighted_is_cut_out_without_its_syntax(prompt: str, cut: list[tuple[str, float]]) -> None:
    assert _weights(prompt) == cut
    assert is_weighted(prompt)


@pytest.mark.parametrize(
    ("prompt", "cut"),
    [
        ("(a (b:2) c:1.5)", [("a ", 1.5), ("b", 3), (" c", 1.5)]),
        ("((a:2):0.5)", [("a", 1)]),
        ("(((a:4):4):0.25)", [("a", 4)]),
        ("(((a:1.1):1.1):1.1)", [("a", 1.331)]),
        ("((a:2) b:0)", [("a b", 0)]),
        ("x ((a:2):1.5) y", [("x ", 1), ("a", 3), (" y", 1)]),
    ],
)
def test_weights_inside_weights_multiply(prompt: str, cut: list[tuple[str, float]]) -> None:
    assert _weights(prompt) == cut


@pytest.mark.parametrize("depth", [2, 3, 1_249])
def test_weights_inside_weights_never_pass_the_heaviest(depth: int) -> None:
    """Many times 4 is more than a number can hold, and a picture of such a prompt would be black."""
    assert _weights("(" * depth + "a" + ":4)" * depth) == [("a", MAX_WEIGHT)]
    assert _weights("(" * depth + "a" + ":4)" * (depth - 1) + ":0)") == [("a", 0)]


PLAIN = [
    "a red square",
    "",
    " ",
    "a (red) square",
    "((a))",
    "(a, b)",
    "c++ (really)",
    ":)",
    "(:",
    ":-) (-:",
    "(time 12:30)",
    "(word:99)",
    "(word:4.01)",
    "(word:-1)",
    "(word:1e1)",
    "(word:1,3)",
    "(word:1.)",
    "(word:1.3.4)",
    "(word:)",
    "(word:nan)",
    "(word:inf)",
    "(word:1.3x)",
    "(word 1.3)",
    "word:1.3",
    "[word:1.3]",
    "{word:1.3}",
    "<lora:style:1>",
    "(:1.3)",
    "()",
    "(:)",
    "(word:1.3",
    "word:1.3)",
    "((word:1.3",
    ")word:1.3(",
    "(word)(:1.3)",
]


@pytest.mark.parametrize("prompt", PLAIN)
def test_what_is_no_weight_stays_letter_by_letter(prompt: str) -> None:
    assert parse_weights(prompt) == [Fragment(prompt, 1.0)]
    assert not is_weighted(prompt)


@pytest.mark.parametrize(
    ("prompt", "cut"),
    [
        ("((a:1.3)", [("(", 1), ("a", 1.3)]),
        ("(a:1.3))", [("a", 1.3), (")", 1)]),
        (":) (a:1.3)", [(":) ", 1), ("a", 1.3)]),
        ("(x (a:1.3)", [("(x ", 1), ("a", 1.3)]),
        ("((:1.3) a:1.2)", [("(:1.3) a", 1.2)]),
    ],
)
def test_parentheses_that_are_not_closed_are_plain_text_beside_weights(
    prompt: str, cut: list[tuple[str, float]]
) -> None:
    assert _weights(prompt) == cut


@examples(200)
@given(st.text())
def test_any_text_without_a_colon_before_a_number_is_one_fragment(text: str) -> None:
    prompt = text.replace(":", ";")
    assert parse_weights(prompt) == [Fragment(prompt, 1.0)]


PROMPTISH = st.text(st.sampled_from("ab (): .019,\n"), max_size=40)


@examples(500)
@given(PROMPTISH)
def test_any_prompt_is_cut_into_what_it_says_in_order(prompt: str) -> None:
    cut = parse_weights(prompt)
    letters = iter(prompt)
    assert all(letter in letters for letter in "".join(one.text for one in cut))  # in order, none twice
    assert all(0 <= one.weight <= MAX_WEIGHT for one in cut)
    assert all(one.text for one in cut) or prompt == ""
    assert all(one.weight != other.weight for one, other in pairwise(cut))
    assert is_weighted(prompt) or cut == [Fragment(prompt, 1.0)]


TREE: st.SearchStrategy[tuple[str, list[tuple[str, float]]]] = st.recursive(
    st.text("ab ,", min_size=1, max_size=5).map(lambda text: (text, [(text, 1.0)])),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([0.5, 1.1, 1.5])).map(
            lambda one: (f"({one[0][0]}:{one[1]})", [(text, weight * one[1]) for text, weight in one[0][1]])
        ),
        st.tuples(inner, inner).map(lambda two: (two[0][0] + two[1][0], two[0][1] + two[1][1])),
    ),
    max_leaves=4,
)


@examples(200)
@given(TREE)
def test_what_is_written_with_weights_is_read_with_them(tree: tuple[str, list[tuple[str, float]]]) -> None:
    prompt, parts = tree
    expected = [(letter, min(weight, MAX_WEIGHT)) for text, weight in parts for letter in text]
    found = [(letter, one.weight) for one in parse_weights(prompt) for letter in one.text]
    assert [letter for letter, _ in found] == [letter for letter, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


LONGEST = ["(" * 5_000, "(" * 2_500 + ")" * 2_500, "(" * 1_249 + "a" + ":1)" * 1_249, "(:" * 1_600 + "1)" * 900]


@pytest.mark.parametrize("prompt", LONGEST, ids=["open", "closed", "nested", "empty"])
def test_the_longest_prompts_are_read_in_no_time(prompt: str) -> None:
    started = time.process_time()
    parse_weights(prompt)
    assert time.process_time() - started < 0.5
