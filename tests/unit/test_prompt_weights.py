r"""`(x)`, `(x:1.3)`, `[x]`, `\(` and BREAK are read as AUTOMATIC1111's web UI reads them; everything else is text."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.fuzzing import examples
from worker.engine.prompts.weighting import Fragment, find_marks, parse_weights, read_plain

Cut = list[tuple[str, float]]


def _cut(prompt: str) -> list[Cut]:
    """What the prompt says between its BREAKs, cut where weights change."""
    return [[(one.text, round(one.weight, 9)) for one in section] for section in parse_weights(prompt)]


def _rounded(*cut: tuple[str, float]) -> list[Cut]:
    return [[(text, round(weight, 9)) for text, weight in cut]]


@pytest.mark.parametrize(
    ("prompt", "cut"),
    [
        ("(a:1.3)", [("a", 1.3)]),
        ("a (red:1.3) square", [("a ", 1), ("red", 1.3), (" square", 1)]),
        ("(a b, c:0.5)d", [("a b, c", 0.5), ("d", 1)]),
        ("(a:2)(b:3)", [("a", 2), ("b", 3)]),
        ("(a:2) (b:2)", [("a", 2), (" ", 1), ("b", 2)]),
        ("(a:.5)", [("a", 0.5)]),
        ("(a:1.)", [("a", 1)]),
        ("(a:0)", [("a", 0)]),
        ("(a:-1)", [("a", -1)]),
        ("(a:+1.5)", [("a", 1.5)]),
        ("(a:99)", [("a", 99)]),
        ("(a: 1.5 )", [("a", 1.5)]),
        ("(12:30:1.5)", [("12:30", 1.5)]),
        ("(a\nb:1.5)", [("a\nb", 1.5)]),
        ("(красный 🟥:1.5)", [("красный 🟥", 1.5)]),
        ("(a)", [("a", 1.1)]),
        ("a (red) square", [("a ", 1), ("red", 1.1), (" square", 1)]),
        ("((a))", [("a", 1.21)]),
        ("[a]", [("a", 1 / 1.1)]),
        ("[[a]]", [("a", 1 / 1.21)]),
        ("x[a]", [("x", 1), ("a", 1 / 1.1)]),
        ("(a)(b)", [("ab", 1.1)]),
        ("([a])", [("a", 1)]),
        ("(a (b:2) c:1.5)", [("a ", 1.5), ("b", 3), (" c", 1.5)]),
        ("((a:2):0.5)", [("a", 1)]),
        ("((a) b:1.5)", [("a", 1.65), (" b", 1.5)]),
        ("(((a:10):10):0.01)", [("a", 1)]),
        # As the web UI's own documentation has it.
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
    ],
)
def test_what_is_weighted_is_cut_out_without_its_syntax(prompt: str, cut: Cut) -> None:
    assert _cut(prompt) == _rounded(*cut)


@pytest.mark.parametrize(
    ("prompt", "cut"),
    [
        ("(a", [("a", 1.1)]),
        ("a (b [c", [("a ", 1), ("b ", 1.1), ("c", 1)]),
        ("((a:1.3)", [("a", 1.43)]),
        ("(a:1.3))", [("a", 1.3), (")", 1)]),
        ("a:1.3)", [("a:1.3)", 1)]),
        (":) (a:1.3)", [(":) ", 1), ("a", 1.3)]),
        (")a(b", [(")a", 1), ("b", 1.1)]),
        ("]a[b", [("]a", 1), ("b", 1 / 1.1)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1), (" c", 1 / 1.1)]),
    ],
)
def test_what_is_never_closed_acts_to_the_end_and_what_closes_nothing_is_text(prompt: str, cut: Cut) -> None:
    assert _cut(prompt) == _rounded(*cut)


@pytest.mark.parametrize(
    ("prompt", "text", "weight"),
    [
        ("(a:1,3)", "a:1,3", 1.1),
        ("(a:1.3.4)", "a:1.3.4", 1.1),
        ("(a:)", "a:", 1.1),
        ("(a:nan)", "a:nan", 1.1),
        ("(a:1e1)", "a:1e1", 1.1),
        ("(a 1.3)", "a 1.3", 1.1),
        ("[a:1.3]", "a:1.3", 1 / 1.1),
        ("{a:1.3}", "{a:1.3}", 1),
    ],
)
def test_what_is_no_number_before_a_parenthesis_is_text(prompt: str, text: str, weight: float) -> None:
    assert _cut(prompt) == _rounded((text, weight))


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (r"\(a\)", "(a)"),
        (r"\[a\]", "[a]"),
        (r"a\\b", r"a\b"),
        (r"a\b", "ab"),
        (r"tifa \(final fantasy\), smile", "tifa (final fantasy), smile"),
        (r"\(a:1.3\)", "(a:1.3)"),
        ("a\\", "a"),
    ],
)
def test_a_backslash_makes_a_bracket_a_letter(prompt: str, text: str) -> None:
    assert _cut(prompt) == _rounded((text, 1))


def test_an_escaped_bracket_closes_nothing() -> None:
    assert _cut(r"(a\) b:1.2)") == _rounded(("a) b", 1.2))


@pytest.mark.parametrize(
    ("prompt", "sections"),
    [
        ("a BREAK b", [[("a", 1)], [("b", 1)]]),
        ("a\nBREAK\nb", [[("a", 1)], [("b", 1)]]),
        ("BREAK a", [[], [("a", 1)]]),
        ("a BREAK", [[("a", 1)], []]),
        ("a BREAK BREAK b", [[("a", 1)], [], [("b", 1)]]),
        ("(a BREAK b:1.5)", [[("a", 1.5)], [("b", 1.5)]]),
        ("(a:1.5) BREAK (b:0.5)", [[("a", 1.5)], [("b", 0.5)]]),
        ("BREAKFAST, BREAK_, break, Break", [[("BREAKFAST, BREAK_, break, Break", 1)]]),
    ],
)
def test_break_cuts_where_it_stands_alone_in_capitals(prompt: str, sections: list[Cut]) -> None:
    assert _cut(prompt) == sections


PLAIN = ["a red square", " ", "{a}", "12:30", "word:1.3", "<lora:style:1>", "a, b. c; d! ?", ":)", "a|b", "c++", "🟥"]


@pytest.mark.parametrize("prompt", PLAIN)
def test_plain_text_stays_letter_by_letter(prompt: str) -> None:
    assert parse_weights(prompt) == ((Fragment(prompt, 1.0),),)
    assert find_marks(prompt) == []


def test_an_empty_prompt_says_nothing() -> None:
    assert parse_weights("") == read_plain("") == ((),)


@examples(100)
@given(st.text())
def test_any_text_without_syntax_stays_letter_by_letter(text: str) -> None:
    plain = text.translate(dict.fromkeys(map(ord, "()[]\\"), " ")).replace("BREAK", "break")
    assert "".join(one.text for section in parse_weights(plain) for one in section) == plain
    assert read_plain(text) == (((Fragment(text, 1.0),) if text else ()),)


PROMPTISH = st.lists(st.sampled_from([*"ab ()[]:.019,\\\n-+|<>", "BREAK", ":1.3)"]), max_size=40).map("".join)


@examples(300)
@given(PROMPTISH)
def test_any_prompt_is_cut_into_what_it_says_in_order(prompt: str) -> None:
    sections = parse_weights(prompt)
    letters = iter(prompt)
    said = "".join(one.text for section in sections for one in section)
    assert all(letter in letters for letter in said)  # in order, none twice
    assert all(one.text for section in sections for one in section)
    assert all(abs(one.weight) < float("inf") for section in sections for one in section)


Tree = tuple[str, list[tuple[str, float]]]


def _wrap(opening: str, closing: str, factor: float) -> "st.SearchStrategy[tuple[str, str, float]]":
    return st.just((opening, closing, factor))


BRACKETS = st.one_of(
    _wrap("(", ")", 1.1), _wrap("[", "]", 1 / 1.1), *(_wrap("(", f":{n})", n) for n in (0.0, 0.5, 1.3, -1.0, 2.0))
)
TREE: st.SearchStrategy[Tree] = st.recursive(
    st.one_of(
        st.text("ab ,", min_size=1, max_size=5).map(lambda text: (text, [(text, 1.0)])),
        st.sampled_from("()[]\\").map(lambda letter: ("\\" + letter, [(letter, 1.0)])),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, BRACKETS).map(
            lambda one: (
                one[1][0] + one[0][0] + one[1][1],
                [(text, weight * one[1][2]) for text, weight in one[0][1]],
            )
        ),
        st.tuples(inner, inner).map(lambda two: (two[0][0] + two[1][0], two[0][1] + two[1][1])),
    ),
    max_leaves=6,
)


@examples(150)
@given(TREE)
def test_what_is_written_with_weights_is_read_with_them(tree: Tree) -> None:
    prompt, parts = tree
    expected = [(letter, weight) for text, weight in parts for letter in text]
    found = [(letter, one.weight) for section in parse_weights(prompt) for one in section for letter in one.text]
    assert [letter for letter, _ in found] == [letter for letter, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


def test_weights_inside_weights_are_always_numbers() -> None:
    """Many times 4 is more than a number can hold, and a picture of such a prompt would be black."""
    assert 1e9 < _cut("(" * 1_249 + "a" + ":4)" * 1_249)[0][0][1] < float("inf")
    assert _cut("(" * 5_000 + "a")[0][0][1] < float("inf")
    assert _cut("(" * 1_249 + "a" + ":4)" * 1_248 + ":0)") == [[("a", 0)]]


LONGEST = {
    "open": "(" * 5_000,
    "square": "[" * 5_000,
    "closed": "(" * 2_500 + ")" * 2_500,
    "crossed": "([)]" * 1_250,
    "nested": "(" * 1_249 + "a" + ":1)" * 1_249,
    "colons": ":" * 5_000,
    "no number": "(:" + "1" * 4_998,
    "blanks": "(:" + " " * 4_998,
    "backslashes": "\\" * 5_000,
    "breaks": "BREAK " * 833,
}


@pytest.mark.parametrize("prompt", LONGEST.values(), ids=LONGEST)
def test_the_longest_prompts_are_read_in_no_time(prompt: str) -> None:
    started = time.process_time()
    parse_weights(prompt)
    assert time.process_time() - started < 0.5


def test_nothing_counts_within_a_weight_of_nothing_however_much_it_would() -> None:
    ((fragment,),) = parse_weights(f"((x:{'9' * 400}):0)")
    assert (fragment.text, fragment.weight) == ("x", 0.0)
