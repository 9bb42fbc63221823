"""What can be in a picture: shapes, colours, sizes and styles, as plain tables.

It knows the names and the numbers. How a shape is drawn stands in `render.py`, how it is said in `captions.py`.
"""

SIDE = 256  # pixels; the native width and height of the model

SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond")

# sRGB, 0 to 255. The six hues are 0, 30, 55, 120, 225 and 280 degrees.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 32, 32),
    "orange": (245, 130, 15),
    "yellow": (250, 230, 12),
    "green": (30, 160, 30),
    "blue": (30, 80, 230),
    "purple": (152, 36, 210),
    "pink": (252, 140, 190),
    "brown": (118, 68, 28),
    "black": (16, 16, 16),
    "white": (250, 250, 250),
    "grey": (132, 132, 132),
}

SIZES = ("small", "large")
STYLES = ("filled", "outlined", "striped")
RELATIONS = ("left of", "right of", "above", "below")

# Half the longer side of an object's bounding box, in pixels, by the number of objects in the scene.
# None: the caption does not say. SMALL_LIMIT tells small from large.
RADII: dict[str | None, dict[int, tuple[float, float]]] = {
    "small": {1: (24, 30), 2: (24, 30), 3: (24, 30)},
    "large": {1: (48, 76), 2: (42, 54), 3: (38, 40)},
    None: {1: (38, 66), 2: (32, 50), 3: (28, 39)},
}
SMALL_LIMIT = 34.0

# Each of these pairs is kept from training on four of the ten backgrounds, and on all where the caption names none.
_PAIRS = (
    ("red", "diamond"),
    ("orange", "heart"),
    ("yellow", "cross"),
    ("green", "ring"),
    ("blue", "cross"),
    ("purple", "square"),
    ("pink", "triangle"),
    ("brown", "star"),
    ("black", "diamond"),
    ("white", "heart"),
    ("grey", "circle"),
)
_NAMES = tuple(COLOURS)
# (colour, shape, background): what no training picture shows and the evaluation asks for.
HELD_OUT = frozenset(
    (colour, shape, _NAMES[(_NAMES.index(colour) + step) % len(_NAMES)])
    for colour, shape in _PAIRS
    for step in (2, 4, 7, 9)
)


def is_held_out(colour: str | None, shape: str | None, background: str | None) -> bool:
    """Whether training must not show this; with no background, whether some background is held out."""
    if background is None:
        return (colour, shape) in _PAIRS
    return (colour, shape, background) in HELD_OUT
