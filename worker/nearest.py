"""The name that was probably meant, where one is near enough to be; nothing is suggested for what is like none."""

import difflib
from collections.abc import Iterable

NEAR = 0.75  # as difflib measures how like two names are: a letter more or less in a name of four
MAX_LENGTH = 80  # characters of a name that is compared
MAX_COMPARED = 2_000  # names; where there are more, only one that differs in case is looked for


def find_nearest(name: str, known: Iterable[str], near: float = NEAR) -> str | None:
    """The one of these names that is most like it, or None; case does not count."""
    if len(name) > MAX_LENGTH:
        return None
    folded = {one.casefold(): one for one in known}
    if len(folded) > MAX_COMPARED:
        return folded.get(name.casefold())
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=near)
    return folded[close[0]] if close else None


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that names the nearest, or nothing."""
    nearest = find_nearest(name, known)
    return f"; the nearest is {nearest}" if nearest else ""
