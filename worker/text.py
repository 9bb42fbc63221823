"""Texts that others wrote, made fit to be shown: in one line, of bounded length, without addresses and keys.

What libraries say of a failure may quote whatever went into a call: a signed URL that a host redirected to, a token, a
picture in base64, letters that move a terminal's cursor.
"""

import re

REDACTED = "<hidden>"
MAX_QUOTED = 2_000  # characters of a text that somebody else wrote
MIN_KEY, MIN_KEY_DIGITS = 20, 3  # of letters and digits that are taken for a key, a signature or a part of a picture

_ADDRESS = re.compile(r"(?:(?<=://)|(?<=\bdata:))[^\s'\"<>]+")
_QUERY = re.compile(r"[^\s'\"<>?]*\?[^\s'\"<>=]*=[^\s'\"<>]*")
_KEY = re.compile(rf"[A-Za-z0-9+=]{{{MIN_KEY},}}")


class Own(str):
    """Words of the worker itself, in which nobody's texts are looked for."""

    __slots__ = ()


def escape(text: str) -> str:
    """The text with the escapes of Python's literals in place of what would not stay in its line."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def shorten(text: str, longest: int = MAX_QUOTED) -> str:
    """The text, or its beginning and its end."""
    if len(text) <= longest:
        return text
    return f"{text[: longest * 3 // 4]}... ({len(text)} characters) ...{text[-longest // 8 :]}"


def hide_addresses(text: str) -> str:
    """The text without where URLs lead, what is asked there, and what looks like a key or a picture in base64."""
    return _KEY.sub(_hide_key, _QUERY.sub(REDACTED, _ADDRESS.sub(REDACTED, text)))


def hide_credentials(text: str) -> str:
    """The text without who comes with a URL, and without a token in it."""
    return re.sub(r"\btoken=[^&\s,]*", "token=...", re.sub("//[^/]*@", "//...@", text), flags=re.IGNORECASE)


def read_text(value: object) -> str:
    """What a value says, even of one that cannot say anything."""
    try:
        return shorten(str(value))
    except Exception as error:  # its own code, which may do anything
        return f"({type(value).__name__}, whose text cannot be had: {type(error).__name__})"


def read_first_line(error: BaseException) -> str:
    """What an exception says first, fit to be told to anybody."""
    line = next(iter(read_text(error).strip().splitlines()), type(error).__name__)
    return escape(hide_addresses(line))


def _hide_key(found: "re.Match[str]") -> str:
    digits = sum(letter.isdigit() for letter in found[0])
    return REDACTED if digits >= MIN_KEY_DIGITS or len(found[0]) > 4 * MIN_KEY else found[0]
