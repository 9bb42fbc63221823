"""What is drawn anew: where the mask is white, or where the picture is transparent if there is no mask."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.asking import SD1, SDXL, ask, model_of, picture, refusal, sent
from tests.helpers.fuzzing import examples
from worker.models.capabilities import CONTROLLED, IMAGE, MASK, TEXT, Capabilities
from worker.request import Request

WHITE, BLACK = 255, 0
NO_INPAINTING = model_of("sd1", tasks={task: SD1.tasks[task] for task in (TEXT, IMAGE)})


def _half(size: tuple[int, int] = (128, 64), left: int = WHITE, right: int = BLACK) -> Image.Image:
    image = Image.new("L", size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    return image


def _picture(alpha: Image.Image, colour: tuple[int, int, int] = (200, 30, 30)) -> Image.Image:
    """A picture of one colour with this opacity."""
    image = Image.new("RGB", alpha.size, colour)
    image.putalpha(alpha)
    return image


def _mask(request: Request) -> Image.Image:
    assert request.init_image is not None and request.init_image.mask is not None
    assert request.init_image.mask.mode == "L"
    assert request.init_image.mask.size == request.init_image.image.size == (request.width, request.height)
    return request.init_image.mask


def _extremes(mask: Image.Image) -> list[object]:
    """The mask's value in the middle of its left and of its right half."""
    return [mask.getpixel((mask.width * share // 4, mask.height // 2)) for share in (1, 3)]


@pytest.mark.parametrize("name", ["mask", "mask_url", "mask_image"])
def test_white_is_drawn_anew_and_black_stays(name: str) -> None:
    request = ask(image=picture(128, 64), **{name: sent(_half())})
    assert request.task == MASK
    assert _mask(request).tobytes() == _half().tobytes()
    assert request.warnings == ()


def test_a_coloured_mask_counts_by_its_lightness() -> None:
    colours = Image.new("RGB", (128, 64), (0, 0, 255))
    colours.paste((255, 255, 0), (0, 0, 64, 64))
    light, dark = _extremes(_mask(ask(image=picture(128, 64), mask=sent(colours))))
    assert light == 226 and dark == 29  # ITU-R 601


def test_a_soft_mask_stays_soft() -> None:
    ramp = Image.linear_gradient("L").resize((128, 64))
    assert _mask(ask(image=picture(128, 64), mask=sent(ramp))).tobytes() == ramp.tobytes()


@pytest.mark.parametrize("size", [(256, 128), (64, 32), (100, 100)])
def test_a_mask_of_another_size_is_stretched_over_the_image_and_said(size: tuple[int, int]) -> None:
    """It says which part of the image is meant, so that its corners are the image's corners."""
    request = ask(image=picture(128, 64), mask=sent(_half(size)))
    assert request.warnings == (f"mask: {size[0]}x{size[1]} was stretched to the image's 128x64",)
    assert _extremes(_mask(request)) == [WHITE, BLACK]
    top = Image.new("L", size)
    top.paste(WHITE, (0, 0, size[0], size[1] // 4))
    mask = _mask(ask(image=picture(128, 64), mask=sent(top)))
    assert mask.point(lambda value: 255 * (value > 127)).getbbox() == (0, 0, 128, 16)


def test_image_and_mask_are_cut_alike() -> None:
    """What is red in the picture and white in its mask stays one after both are cut to a square."""
    image = Image.new("RGB", (256, 128), "blue")
    image.paste("red", (96, 32, 160, 96))
    mask = Image.new("L", (256, 128))
    mask.paste(WHITE, (96, 32, 160, 96))
    request = ask(image=sent(image), mask=sent(mask), width=64, height=64)
    assert request.init_image is not None
    red = request.init_image.image.getchannel("R").point(lambda value: 255 * (value > 127))
    assert _mask(request).point(lambda value: 255 * (value > 127)).getbbox() == red.getbbox() == (16, 16, 48, 48)
    assert [warning.partition(":")[0] for warning in request.warnings] == ["image"]  # one choice, said once


@pytest.mark.parametrize("grey", [0, 1, 127])
def test_a_mask_that_marks_nothing_is_refused(grey: int) -> None:
    assert refusal(image=picture(), mask=picture(colour=grey, mode="L")).startswith("mask: it is black; white is ")


def test_the_darkest_grey_that_counts_as_white() -> None:
    """Pipelines take a mask's grey from the middle on as white."""
    assert _extremes(_mask(ask(image=picture(), mask=picture(colour=128, mode="L")))) == [128, 128]


def test_a_mask_whose_white_is_cut_off_or_lost_is_refused() -> None:
    edge = Image.new("L", (512, 64))
    edge.paste(WHITE, (0, 0, 16, 64))
    told = refusal(image=picture(512, 64), mask=sent(edge), width=64, height=64)
    assert told.startswith("mask: ") and "64x64" in told
    dot = Image.new("L", (1024, 1024))
    dot.putpixel((500, 500), WHITE)
    assert "64x64" in refusal(image=picture(1024, 1024), mask=sent(dot), width=64, height=64)


def test_a_mask_without_an_image_is_refused() -> None:
    assert "needs an image beside it" in refusal(mask=picture(colour="white"))
    assert "mask" not in refusal(image=5, mask=picture(colour="white"))  # there is one, if a wrong one


COLOURS = {"black": (0, 0, 0), "white": (255, 255, 255), "red": (255, 0, 0), "grey": (90, 90, 90)}


def _canvas(colour: tuple[int, int, int], opacity: int = 255, size: tuple[int, int] = (128, 64)) -> Image.Image:
    """A transparent canvas whose left half a pen has covered, with the soft edge that pens have."""
    canvas = Image.new("RGBA", size, (0, 0, 0, 0))
    for inset, share in ((0, 0.3), (1, 0.6), (2, 1.0)):
        canvas.paste((*colour, round(opacity * share)), (inset, inset, size[0] // 2 - inset, size[1] - inset))
    return canvas


@pytest.mark.parametrize("opacity", [255, 128, 60])
@pytest.mark.parametrize("colour", COLOURS.values(), ids=list(COLOURS))
def test_what_a_pen_has_drawn_on_a_transparent_canvas_is_drawn_anew(colour: tuple[int, int, int], opacity: int) -> None:
    request = ask(image=sent(_noise()), mask=sent(_canvas(colour, opacity)))
    assert _extremes(_mask(request)) == [WHITE, BLACK]
    said = [warning for warning in request.warnings if warning.startswith("mask: ")]
    assert len(said) == (0 if colour == COLOURS["white"] else 1), "a light pen is read in one way only"


def test_a_canvas_of_another_size_is_stretched_like_any_mask() -> None:
    request = ask(image=sent(_noise()), mask=sent(_canvas(COLOURS["black"], size=(64, 32))))
    assert _extremes(_mask(request)) == [WHITE, BLACK]
    assert request.warnings[0] == "mask: 64x32 was stretched to the image's 128x64"


def test_white_and_black_strokes_on_a_transparent_layer_count_by_their_lightness() -> None:
    """A second pen takes back what the first has marked."""
    strokes = Image.new("RGBA", (128, 64), (0, 0, 0, 0))
    strokes.paste((255, 255, 255, 255), (0, 0, 128, 48))
    strokes.paste((0, 0, 0, 255), (64, 0, 120, 48))
    request = ask(image=sent(_noise()), mask=sent(strokes))
    assert _extremes(_mask(request)) == [WHITE, BLACK] and request.warnings == ()


def test_a_canvas_that_nobody_has_drawn_on_is_refused() -> None:
    assert refusal(image=sent(_noise()), mask=sent(_canvas(COLOURS["black"], 0))).startswith("mask: it is black")


def _noise(seed: int = 1, size: tuple[int, int] = (128, 64)) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(size[0] * size[1] * 3))


def _smooth(size: tuple[int, int] = (128, 64)) -> Image.Image:
    """As photographs are: its colours run into one another."""
    ramp = Image.linear_gradient("L").resize(size)
    return Image.merge("RGB", [ramp, ramp.transpose(Image.Transpose.ROTATE_180), Image.new("L", size, 90)])


def _black_ground(size: tuple[int, int] = (128, 64)) -> Image.Image:
    """A thing on plain black, which stands where the hole will be."""
    image = Image.new("RGB", size)
    image.paste((200, 180, 30), (16, 16, 48, 48))
    return image


PICTURES = {
    "noise": _noise(),
    "smooth": _smooth(),
    "one colour": Image.new("RGB", (128, 64), (180, 60, 60)),
    "black ground": _black_ground(),
}


def _with_hole(image: Image.Image) -> Image.Image:
    """OpenAI's form of a mask: the picture itself, transparent where it is to be drawn anew."""
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (16, 16, 48, 48))
    hole = image.convert("RGBA")
    hole.putalpha(alpha)
    return hole


@pytest.mark.parametrize("image", PICTURES.values(), ids=list(PICTURES))
def test_the_picture_itself_as_its_mask_means_the_hole_in_it(image: Image.Image) -> None:
    _check_hole(ask(image=sent(image), mask=sent(_with_hole(image))))


@pytest.mark.parametrize("name", [name for name in PICTURES if name != "noise"])  # of which compression leaves nothing
def test_a_compressed_copy_is_the_picture_itself(name: str) -> None:
    image = PICTURES[name]
    _check_hole(ask(image=sent(image), mask=sent(_with_hole(image), "WEBP", quality=60, exact=True)))
    _check_hole(ask(image=sent(image, "JPEG", quality=60), mask=sent(_with_hole(image))))


def _check_hole(request: Request) -> None:
    mask = _mask(request)
    assert mask.getpixel((32, 32)) == WHITE and mask.getpixel((100, 32)) == BLACK
    assert [warning for warning in request.warnings if warning.startswith("mask: it is the image itself")]


@pytest.mark.parametrize("image", PICTURES.values(), ids=list(PICTURES))
def test_a_pen_in_the_colour_of_what_it_covers_is_a_pen(image: Image.Image) -> None:
    covered = image.getpixel((100, 32))
    assert isinstance(covered, tuple)
    strokes = Image.new("RGBA", image.size, (0, 0, 0, 0))
    strokes.paste((*covered, 255), (96, 24, 112, 40))
    mask = _mask(ask(image=sent(image), mask=sent(strokes)))
    assert mask.getpixel((100, 32)) == WHITE and mask.getpixel((10, 10)) == BLACK


@st.composite
def _boxes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """A part of a picture of 128x64, of eight pixels a side at least and away from its edges."""
    left, top = draw(st.integers(2, 110)), draw(st.integers(2, 46))
    return left, top, draw(st.integers(left + 8, 126)), draw(st.integers(top + 8, 62))


COLOUR = st.tuples(*[st.integers(0, 255)] * 3)
ANY_PICTURE = st.one_of(
    st.sampled_from([*PICTURES.values()]),
    st.integers(0, 99).map(_noise),
    COLOUR.map(lambda colour: Image.new("RGB", (128, 64), colour)),
)


def _check_marked(mask: Image.Image, box: tuple[int, int, int, int]) -> None:
    """What is inside the box is drawn anew, and nothing else."""
    assert mask.point(lambda value: 255 * (value >= 128)).getbbox() == box
    assert mask.crop(box).point(lambda value: 255 * (value < 128)).getbbox() is None


@examples(100)
@given(ANY_PICTURE, COLOUR, st.integers(40, 255), _boxes())
def test_any_pen_on_any_picture(
    image: Image.Image, colour: tuple[int, int, int], opacity: int, box: tuple[int, int, int, int]
) -> None:
    canvas = Image.new("RGBA", image.size, (0, 0, 0, 0))
    canvas.paste((*colour, opacity), box)
    _check_marked(_mask(ask(image=sent(image), mask=sent(canvas))), box)


@examples(100)
@given(ANY_PICTURE, _boxes())
def test_any_hole_in_any_picture(image: Image.Image, box: tuple[int, int, int, int]) -> None:
    holed = image.convert("RGBA")
    holed.paste((0, 0, 0, 0), box)
    _check_marked(_mask(ask(image=sent(image), mask=sent(holed))), box)


def test_a_mask_can_be_turned_round_and_softened_as_in_a1111() -> None:
    plain, turned = (_mask(ask(image=picture(128, 64), mask=sent(_half()), inpainting_mask_invert=i)) for i in (0, 1))
    assert turned.tobytes() == bytes(255 - value for value in plain.tobytes())
    soft = _mask(ask(image=picture(128, 64), mask=sent(_half()), mask_blur=4))
    row = [soft.getpixel((x, 32)) for x in range(48, 80)]
    assert row == sorted(row, reverse=True, key=lambda value: value or 0) and 60 < int(str(row[16])) < 195


def test_what_is_transparent_in_the_picture_is_drawn_anew_and_said() -> None:
    request = ask(image=sent(_picture(_half(left=0, right=255))))
    assert request.task == MASK and _extremes(_mask(request)) == [WHITE, BLACK]
    (warning,) = request.warnings
    assert warning.startswith("image: only its transparent parts are drawn anew")


def test_transparency_of_the_picture_keeps_its_softness() -> None:
    ramp = Image.linear_gradient("L").resize((128, 64))
    mask = _mask(ask(image=sent(_picture(ramp))))
    assert mask.tobytes() == bytes(255 - value for value in ramp.tobytes())


def test_the_strength_of_inpainting_holds_where_transparency_is_the_mask() -> None:
    request = ask(image=sent(_picture(_half())))
    assert request.init_image is not None and request.init_image.strength == 1.0


@pytest.mark.parametrize("opacity", [255, 254, 200, 128])
def test_a_nearly_opaque_picture_has_no_mask(opacity: int) -> None:
    request = ask(image=sent(_picture(Image.new("L", (128, 64), opacity))))
    assert (request.task, request.warnings) == (IMAGE, ())


def test_transparent_parts_are_white_in_what_is_started_from() -> None:
    request = ask(image=sent(_picture(_half(left=0, right=255))))
    assert request.init_image is not None and request.init_image.image.mode == "RGB"
    assert _extremes(request.init_image.image) == [(255, 255, 255), (200, 30, 30)]


def test_a_mask_goes_before_transparency_which_is_filled_with_white_and_said() -> None:
    request = ask(image=sent(_picture(_half(left=0, right=255))), mask=sent(_half(left=0, right=255)))
    assert _extremes(_mask(request)) == [BLACK, WHITE]
    assert request.warnings == ("image: its transparent parts were filled with white",)
    assert request.init_image is not None
    assert _extremes(request.init_image.image) == [(255, 255, 255), (200, 30, 30)]


def test_where_the_model_cannot_inpaint_transparency_is_filled_with_white_and_said() -> None:
    request = ask(NO_INPAINTING, image=sent(_picture(_half(left=0, right=255))))
    assert request.task == IMAGE and request.warnings == ("image: its transparent parts were filled with white",)
    assert request.init_image is not None
    assert _extremes(request.init_image.image) == [(255, 255, 255), (200, 30, 30)]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (
            "controlnet.0.image",
            {"controlnet": {"image": sent(_picture(_half(left=0, right=255)))}, "width": 128, "height": 64},
        ),
        ("ip_adapter.image", {"ip_adapter": {"image": sent(_picture(_half(left=0, right=255)))}}),
    ],
)
def test_transparency_is_filled_with_white_and_said_where_nothing_is_drawn_anew(
    name: str, fields: dict[str, object]
) -> None:
    request = ask(model_of("sd1", controlnets=("canny",), ip_adapter=True), **fields)
    assert request.warnings == (f"{name}: its transparent parts were filled with white",)


@pytest.mark.parametrize("model", [SDXL, SD1])
def test_transparency_beside_a_controlnet_counts_where_the_two_go_together(model: Capabilities) -> None:
    tasks = {**model.tasks, IMAGE + CONTROLLED: {"strength": 0.8}}
    able = MASK + CONTROLLED in model.tasks
    request = ask(
        model_of(model.name, controlnets=("canny",), tasks=tasks),
        image=sent(_picture(_half(left=0, right=255))),
        controlnet={"image": picture(128, 64)},
    )
    assert request.task == (MASK if able else IMAGE) + CONTROLLED
