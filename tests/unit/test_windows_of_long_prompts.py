"""Tokens fill CLIP's windows as in AUTOMATIC1111's web UI: to the last comma that is near, and never beyond a BREAK."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.fuzzing import examples
from worker.engine.prompts.windows import Token, fill_windows

ROOM, COMMA = 75, 1


def _fill(*sections: str) -> list[str]:
    """What each window says: a letter is a token, a capital one that belongs to the one before, a comma a comma."""
    rows = []
    for section in sections:
        row: list[Token] = []
        for letter in section:
            number = COMMA if letter == "," else ord(letter)
            row = [*row[:-1], Token((*row[-1].ids, number), 1)] if letter.isupper() else [*row, Token((number,), 1)]
        rows.append(row)
    windows = fill_windows(rows, ROOM, COMMA)
    return ["".join("," if one == COMMA else chr(one) for one in window.ids) for window in windows]


@pytest.mark.parametrize(
    ("sections", "windows"),
    [
        ([""], [""]),
        (["a"], ["a"]),
        (["a" * 75], ["a" * 75]),
        (["a" * 76], ["a" * 75, "a"]),
        (["a" * 200], ["a" * 75, "a" * 75, "a" * 50]),
        # 19 tokens behind the comma go into the next window, 20 do not.
        (["a" * 55 + "," + "b" * 19 + "c"], ["a" * 55 + ",", "b" * 19 + "c"]),
        (["a" * 54 + "," + "b" * 20 + "c"], ["a" * 54 + "," + "b" * 20, "c"]),
        (["a" * 74 + ",b"], ["a" * 74 + ",", "b"]),
        # A comma that is itself too much takes nothing with it.
        (["a" * 60 + "," + "b" * 14 + ",c"], ["a" * 60 + "," + "b" * 14, ",c"]),
        # What fits is not moved.
        (["a" * 60 + "," + "b" * 14], ["a" * 60 + "," + "b" * 14]),
        # Every window looks for its own comma.
        (["," + "a" * 74 + "b" * 75 + "c"], ["," + "a" * 74, "b" * 75, "c"]),
        (["a", "b"], ["a", "b"]),
        (["", "b"], ["", "b"]),
        (["a", ""], ["a"]),
        (["a", "", "b"], ["a", "", "b"]),
        (["a" * 75, "b"], ["a" * 75, "b"]),
        (["a" * 76, "b"], ["a" * 75, "a", "b"]),
        # A word of three vectors stays whole.
        (["a" * 72 + "wWW"], ["a" * 72 + "wWW"]),
        (["a" * 73 + "wWW"], ["a" * 73, "wWW"]),
        (["a" * 60 + "," + "b" * 13 + "wWW"], ["a" * 60 + "," + "b" * 13, "wWW"]),
        (["a" * 60 + "," + "b" * 14 + "wWW"], ["a" * 60 + ",", "b" * 14 + "wWW"]),
        (["w" + "W" * 99], ["w" + "W" * 74, "W" * 25]),
    ],
)
def test_where_windows_end(sections: list[str], windows: list[str]) -> None:
    assert _fill(*sections) == windows


TOKENS = st.builds(
    Token, st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple), st.sampled_from([0.5, 1.0, 1.3])
)
SECTIONS = st.lists(st.lists(TOKENS, max_size=60), min_size=1, max_size=4)


@examples(60)
@given(SECTIONS)
def test_windows_hold_all_tokens_in_order_with_their_weights(sections: list[list[Token]]) -> None:
    windows = fill_windows(sections, ROOM, COMMA)
    said = [pair for window in windows for pair in zip(window.ids, window.weights, strict=True)]
    assert said == [(one, token.weight) for section in sections for token in section for one in token.ids]
    assert all(len(window.ids) <= ROOM for window in windows)
    assert len(windows) >= len(sections) - (not sections[-1] and len(sections) > 1)


@examples(50)
@given(st.lists(st.integers(0, 9), max_size=400))
def test_only_a_comma_ends_a_window_early(ids: list[int]) -> None:
    windows = fill_windows([[Token((one,), 1.0) for one in ids]], ROOM, COMMA)
    for window in windows[:-1]:
        assert len(window.ids) == ROOM or (window.ids[-1] == COMMA and len(window.ids) > ROOM - 20)
