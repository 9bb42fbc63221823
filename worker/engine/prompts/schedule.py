"""Prompts that change while a picture is drawn: `[from:to:when]`, by the rules of AUTOMATIC1111's web UI.

`[to:when]` adds, `[from::when]` takes away. `when` with a point is a share of the steps, without one a number of
steps that are done before. A second noise schedule, as hires has, goes on counting: from 1 to 2, and from the first
one's number of steps. What is no such thing stays as it is.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from worker.plan import Pass

_NUMBER = re.compile(r"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?")
_TOKEN = re.compile(r"\\.|embedding:|[()\[\]:|]", re.DOTALL | re.IGNORECASE)  # a word's colon is no mark
_MAX_STEP = 1e9


@dataclass(frozen=True)
class PassSteps:
    """The steps of a pass among those of its job.

    Attributes:
        earlier: noise schedules that end before the one that this pass belongs to begins.
        earlier_steps: of those.
        length: of its own noise schedule, as far as the job runs it, in steps.
        start: steps of it that are done before the pass.
        count: steps that the pass does.
    """

    earlier: int
    earlier_steps: int
    length: int
    start: int
    count: int


def list_pass_steps(passes: Sequence[Pass]) -> list[PassSteps]:
    """Those of a plan's passes, in order."""
    found: list[PassSteps] = []
    earlier, earlier_steps, begun = -1, 0, 0
    for one in passes:
        length = one.num_inference_steps if one.strength is None else one.expected_steps
        if one.start is None:  # it begins a schedule, and does not go on with the last one
            earlier, earlier_steps, begun = earlier + 1, earlier_steps + begun, length
        found.append(PassSteps(earlier, earlier_steps, length, round(length * (one.start or 0)), one.expected_steps))
    return found


@dataclass(frozen=True)
class Edit:
    """`[from:to:when]`, by the places of its marks in the prompt.

    Attributes:
        start, end: of its brackets.
        between: of the colon after `from`; of the opening bracket where there is no `from`.
        last: of the colon before `when`.
        share: whether `when` is a share of the steps, and not a number of steps.
    """

    start: int
    between: int
    last: int
    end: int
    when: float
    share: bool

    def first_step(self, steps: PassSteps) -> int:
        """How many steps of the pass's schedule are done when `to` takes the place of `from`."""
        value = (self.when - steps.earlier) * steps.length if self.share else self.when - steps.earlier_steps
        return int(max(-_MAX_STEP, min(value, _MAX_STEP)))

    def cuts(self, changed: bool) -> Iterator[tuple[int, int, str]]:
        """What is not said, before the change or after it: from where to where, and what takes its place."""
        if changed:
            yield self.start, self.between + 1, ""
            yield self.last, self.end + 1, ""
        elif self.between == self.start:
            yield self.start, self.end + 1, ""
        else:
            yield self.start, self.start + 1, ""
            yield self.between, self.end + 1, ""


@dataclass(frozen=True)
class ScheduledPrompt:
    """A prompt and where it changes.

    Attributes:
        letters: the places of brackets that are letters: those of every `[a|b]`, which is not honoured.
    """

    prompt: str
    edits: tuple[Edit, ...] = ()
    letters: tuple[int, ...] = ()

    def changes(self, steps: PassSteps) -> list[int]:
        """How many steps of its schedule are done when the pass starts, and whenever the prompt changes in it."""
        end = steps.start + steps.count
        inside = {one.first_step(steps) for one in self.edits}
        return sorted({steps.start} | {step for step in inside if steps.start < step < end})

    def text_at(self, done: int, steps: PassSteps) -> str:
        """What it says when so many steps of the pass's schedule are done."""
        cuts = [cut for one in self.edits for cut in one.cuts(done >= one.first_step(steps))]
        return _cut(self.prompt, [*cuts, *((place, place, "\\") for place in self.letters)])

    @property
    def last_text(self) -> str:
        """What it says when all has changed."""
        return self.text_at(int(_MAX_STEP), PassSteps(0, 0, 1, 0, 1))

    def as_text(self) -> "ScheduledPrompt":
        """The same, with no change in it: what would change is text."""
        ends = [place for one in self.edits for place in (one.start, one.end)]
        return ScheduledPrompt(self.prompt, letters=(*self.letters, *ends))


def parse_schedule(prompt: str) -> ScheduledPrompt:
    """Find what changes. Takes time in proportion to the prompt's length, and never fails."""
    edits: list[Edit] = []
    letters: list[int] = []
    opened: list[_Bracket] = []
    for token in _TOKEN.finditer(prompt):
        letter, place = token[0], token.start()
        if letter in "([":
            opened.append(_Bracket(letter, place))
        elif letter in ")]":
            if not opened or opened[-1].letter != {")": "(", "]": "["}[letter]:
                opened.clear()  # none of them can be closed around this one
                continue
            group = opened.pop()
            if letter == "]" and group.bars:
                letters += [group.place, place]
            elif letter == "]":
                edits += _read_edit(prompt, group, place)
        elif opened and letter == ":":
            opened[-1].colons.append(place)
        elif opened and letter == "|":
            opened[-1].bars = True
    return ScheduledPrompt(prompt, tuple(edits), tuple(letters))


@dataclass
class _Bracket:
    """One that is open, and the marks that stand in it and in no other."""

    letter: str
    place: int
    colons: list[int] = field(default_factory=list)
    bars: bool = False


def _read_edit(prompt: str, group: _Bracket, end: int) -> Iterator[Edit]:
    if len(group.colons) not in (1, 2):
        return
    last = group.colons[-1]
    number = prompt[last + 1 : end].strip()
    if _NUMBER.fullmatch(number):
        between = group.colons[0] if len(group.colons) == 2 else group.place
        yield Edit(group.place, between, last, end, float(number), "." in number)


def _cut(prompt: str, cuts: Iterable[tuple[int, int, str]]) -> str:
    parts, place = [], 0
    for start, end, instead in sorted(cuts):
        if start >= place:
            parts += [prompt[place:start], instead]
        place = max(place, end)
    return "".join([*parts, prompt[place:]])
