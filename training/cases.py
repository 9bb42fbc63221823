"""What the model is asked in its evaluation: prompts of held-out combinations, and prompts written by hand."""

from dataclasses import dataclass
from pathlib import Path
from random import Random

from training.captions import caption
from training.scenes import Spec, Thing
from training.world import COLOURS, HELD_OUT, RELATIONS, SHAPES, SIZES, STYLES

HANDWRITTEN = Path(__file__).with_name("prompts.txt")


@dataclass(frozen=True)
class Case:
    """A prompt and what its picture must show."""

    prompt: str
    spec: Spec


def held_out(count: int, seed: int = 20) -> list[Case]:
    """Prompts that ask for a colour, a shape and a background that no training picture held together."""
    random = Random(seed)
    specs = [_held_out_spec(random) for _ in range(count)]
    return [Case(caption(spec, random), spec) for spec in specs]


def _held_out_spec(random: Random) -> Spec:
    count = random.choices((1, 2, 3), (0.34, 0.36, 0.30))[0]
    background = random.choice(list(COLOURS))
    pairs = [(colour, shape) for colour, shape, ground in sorted(HELD_OUT) if ground == background]
    things = [_thing(random, *random.choice(pairs))]
    while len(things) < count:
        free = [(c, s) for c in COLOURS if c != background for s in SHAPES]
        things.append(_thing(random, *random.choice(pairs if random.random() < 0.3 else free)))
    random.shuffle(things)
    layouts: dict[int, tuple[str, ...]] = {1: ("alone",), 2: RELATIONS, 3: ("row", "column")}
    return Spec(tuple(things), background, random.choice(layouts[count]))


def _thing(random: Random, colour: str, shape: str) -> Thing:
    styled = random.random() < 0.15 and shape != "ring"
    return Thing(
        shape=shape,
        colour=colour,
        size=random.choice(SIZES) if random.random() < 0.6 else None,
        style=random.choice(STYLES) if styled else None,
    )


def handwritten() -> list[Case]:
    """The prompts of `prompts.txt`."""
    lines = HANDWRITTEN.read_text(encoding="utf-8").splitlines()
    return [_case(line) for line in lines if line and not line.startswith("#")]


def _case(line: str) -> Case:
    prompt, background, layout, things = (part.strip() for part in line.split("|"))
    spec = Spec(tuple(_read(t) for t in things.split(";")), None if background == "-" else background, layout)
    return Case(prompt, spec)


def _read(words: str) -> Thing:
    """An object in the tables' own words, in any order."""
    found = words.split()
    tables = (SHAPES, tuple(COLOURS), SIZES, STYLES)
    thing = Thing(*(next((word for word in found if word in table), None) for table in tables))
    if sum(value is not None for value in (thing.shape, thing.colour, thing.size, thing.style)) != len(found):
        raise ValueError(f"not all of {words!r} is understood")
    return thing
