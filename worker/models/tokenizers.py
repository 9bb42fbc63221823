"""A tokenizer's folder: is its vocabulary whole, and can its rules work on any prompt in a bounded time?

A tokenizer.json brings regular expressions, which every prompt of every job is matched with, and texts to put in the
place of others. Neither may cost more than the prompt's length.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from worker.errors import ModelError
from worker.models.json_file import read_json

MAX_TOKEN_ID = 10**7
MAX_ADDED_TOKENS = 20_000  # a model of languages and pictures has some thousand
MAX_RULE_LENGTH = 1_000  # characters of a text that a rule puts in
MAX_GROWTH = 1_000  # times as long as a text came, by all rules together
MAX_REPEATS = 3  # without end, one after the other; so many loops over a text may stand in each other
MAX_RULES_DEPTH = 20

# What a regular expression is made of: escapes, sets, how a group begins and ends, how often, or, and the rest.
_PIECES = re.compile(
    r"(?P<refers>\\[1-9]|\\[kg]<|\(\?[&PR0-9(])|\\(?:[pP]\{[^}]*\}|x\{[^}]*\}|.)|(?P<set>\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\])"
    r"|(?P<opens>\((?:\?(?:<?[=!]|<\w+>|[\w-]*:|>|[\w-]+(?=\)))?)?)|(?P<closes>\))|(?P<repeats>[*+]|\{\d+,\})[?+]?"
    r"|(?P<bounded>\?|\{\d*,\d*\})[?+]?|(?P<counted>\{\d+\})|(?P<either>\|)|.",
    re.DOTALL,
)


def check_tokenizer(folder: Path, byte_level: bool = False) -> None:
    """Check the files of a tokenizer.

    Args:
        byte_level: whether its tokens are bytes, so that it has no vocabulary.

    Raises:
        ModelError: names the file, and the entry that cannot be.
    """
    if not byte_level and not _has_vocabulary(folder):
        raise ModelError(f"{folder} holds no vocabulary")
    config, rules = folder / "tokenizer_config.json", folder / "tokenizer.json"
    if config.is_file():
        _check_length(config, read_json(config).get("model_max_length"))
    if rules.is_file():
        for name, problem in _find_problems(read_json(rules)):
            raise ModelError(f"{rules}: {name}: {problem}")


def _has_vocabulary(folder: Path) -> bool:
    """Whether all of it is there; a vocab.json alone, without merges.txt, is half a download."""
    names = {file.name for file in folder.iterdir()}
    if "tokenizer.json" in names or any(name.endswith(".model") for name in names):
        return True
    if "vocab.json" in names:
        return "merges.txt" in names
    return any(name.startswith("vocab") for name in names)


def _check_length(path: Path, length: object) -> None:
    if length is None or (isinstance(length, (int, float)) and length >= 1):
        return
    raise ModelError(f"{path}: model_max_length: got {repr(length)[:80]}; should be a number of tokens, at least 1")


def _find_problems(rules: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with a tokenizer.json: which entry, and what."""
    model, added = rules.get("model"), rules.get("added_tokens") or []
    if not isinstance(model, dict) or not isinstance(added, list):
        yield "model", "should be an object, with added_tokens, a list, beside it"
        return
    if len(added) > MAX_ADDED_TOKENS:
        yield "added_tokens", f"should be {MAX_ADDED_TOKENS} at most, and are {len(added)}"
    vocabulary = model.get("vocab")
    numbers = [*vocabulary.values()] if isinstance(vocabulary, dict) else []
    numbers += [token.get("id") for token in added if isinstance(token, dict)]
    for number in numbers:
        if not isinstance(number, int) or not 0 <= number <= MAX_TOKEN_ID:
            yield "vocab", f"got the token {repr(number)[:80]}; should be an integer 0 to {MAX_TOKEN_ID}"
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        yield from ((name, problem) for problem in _find_in_rule(rules.get(name), 0))
    growth = math.prod(_find_growths([rules.get("normalizer"), rules.get("pre_tokenizer")], 0))
    if growth > MAX_GROWTH:
        yield "normalizer", f"should make a text {MAX_GROWTH} times as long at most, and makes it {growth:g} times"


def _find_growths(rule: object, depth: int) -> Iterator[float]:
    """How many times as long each rule can make a text that it puts others into, one after the other."""
    if depth > MAX_RULES_DEPTH:
        return
    if isinstance(rule, dict):
        pattern, content = rule.get("pattern"), rule.get("content")
        if isinstance(content, str):
            old = pattern.get("String") if isinstance(pattern, dict) else None
            yield max(1.0, len(content) / len(old)) if isinstance(old, str) and old else len(content) + 1.0
        rule = [*rule.values()]
    if isinstance(rule, list):
        for part in rule[:MAX_RULE_LENGTH]:
            yield from _find_growths(part, depth + 1)


def _find_in_rule(rule: object, depth: int) -> Iterator[str]:
    """What is wrong with a rule, or the rules in it."""
    if depth > MAX_RULES_DEPTH:
        yield f"should be nested {MAX_RULES_DEPTH} times at most"
        return
    if isinstance(rule, list):
        if len(rule) > MAX_RULE_LENGTH:
            yield f"should be {MAX_RULE_LENGTH} rules at most, and are {len(rule)}"
        for part in rule[:MAX_RULE_LENGTH]:
            yield from _find_in_rule(part, depth + 1)
    elif isinstance(rule, dict):
        for name, part in rule.items():
            if name == "Regex" and (problem := find_regex_problem(part)):
                yield problem
            elif name in ("content", "prepend", "replacement") and len(str(part)) > MAX_RULE_LENGTH:
                yield f"{name} should have {MAX_RULE_LENGTH} characters at most, and has {len(str(part))}"
            yield from _find_in_rule(part, depth + 1)


def find_regex_problem(expression: object) -> str | None:
    """Why matching this may take a time that grows faster than a power of the text's length; None if it cannot.

    What is repeated without end may hold neither repetitions nor alternatives, because a text could then be divided
    among them in ever more ways.
    """
    if not isinstance(expression, str) or len(expression) > MAX_RULE_LENGTH * 10:
        return f"got {repr(expression)[:80]}; should be a regular expression"
    came = f"got the regular expression {expression[:80]!r}; should hold"
    groups: list[_Group] = [_Group()]
    closed: _Group | None = None
    for piece in _PIECES.finditer(expression):
        kind, group = piece.lastgroup, groups[-1]
        if kind == "refers":
            return f"{came} no references to groups"
        if kind == "opens":
            groups.append(_Group())
        elif kind == "closes" and len(groups) > 1:
            closed = groups.pop()
            groups[-1].add(closed)
            continue
        elif kind == "either":
            group.divide()
        elif kind == "repeats":
            if closed is not None and closed.divisible:
                return f"{came} no repetitions of what can be repeated in itself"
            group.repeat()
        elif kind == "bounded" and closed is None:
            group.divisible = True
        if group.repeats > MAX_REPEATS:
            return f"{came} at most {MAX_REPEATS} repetitions without end in a row"
        closed = None
    return None


class _Group:
    """What stands between two brackets of a regular expression.

    Attributes:
        divisible: whether one text can be matched by it in several ways, or with several lengths.
        repeats: repetitions without end, one after the other, of the alternative that has most.
    """

    def __init__(self) -> None:
        self.divisible = False
        self.repeats = 0
        self._most = 0

    def repeat(self) -> None:
        self.divisible = True
        self.repeats += 1

    def divide(self) -> None:
        self.divisible = True
        self._most, self.repeats = max(self._most, self.repeats), 0

    def add(self, inner: "_Group") -> None:
        self.divisible = self.divisible or inner.divisible
        self.repeats += max(inner.repeats, inner._most)
