"""Specs as words: many ways to say one thing.

It knows English, not pictures. Every caption says exactly what its spec holds.
"""

from random import Random

from training.scenes import Spec, Thing

SHAPE_WORDS = {
    "circle": ("circle", "circle", "circle", "disc", "disk", "ball", "dot"),
    "square": ("square", "square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star", "star", "star", "five-pointed star"),
    "heart": ("heart", "heart", "heart", "love heart"),
    "ring": ("ring", "ring", "ring", "donut", "doughnut", "hoop"),
    "cross": ("cross", "cross", "cross", "plus", "plus sign"),
    "diamond": ("diamond", "diamond", "diamond", "rhombus", "lozenge"),
    None: ("shape", "object", "figure", "thing"),
}
COLOUR_WORDS = {
    "red": ("red", "red", "red", "red", "scarlet", "crimson"),
    "yellow": ("yellow", "yellow", "yellow", "yellow", "golden"),
    "purple": ("purple", "purple", "violet"),
    "grey": ("grey", "gray"),
}
SIZE_WORDS = {"small": ("small", "small", "little", "tiny"), "large": ("large", "large", "big", "big", "huge", "giant")}
STYLE_WORDS = {
    "filled": ("filled", "solid"),
    "outlined": ("outlined", "outlined", "hollow", "empty"),
    "striped": ("striped", "striped", "stripy"),
}
STYLE_ENDINGS = {
    "outlined": (" outline",),
    "striped": (" with stripes",),
}
RELATION_WORDS = {
    "left of": ("left of", "to the left of", "on the left of", "on the left side of"),
    "right of": ("right of", "to the right of", "on the right of", "on the right side of"),
    "above": ("above", "above", "over", "on top of"),
    "below": ("below", "below", "under", "beneath", "underneath"),
    "beside": ("beside", "next to"),
}
CORNERS = {
    "left of": (("on the left", "on the right"), ("at the left", "at the right")),
    "above": (("at the top", "at the bottom"), ("on top", "at the bottom"), ("at the top", "below")),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
PLACE_WORDS = {
    "left": ("on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right side", "at the right"),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    "centre": ("in the centre", "in the center", "in the middle"),
}
ROW_ENDINGS = {
    "row": (" in a row", " in a row from left to right", " from left to right", " side by side"),
    "column": (" in a column", " in a column from top to bottom", " from top to bottom"),
}
OPENINGS = (
    "a picture of ",
    "an image of ",
    "a drawing of ",
    "a photo of ",
    "there is ",
    "draw ",
    "show me ",
    "a scene with ",
)
NUMBERS = {2: ("two", "two", "2", "a pair of"), 3: ("three", "three", "3")}
GROUNDS = ("background", "background", "background", "backdrop", "canvas")


def caption(spec: Spec, random: Random) -> str:
    """One way to say the spec."""
    text = _scene(spec, random)
    if random.random() < 0.12:
        text = random.choice(OPENINGS) + text
    if spec.background:
        text = _with_background(text, spec.background, random)
    return text + "." if random.random() < 0.1 else text


def _scene(spec: Spec, random: Random) -> str:
    if spec.layout == "same":
        return _several(spec.things[0], len(spec.things), random)
    names = [_thing(thing, random) for thing in spec.things]
    if len(names) == 1:
        return _alone(names[0], spec.place, random)
    return _two(names, spec.layout, random) if len(names) == 2 else _three(names, spec.layout, random)


def _alone(name: str, place: str | None, random: Random) -> str:
    if not place:
        return name
    where = random.choice(PLACE_WORDS[place])
    return random.choice((f"{name} {where}", f"{name} {where}", f"{where} {name}", f"{where} there is {name}"))


def _two(names: list[str], layout: str, random: Random) -> str:
    """Two objects, their relation said forwards, or by the places of both."""
    a, b = names
    if layout == "together":
        return a + random.choice((" and ", " and ", " with ", ", ")) + b
    if layout in OPPOSITE and random.random() < 0.2:
        if layout not in CORNERS:
            a, b, layout = b, a, OPPOSITE[layout]
        here, there = random.choice(CORNERS[layout])
        if there == "below":
            return f"{a} {here} and {b} {there}"
        return random.choice((f"{a} {here} and {b} {there}", f"{a} {here}, {b} {there}", f"{here} {a}, {there} {b}"))
    relation = random.choice(RELATION_WORDS[layout])
    link = random.choice((" ", " ", " ", " ", " that is ", ", "))
    return f"{a}{link}{relation} {b}"


def _three(names: list[str], layout: str, random: Random) -> str:
    """Three objects: a list, a chain of relations, or one between two."""
    a, b, c = names
    if layout == "between":
        return f"{a} between {b} and {c}"
    if layout in ROW_ENDINGS and random.random() < 0.45:
        forth, back = ("left of", "right of") if layout == "row" else ("above", "below")
        if random.random() < 0.3:
            a, b, c, forth = c, b, a, back
        first, second = (random.choice(RELATION_WORDS[forth]) for _ in range(2))
        return random.choice((f"{a} {first} {b} {second} {c}", f"{a} {first} {b}, {b} {second} {c}"))
    text = random.choice((f"{a}, {b} and {c}", f"{a}, {b} and {c}", f"{a}, {b}, {c}", f"{a} and {b} and {c}"))
    if layout == "together":
        return text
    ending = random.choice(ROW_ENDINGS[layout])
    return random.choice((text + ending, text + ending, f"{ending.strip()} {text}", f"{ending.strip()}: {text}"))


def _thing(thing: Thing, random: Random) -> str:
    """An object with its article."""
    article = random.random() < 0.8
    words = _words(thing, random)
    if not article:
        return words
    if random.random() < 0.06:
        return random.choice(("the ", "one ")) + words
    return ("an " if words[0] in "aeiou" else "a ") + words


def _words(thing: Thing, random: Random, plural: bool = False) -> str:
    """Adjectives and noun, or noun and what follows it."""
    noun = random.choice(SHAPE_WORDS[thing.shape])
    noun = _plural(noun) if plural else noun
    colour = random.choice(COLOUR_WORDS.get(thing.colour, (thing.colour,))) if thing.colour else ""
    ending = random.choice(STYLE_ENDINGS.get(thing.style or "", ("",))) if random.random() < 0.2 else ""
    style = random.choice(STYLE_WORDS[thing.style]) if thing.style and not ending else ""
    size = random.choice(SIZE_WORDS[thing.size]) if thing.size else ""
    if colour and not plural and not ending and random.random() < 0.06:
        late = random.choice((f"in {colour}", f"that is {colour}", f"coloured {colour}", f"colored {colour}"))
        return " ".join(w for w in (size, style, noun, late) if w)
    front = [w for w in (size, style, colour) if w]
    if random.random() < 0.15:
        random.shuffle(front)
    comma = len(front) > 1 and random.random() < 0.08
    return (", " if comma else " ").join(front) + " " * bool(front) + noun + ending


def _several(thing: Thing, count: int, random: Random) -> str:
    return f"{random.choice(NUMBERS[count])} {_words(thing, random, plural=True)}"


def _plural(noun: str) -> str:
    if noun == "rhombus":
        return "rhombuses"
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def _with_background(text: str, colour: str, random: Random) -> str:
    """The scene and its background, in either order."""
    colour = random.choice(COLOUR_WORDS.get(colour, (colour,)))
    ground = random.choice(GROUNDS)
    article = random.choice(("a ", "a ", "a ", "an " if colour[0] in "aeiou" else "a ", ""))
    article = "an " if article == "a " and colour[0] in "aeiou" else article
    after = (
        f"{text} on {article}{colour} {ground}",
        f"{text} on {article}{colour} {ground}",
        f"{text} on {colour}",
        f"{text} over {article}{colour} {ground}",
        f"{text} against {article}{colour} {ground}",
        f"{text} with {article}{colour} {ground}",
        f"{text} in front of {article}{colour} {ground}",
        f"{text}, {colour} {ground}",
        f"{text}, {article}{colour} {ground}",
        f"{text}, the {ground} is {colour}",
    )
    before = (
        f"{colour} {ground}, {text}",
        f"{article}{colour} {ground} with {text}",
        f"on {article}{colour} {ground}, {text}",
        f"on {article}{colour} {ground} there is {text}",
        f"on {colour}, {text}",
        f"{colour} {ground} and {text}",
        f"the {ground} is {colour}, {text}",
    )
    return random.choice(after if random.random() < 0.65 else before)
