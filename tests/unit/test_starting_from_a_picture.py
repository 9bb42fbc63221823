"""A job may bring a picture to start from: which size is drawn, how the picture is fitted to it, and what is said."""

import base64
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageDraw

from tests.helpers.asking import SD1, SDXL, ask, model_of, picture, refusal, sent
from worker.images.load import PictureRules
from worker.images.resize import MAX_SIDE, MIN_SIDE
from worker.models.capabilities import TEXT, Capabilities
from worker.request import Request

FLUX = model_of("flux-dev")


def _started(image: Image.Image, model: Capabilities = SD1, **fields: object) -> tuple[Request, Image.Image]:
    """The request, and the picture that it starts from."""
    request = ask(model, image=sent(image), **fields)
    assert request.init_image is not None
    assert request.init_image.image.size == (request.width, request.height)
    return request, request.init_image.image


def _size(width: int, height: int, model: Capabilities = SD1, /, **fields: object) -> tuple[int, int]:
    request, _ = _started(Image.new("RGB", (width, height)), model, **fields)
    return request.width, request.height


def _warnings(width: int, height: int, model: Capabilities = SD1, /, **fields: object) -> tuple[str, ...]:
    return _started(Image.new("RGB", (width, height)), model, **fields)[0].warnings


def _disc(width: int, height: int, radius: int) -> Image.Image:
    """A white disc in the middle of black."""
    image = Image.new("RGB", (width, height))
    middle = width / 2 - 0.5, height / 2 - 0.5
    box = [middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius]
    ImageDraw.Draw(image).ellipse(box, fill="white")
    return image


def _white_box(image: Image.Image) -> tuple[int, int, int, int]:
    box = image.convert("L").point(lambda value: 255 * (value > 127)).getbbox()
    assert box is not None
    return box


def test_a_data_uri_base64_and_a_path_on_the_volume_mean_the_same(tmp_path: Path) -> None:
    noise = Image.merge("RGB", [Image.effect_noise((128, 64), 100) for _ in range(3)])
    (tmp_path / "jobs").mkdir()
    noise.save(tmp_path / "jobs" / "a.png")
    plain = base64.b64encode((tmp_path / "jobs" / "a.png").read_bytes()).decode()
    rules = PictureRules(volume=tmp_path)
    for reference in (sent(noise), plain, f"{tmp_path}/jobs/a.png", "volume:jobs/a.png"):
        request = ask(image=reference, rules=rules)
        assert request.init_image is not None
        assert (request.init_image.image.mode, request.init_image.mask, request.warnings) == ("RGB", None, ())
        assert ImageChops.difference(request.init_image.image, noise).getbbox() is None


@pytest.mark.parametrize("name", ["image", "image_url", "init_image"])
def test_the_names_that_other_workers_give_it(name: str) -> None:
    assert ask(**{name: picture(128, 64)}).task == "image to image"


@pytest.mark.parametrize("reference", ["", " ", "not base64!", "data:image/png;base64,AAAA", "volume:../a.png", 5])
def test_what_is_no_picture_is_told_under_the_field(reference: object, tmp_path: Path) -> None:
    assert refusal(rules=PictureRules(volume=tmp_path), image=reference).startswith("image: got ")


@pytest.mark.parametrize(("width", "height"), [(512, 512), (64, 64), (640, 384), (1024, 1024), (2048, 512)])
def test_a_picture_of_a_size_that_fits_is_taken_as_it_is_in_silence(width: int, height: int) -> None:
    assert _size(width, height) == (width, height)
    assert _warnings(width, height) == ()


@pytest.mark.parametrize(
    ("model", "came", "drawn"),
    [(SD1, (519, 512), (512, 512)), (SD1, (520, 511), (520, 504)), (FLUX, (519, 528), (512, 528))],
)
def test_a_size_between_steps_is_rounded_down_and_said(
    model: Capabilities, came: tuple[int, int], drawn: tuple[int, int]
) -> None:
    assert _size(*came, model) == drawn
    (warning,) = _warnings(*came, model)
    assert warning.startswith(f"image: {came[0]}x{came[1]} was ") and warning.endswith(f"to {drawn[0]}x{drawn[1]}")


@pytest.mark.parametrize("came", [(1039, 1039), (1600, 900), (900, 1600), (2000, 1500)])
def test_a_picture_beyond_the_limit_is_shrunk_in_its_aspect_and_said(came: tuple[int, int]) -> None:
    width, height = _size(*came)
    assert SD1.max_pixels * 0.97 < width * height <= SD1.max_pixels
    assert width / height == pytest.approx(came[0] / came[1], rel=0.02)
    (warning,) = _warnings(*came)
    assert f"{came[0]}x{came[1]}" in warning and f"{width}x{height}" in warning


def test_a_square_beyond_the_limit_loses_no_step_to_rounding_errors() -> None:
    """1024 times 1024 is the limit: the largest square is 1024 on a side, whatever size it is shrunk from."""
    assert {_size(side, side) for side in (1025, 1039, 1040, 1070, 1081, 2000)} == {(1024, 1024)}


@pytest.mark.parametrize(("came", "drawn"), [((1, 1), (64, 64)), ((32, 16), (128, 64)), ((60, 90), (64, 96))])
def test_a_tiny_picture_is_grown_in_its_aspect_and_said(came: tuple[int, int], drawn: tuple[int, int]) -> None:
    assert _size(*came) == drawn
    (warning,) = _warnings(*came)
    assert warning == f"image: {came[0]}x{came[1]} was scaled to {drawn[0]}x{drawn[1]}"


@pytest.mark.parametrize("came", [(16_384, 1), (1, 16_384), (16_384, 100), (5_000, 2)])
def test_a_sliver_becomes_a_size_that_can_be_drawn(came: tuple[int, int]) -> None:
    for given in ({}, {"width": 64}, {"height": 64}, {"width": 1000}, {"height": 1000}):
        width, height = _size(*came, **given)
        assert min(width, height) >= MIN_SIDE and width * height <= SD1.max_pixels
        assert width % 8 == height % 8 == 0


@pytest.mark.parametrize(
    ("given", "drawn"),
    [({"width": 256}, (256, 128)), ({"height": 256}, (512, 256)), ({"width": 1000}, (1000, 496))],
)
def test_one_side_given_the_other_follows_the_aspect(given: dict[str, int], drawn: tuple[int, int]) -> None:
    assert _size(800, 400, **given) == drawn


def test_a_side_that_is_given_is_kept_even_where_the_other_is_lifted_to_the_smallest() -> None:
    assert _size(1000, 10, width=512) == (512, 64)
    assert _size(10, 1000, height=512) == (64, 512)
    (warning,) = _warnings(1000, 10, width=512)
    assert warning == "image: 1000x10 was scaled and its edges cut to 512x64"


def test_a_side_that_is_given_and_cannot_be_kept_is_said() -> None:
    rounded = _warnings(512, 512, width=513, height=512)
    assert len(rounded) == 1 and rounded[0].startswith("width: 513 became 512, ") and "of 8" in rounded[0]
    tall = _warnings(256, 1024, width=1024)
    assert tall[0].startswith("width: 1024 became 512, ") and str(SD1.max_pixels) in tall[0]
    assert _size(256, 1024, width=1024) == (512, 2048)


@pytest.mark.parametrize(
    ("came", "asked"),
    [((600, 300), (256, 256)), ((300, 600), (256, 256)), ((300, 300), (512, 256)), ((400, 300), (256, 512))],
)
def test_what_is_cut_is_never_stretched(came: tuple[int, int], asked: tuple[int, int]) -> None:
    """A disc in the middle stays round, and in the middle."""
    request, image = _started(_disc(*came, radius=60), width=asked[0], height=asked[1])
    left, top, right, bottom = _white_box(image)
    cover = max(asked[0] / came[0], asked[1] / came[1])
    assert right - left == pytest.approx(121 * cover, abs=2)
    assert bottom - top == pytest.approx(121 * cover, abs=2)
    assert (left + right) / 2 == pytest.approx(asked[0] / 2, abs=1)
    assert (top + bottom) / 2 == pytest.approx(asked[1] / 2, abs=1)
    (warning,) = request.warnings
    assert warning == f"image: {came[0]}x{came[1]} was scaled and its edges cut to {asked[0]}x{asked[1]}"


def test_edges_are_cut_alike_on_both_sides() -> None:
    """Twelve stripes over the whole width; the middle of it is kept."""
    stripes = Image.new("L", (1200, 100))
    for i in range(12):
        stripes.paste(20 * i, (100 * i, 0, 100 * i + 100, 100))
    _, image = _started(stripes.convert("RGB"), width=400, height=100)
    assert [image.getpixel((x, 52))[0] for x in (50, 150, 250, 350)] == [80, 100, 120, 140]  # of a height of 96


def test_an_upright_picture_is_upright_before_it_is_fitted() -> None:
    """EXIF says that the camera was held upright: what is stored as wide is tall."""
    stored = Image.new("RGB", (256, 128), "blue")
    stored.paste("red", (0, 0, 128, 128))
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored left is the top
    request = ask(image=sent(stored, "JPEG", exif=exif, quality=95))
    assert (request.width, request.height) == (128, 256)
    assert request.init_image is not None
    (top, bottom) = (request.init_image.image.getpixel((64, y)) for y in (32, 224))
    assert top[0] > 200 > 50 > top[2] and bottom[2] > 200 > 50 > bottom[0]
    assert request.warnings == ()


def test_grey_and_palette_pictures_become_rgb() -> None:
    for mode in ("L", "1", "P", "RGB"):
        _, image = _started(Image.new(mode, (64, 64), 1))
        assert image.mode == "RGB"


@pytest.mark.parametrize(("model", "strength"), [(SD1, 0.8), (SDXL, 0.3), (model_of("sd3"), 0.6), (FLUX, 0.6)])
def test_the_strength_is_the_pipelines_own_if_left_out(model: Capabilities, strength: float) -> None:
    assert _strength(model) == strength
    assert _strength(model, strength=0.5) == 0.5


def _strength(model: Capabilities, **fields: object) -> float:
    request = ask(model, image=picture(), **fields)
    assert request.init_image is not None
    return request.init_image.strength


def test_inpainting_has_a_strength_of_its_own() -> None:
    assert _strength(SD1, mask=picture(colour="white")) == 1.0
    assert _strength(SDXL, mask=picture(colour="white")) == 0.9999


def test_a_strength_left_out_is_at_least_one_step() -> None:
    assert _strength(SDXL, num_inference_steps=2) == 0.5
    assert _strength(SDXL, num_inference_steps=1, mask=picture(colour="white")) == 1.0


@pytest.mark.parametrize("name", ["strength", "prompt_strength", "denoising_strength"])
def test_every_spelling_of_strength_counts(name: str) -> None:
    assert _strength(SD1, **{name: 0.25}) == 0.25


@pytest.mark.parametrize("steps", [2, 3, 7, 30, 49, 50, 499, 500])
def test_a_strength_too_small_for_one_step_is_refused_and_the_advice_is_enough(steps: int) -> None:
    told = refusal(image=picture(), strength=0.5 / steps, num_inference_steps=steps)
    assert told.startswith(f"strength: got {0.5 / steps:g}; of {steps} steps that rounds to 0 steps; use at least ")
    advised = float(told.split()[-1])
    assert advised < 1 / steps + 0.0002
    assert _strength(SD1, strength=advised, num_inference_steps=steps) == advised


def test_a_strength_of_nothing_is_refused() -> None:
    assert refusal(image=picture(), strength=0).startswith("strength: got 0; ")


def test_a_strength_without_a_picture_is_told_to_have_no_effect() -> None:
    request = ask(strength=0.5)
    assert request.warnings == ("strength: has no effect without an image",)
    assert (request.init_image, request.task) == (None, TEXT)


def test_metadata_of_the_picture_go_no_further() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret"
    request = ask(image=sent(Image.new("RGB", (64, 64)), exif=exif))
    assert request.init_image is not None and request.init_image.image.info == {}
    assert not request.init_image.image.getexif()


@pytest.mark.parametrize("size", [(1, 16_384), (16_384, 1), (3, 9_000), (16_000, 100)])
def test_a_sliver_is_drawn_with_sides_that_jobs_may_name(size: tuple[int, int]) -> None:
    for model in (SD1, SDXL, FLUX):
        assert all(MIN_SIDE <= side <= MAX_SIDE for side in _size(*size, model)), "WEBP ends at 16,383 pixels a side"
    assert "8192 on a side" in refusal(SDXL, width=8192, height=64, hires={"scale": 2.8})
