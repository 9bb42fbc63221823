"""Specs as words: many ways to say one thing.

It knows English, not pictures. Every caption says exactly what its spec holds.
"""

from random import Random

from training.scenes import Spec, Thing

SHAPE_WORDS = {
    "circle": (*["circle"] * 6, "disc", "disk", "ball", "dot", "circle shape", "round shape"),
    "square": (*["square"] * 5, "box", "block", "square shape"),
    "triangle": (*["triangle"] * 6, "triangle shape"),
    "star": (*["star"] * 6, "five-pointed star", "star shape"),
    "heart": (*["heart"] * 6, "love heart", "heart shape"),
    "ring": (*["ring"] * 5, "donut", "doughnut", "hoop", "ring shape"),
    "cross": (*["cross"] * 6, "plus", "plus sign", "plus shape", "plus symbol"),
    "diamond": (*["diamond"] * 5, "rhombus", "lozenge", "diamond shape"),
    None: ("shape", "object", "figure", "thing", "item"),
}
COLOUR_WORDS = {
    "red": (*["red"] * 8, "scarlet", "crimson", "ruby"),
    "orange": (*["orange"] * 10, "tangerine"),
    "yellow": (*["yellow"] * 8, "golden", "gold", "lemon"),
    "green": (*["green"] * 10, "emerald", "lime"),
    "blue": (*["blue"] * 10, "navy", "azure"),
    "purple": (*["purple"] * 7, "violet", "violet", "lilac"),
    "pink": (*["pink"] * 10, "rose"),
    "brown": (*["brown"] * 10, "chocolate"),
    "black": (*["black"] * 10, "jet black"),
    "white": (*["white"] * 10, "snow white"),
    "grey": (*["grey"] * 5, *["gray"] * 4, "silver"),
}
SHADES = ("bright", "dark", "light", "deep", "vivid", "pale")  # said of a colour now and then; they change nothing
SIZE_WORDS = {
    "small": (*["small"] * 5, "little", "little", "tiny", "tiny", "mini", "miniature"),
    "large": (*["large"] * 4, *["big"] * 4, "huge", "giant", "enormous", "massive", "gigantic"),
}
STYLE_WORDS = {
    "filled": ("filled", "solid"),
    "outlined": (*["outlined"] * 3, "hollow", "hollow", "empty", "unfilled"),
    "striped": (*["striped"] * 4, "stripy", "stripey"),
}
STYLE_ENDINGS = {
    "outlined": (" outline", " in outline"),
    "striped": (" with stripes",),
}
RELATION_WORDS = {
    "left of": (*["left of", "to the left of"] * 3, "on the left of", "on the left side of", "at the left of"),
    "right of": (*["right of", "to the right of"] * 3, "on the right of", "on the right side of", "at the right of"),
    "above": (*["above"] * 4, "over", "over", "on top of", "higher than"),
    "below": (*["below"] * 4, "under", "under", "beneath", "underneath", "lower than"),
    "beside": ("beside", "next to", "alongside", "near"),
}
# The second of two, seen from the first.
FROM_FIRST = {
    "left of": ("to its right", "on its right", "on the right of it"),
    "right of": ("to its left", "on its left", "on the left of it"),
    "above": ("below it", "under it", "beneath it"),
    "below": ("above it", "over it", "on top of it"),
}
CORNERS = {
    "left of": (("on the left", "on the right"), ("at the left", "at the right"), ("to the left", "to the right")),
    "above": (("at the top", "at the bottom"), ("on top", "at the bottom"), ("at the top", "below")),
}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
PLACE_WORDS = {
    "left": ("on the left", "on the left side", "at the left", "to the left"),
    "right": ("on the right", "on the right side", "at the right", "to the right"),
    "top": ("at the top", "near the top"),
    "bottom": ("at the bottom", "near the bottom"),
    "centre": ("in the centre", "in the center", "in the middle"),
}
ROW_ENDINGS = {
    "row": (" in a row", " in a row from left to right", " from left to right", " side by side", " in a line"),
    "column": (" in a column", " in a column from top to bottom", " from top to bottom", " stacked vertically"),
}
OPENINGS = (
    *("a picture of ", "an image of ", "a drawing of ", "a photo of ", "an illustration of ", "a painting of "),
    *("picture of ", "image of ", "photo of ", "drawing of ", "an image showing ", "a picture showing "),
    *("there is ", "draw ", "draw me ", "please draw ", "show me ", "please show ", "a scene with ", "paint "),
    *("i want ", "i would like ", "give me ", "create ", "generate ", "make ", "can you draw "),
)
NUMBERS = {
    2: (*["two"] * 4, "2", "2", "a pair of", "a couple of"),
    3: (*["three"] * 4, "3", "3", "a trio of"),
}
GROUNDS = (*["background"] * 7, "backdrop", "canvas", "bg", "surface")
NOISE = 0.05  # share of training captions with words that mean nothing here
FILLERS = (
    *("nice", "beautiful", "pretty", "cute", "lovely", "simple", "perfect", "shiny", "cool", "modern", "plain"),
    *("high quality", "best quality", "4k", "hd", "detailed", "sharp", "flat design", "vector art", "digital art"),
    *("blurry", "low quality", "ugly", "deformed", "text", "watermark", "minimalist", "cartoon", "realistic"),
)


def wording(spec: Spec, random: Random) -> str:
    """A caption for training: now and then with words that mean nothing here, or with other signs for its commas."""
    text = caption(spec, random)
    if random.random() < 0.04:
        text = text.replace(", ", random.choice(("; ", " , ", " - ", " / ", "\n", " ")))
    if random.random() < NOISE:
        words = text.split(" ")
        for _ in range(random.choice((1, 1, 2))):
            words.insert(random.randint(0, len(words)), _meaningless(random))
        text = " ".join(words)
    elif random.random() < NOISE:
        text += ", " + ", ".join(random.sample(FILLERS, random.choice((1, 2))))
    return text


def _meaningless(random: Random) -> str:
    """A filler, or letters in a row as a word never heard."""
    if random.random() < 0.5:
        return random.choice(FILLERS)
    return "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(3, 8)))


def caption(spec: Spec, random: Random) -> str:
    """One way to say the spec."""
    if spec.layout == "bare":
        return _bare(spec, random)
    if len(spec.things) == 1 and not spec.place and random.random() < 0.06:
        return _keywords(spec, random)
    text = _scene(spec, random)
    if random.random() < 0.12:
        text = random.choice(OPENINGS) + text
    if spec.background:
        text = _with_background(text, spec.background, random)
    return text + random.choice((".", ".", ".", "!", " please", ", please")) if random.random() < 0.1 else text


def _bare(spec: Spec, random: Random) -> str:
    """The one thing that is said, alone, as in a negative prompt; nothing for a spec that says nothing."""
    if spec.background:
        return f"{_colour(spec.background, random)} {random.choice(GROUNDS)}"
    words = _attributes(spec.things[0], random)
    return words[0] if words else ", ".join(random.sample(FILLERS, random.choice((1, 2, 3))))


def _keywords(spec: Spec, random: Random) -> str:
    """One object as a list of words in any order."""
    words = _attributes(spec.things[0], random)
    if spec.background:
        words.append(f"{_colour(spec.background, random)} {random.choice(GROUNDS)}")
    if not spec.things[0].shape and random.random() < 0.7:
        words.append(random.choice(SHAPE_WORDS[None]))
    random.shuffle(words)
    return random.choice((", ", ", ", ", ", " ")).join(words)


def _attributes(thing: Thing, random: Random) -> list[str]:
    """A word for each thing that is said of it."""
    said = (
        random.choice(SHAPE_WORDS[thing.shape]) if thing.shape else "",
        _colour(thing.colour, random) if thing.colour else "",
        random.choice(SIZE_WORDS[thing.size]) if thing.size else "",
        random.choice(STYLE_WORDS[thing.style]) if thing.style else "",
    )
    return [word for word in said if word]


def _colour(colour: str, random: Random) -> str:
    word = random.choice(COLOUR_WORDS[colour])
    return f"{random.choice(SHADES)} {word}" if random.random() < 0.025 else word


def _scene(spec: Spec, random: Random) -> str:
    things = spec.things
    if spec.layout.startswith("same"):
        ending = random.choice(ROW_ENDINGS[spec.layout[5:]]) if spec.layout != "same" else ""
        return _several(things[0], len(things), random) + ending
    if spec.layout == "two and one":
        parts = [_several(things[0], 2, random), _thing(things[2], random)]
        if random.random() < 0.3:
            parts.reverse()
        return random.choice((" and ", " and ", " with ", ", ", " plus ")).join(parts)
    names = [_thing(thing, random) for thing in things]
    if len(names) == 1:
        return _alone(names[0], spec.place, random)
    return _two(names, spec.layout, random) if len(names) == 2 else _three(names, spec.layout, random)


def _alone(name: str, place: str | None, random: Random) -> str:
    if not place:
        return name
    where = random.choice(PLACE_WORDS[place])
    return random.choice((f"{name} {where}", f"{name} {where}", f"{where} {name}", f"{where} there is {name}"))


def _two(names: list[str], layout: str, random: Random) -> str:
    """Two objects, their relation said forwards, from the first, from the second, or by the places of both."""
    a, b = names
    if layout == "together":
        return a + random.choice((" and ", " and ", " and ", " with ", ", ", " and also ", " plus ")) + b
    way = random.random()
    if layout in OPPOSITE and way < 0.2:
        return _by_places(a, b, layout, random)
    if layout in FROM_FIRST and way < 0.28:
        there = random.choice(FROM_FIRST[layout])
        return random.choice((f"{a} with {b} {there}", f"{a} and {b} {there}", f"{a}, {b} {there}"))
    relation = random.choice(RELATION_WORDS[layout])
    if way > 0.95:
        return f"{relation} {b}{random.choice((' is ', ' there is ', ', '))}{a}"
    link = random.choice((*[" "] * 6, " that is ", " is ", " placed ", ", "))
    return f"{a}{link}{relation} {b}"


def _by_places(a: str, b: str, layout: str, random: Random) -> str:
    if layout not in CORNERS:
        a, b, layout = b, a, OPPOSITE[layout]
    here, there = random.choice(CORNERS[layout])
    if there == "below":
        return f"{a} {here} and {b} {there}"
    forwards = (f"{a} {here} and {b} {there}", f"{a} {here}, {b} {there}", f"{here} {a}, {there} {b}")
    return random.choice((*forwards, *forwards, f"{b} {there} and {a} {here}"))


def _three(names: list[str], layout: str, random: Random) -> str:
    """Three objects: a list, a chain of relations, one between two, or one and two."""
    a, b, c = names
    if layout == "between":
        return f"{a}{random.choice((' ', ' ', ' in '))}between {b} and {c}"
    if layout in ("one over two", "two over one"):
        return _one_and_two(names, layout, random)
    if layout in ROW_ENDINGS and random.random() < 0.45:
        forth, back = ("left of", "right of") if layout == "row" else ("above", "below")
        if random.random() < 0.3:
            a, b, c, forth = c, b, a, back
        first, second = (random.choice(RELATION_WORDS[forth]) for _ in range(2))
        return random.choice((f"{a} {first} {b} {second} {c}", f"{a} {first} {b}, {b} {second} {c}"))
    text = random.choice((*[f"{a}, {b} and {c}"] * 3, f"{a}, {b}, and {c}", f"{a}, {b}, {c}", f"{a} and {b} and {c}"))
    if layout == "together":
        return text
    ending = random.choice(ROW_ENDINGS[layout])
    return random.choice((text + ending, text + ending, f"{ending.strip()} {text}", f"{ending.strip()}: {text}"))


def _one_and_two(names: list[str], layout: str, random: Random) -> str:
    """One object over two, or two over one; the two stand side by side, as one reads."""
    a, b, c = names
    over, under, left = (random.choice(RELATION_WORDS[name]) for name in ("above", "below", "left of"))
    if layout == "one over two":
        return random.choice(
            (f"{a} {over} {b} and {c}", f"{b} and {c} {under} {a}", f"{b} {left} {c}, {a} {over} them")
        )
    return random.choice((f"{a} and {b} {over} {c}", f"{c} {under} {a} and {b}", f"{a} {left} {b}, {c} {under} them"))


def _thing(thing: Thing, random: Random) -> str:
    """An object with its article."""
    article = random.random() < 0.8
    words = _words(thing, random)
    if not article:
        return words
    if random.random() < 0.06:
        return random.choice(("the ", "one ", "1 ", "a single ")) + words
    return _with_article(words)


def _with_article(words: str) -> str:
    return ("an " if words[0] in "aeio" else "a ") + words  # a unfilled star, as people do write


def _words(thing: Thing, random: Random, plural: bool = False) -> str:
    """Adjectives and noun, or noun and what follows it."""
    noun = random.choice(SHAPE_WORDS[thing.shape])
    noun = _plural(noun) if plural else noun
    colour = _colour(thing.colour, random) if thing.colour else ""
    ending = random.choice(STYLE_ENDINGS.get(thing.style or "", ("",))) if random.random() < 0.2 else ""
    style = random.choice(STYLE_WORDS[thing.style]) if thing.style and not ending else ""
    size = random.choice(SIZE_WORDS[thing.size]) if thing.size else ""
    if colour and not plural and not ending and random.random() < 0.06:
        late = random.choice(("in", "that is", "which is", "coloured", "colored"))
        return " ".join(w for w in (size, style, noun, late, colour) if w)
    front = [w for w in (size, style, colour) if w]
    if random.random() < 0.15:
        random.shuffle(front)
    comma = len(front) > 1 and random.random() < 0.08
    return (", " if comma else " ").join(front) + " " * bool(front) + noun + ending


def _several(thing: Thing, count: int, random: Random) -> str:
    return f"{random.choice(NUMBERS[count])} {_words(thing, random, plural=True)}"


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def _with_background(text: str, colour: str, random: Random) -> str:
    """The scene and its background, in either order."""
    colour = _colour(colour, random)
    ground = random.choice(GROUNDS)
    some = random.choice((_with_article(colour), _with_article(colour), colour))
    after = (
        *[f"{text} on {some} {ground}", f"{text} on {colour}", f"{text}, {colour} {ground}"] * 3,
        *[f"{text} against {some} {ground}", f"{text} with {some} {ground}"] * 2,
        f"{text} over {some} {ground}",
        f"{text} in front of {some} {ground}",
        f"{text}, {some} {ground}",
        f"{text}, the {ground} is {colour}",
        f"{text}. The {ground} is {colour}",
        f"{text}, {ground} {colour}",
        f"{text}, {ground}: {colour}",
        f"{text}, the {ground} should be {colour}",
        f"{text} with the {ground} in {colour}",
        f"{text} and {some} {ground}",
    )
    before = (
        *[f"{colour} {ground}, {text}", f"on {some} {ground}, {text}", f"{some} {ground} with {text}"] * 2,
        f"on {some} {ground} there is {text}",
        f"on {colour}, {text}",
        f"{colour} {ground} and {text}",
        f"{colour} {ground}: {text}",
        f"the {ground} is {colour}, {text}",
        f"the {ground} is {colour} and there is {text}",
        f"{ground} {colour}, {text}",
    )
    return random.choice(after if random.random() < 0.65 else before)
