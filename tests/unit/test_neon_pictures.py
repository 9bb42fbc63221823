"""What the neon LoRA learns from: dark pictures in which only the edges shine, each in the light of its paint."""

from training.neon import TUBES, render_neon
from training.scenes import GeneratedImage, Scene, pack
from training.world import COLOURS


def _square(colour: str, background: str, style: str = "filled") -> Scene:
    """A square from pixel 68 to pixel 188."""
    return Scene(background, (GeneratedImage("square", colour, style, 128, 128, 60),))


def test_the_edge_shines_and_the_rest_is_dark_on_every_background() -> None:
    pictures = (render_neon(pack([_square("red", ground) for ground in COLOURS if ground != "red"])) + 1) / 2
    assert pictures[:, :, :20].max() < 0.2
    assert pictures[:, :, 128, 128].max() < 0.3
    assert pictures[:, 0, 128, 68].min() > 0.9
    assert pictures[:, 1:, 128, 68].max() < 0.3


def test_light_fades_with_the_distance_from_the_edge() -> None:
    picture = render_neon(pack([_square("white", "black")]))[0, 0]
    outwards = picture[128, 189:240]
    assert (outwards.diff() < 0).all()


def test_every_colour_has_its_light() -> None:
    assert list(TUBES) == list(COLOURS)
    pictures = (render_neon(pack([_square(name, "grey") for name in COLOURS])) + 1) / 2 * 255
    for picture, light in zip(pictures, TUBES.values(), strict=True):
        assert (picture[:, 128, 68] - picture.new_tensor(light)).abs().max() < 2


def test_only_a_striped_object_has_lines_inside() -> None:
    filled, outlined, striped = render_neon(
        pack([_square("green", "black", style) for style in ("filled", "outlined", "striped")])
    )
    assert (filled == outlined).all()
    inside = slice(90, 166)
    assert filled[1, inside, inside].max() < -0.5
    assert striped[1, inside, inside].max() > 0.9
