"""Tokens -> windows of CLIP's, filled as AUTOMATIC1111's web UI fills them.

A window that is full ends behind its last comma, if that is near; a `BREAK` ends one that is not. What stands for one
word of textual inversion stays together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_CARRIED = 20  # tokens, the last comma of a full window among them, behind which the next may begin


@dataclass(frozen=True)
class Token:
    """One token, or several that stay together, and how much they count."""

    ids: tuple[int, ...]
    weight: float


@dataclass(frozen=True)
class Window:
    """What one window says, without its ends: tokens, and how much each counts."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


def fill_windows(sections: Iterable[Sequence[Token]], room: int, comma: int | None) -> list[Window]:
    """The windows that these tokens take, one at least.

    Args:
        sections: what stands between BREAKs.
        room: tokens in a window.
        comma: the token that a window may end behind.
    """
    filler = _Filler(room, comma)
    for i, section in enumerate(sections):
        if i > 0:
            filler.close()
        for token in section:
            filler.add(token)
    if filler.tokens or not filler.windows:
        filler.close()
    return filler.windows


class _Filler:
    def __init__(self, room: int, comma: int | None) -> None:
        self.windows: list[Window] = []
        self.tokens: list[tuple[int, float]] = []
        self._room = room
        self._comma = comma
        self._carried_from = 0  # behind the last comma; 0 if there is none

    def add(self, token: Token) -> None:
        ids = token.ids[: self._room]
        is_comma = ids == (self._comma,)
        if len(self.tokens) == self._room:
            near = self._carried_from > 0 and self._room - self._carried_from < MAX_CARRIED
            self._turn(self._carried_from if near and not is_comma else self._room)
        if len(self.tokens) + len(ids) > self._room:
            self.close()
        self.tokens += [(one, token.weight) for one in ids]
        if is_comma:
            self._carried_from = len(self.tokens)
        if rest := token.ids[self._room :]:
            self.add(Token(rest, token.weight))

    def close(self) -> None:
        """End the window, full or not."""
        self._turn(len(self.tokens))

    def _turn(self, end: int) -> None:
        """End the window before this place; what stands behind it begins the next."""
        kept, self.tokens = self.tokens[:end], self.tokens[end:]
        self.windows.append(Window(tuple(one for one, _ in kept), tuple(weight for _, weight in kept)))
        self._carried_from = 0
