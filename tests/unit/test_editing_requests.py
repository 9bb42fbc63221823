"""A job may bring pictures that its instruction speaks of: each is bounded as any picture, and all of them together."""

import base64
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from tests.helpers.asking import CONTROL, EDIT_ONLY, EDITOR, FILL, SD1, SPLITTER, ask, picture, refusal, sent
from tests.helpers.fuzzing import examples
from tests.helpers.picture_sources import answer, corners, file_of, hosting
from worker.api.parse import parse
from worker.errors import InvalidInputError
from worker.images.load import MAX_LARGEST, PictureRules
from worker.models.capabilities import EDIT, MASK, TEXT, Capabilities
from worker.models.editing import EDITORS, MAX_REFERENCES, Editing

TEN = 10


def _taking(references: int) -> Capabilities:
    return replace(EDITOR, editing=Editing(references))


def _noise(width: int = 128, height: int = 64) -> Image.Image:
    return Image.merge("RGB", [Image.effect_noise((width, height), 100) for _ in range(3)])


def _names(told: str) -> list[str]:
    return [problem.partition(":")[0] for problem in told.split("; ") if ": got " in problem]


# What pictures mean


@pytest.mark.parametrize("name", ["images", "image_urls", "input_images", "image", "image_url", "init_image"])
def test_one_picture_may_stand_in_either_field(name: str) -> None:
    request = ask(EDITOR, **{name: [picture(128, 64)]}, seed=1)
    assert (request.task, len(request.references), request.init_image) == (EDIT, 1, None)
    assert request == ask(EDITOR, image=picture(128, 64), seed=1)


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_no_word_stands_for_a_picture_that_is_not_there(field: str) -> None:
    model = replace(EDITOR, picture_tokens=("<|image_pad|>",), family=replace(EDITOR.family, negative_prompt=True))
    words = {"prompt": "make it red", field: "a cat <|image_pad|> on it"}
    assert f"{field}: " in refusal(model, images=[picture(64, 64)], **words)
    assert ask(model, images=[picture(64, 64)], prompt="<|image|> of a cat", seed=1).task == EDIT


def test_image_is_the_first_of_several() -> None:
    red, blue, green = (picture(64, 64, colour) for colour in ("red", "blue", "green"))
    assert ask(EDITOR, image=red, images=[blue, green], seed=1) == ask(EDITOR, images=[red, blue, green], seed=1)


def test_a_mask_says_that_a_picture_is_started_from() -> None:
    request = ask(EDITOR, image=picture(128, 64), mask=picture(128, 64, "white"), strength=0.5)
    assert (request.task, request.references) == (MASK, ())
    request = ask(EDITOR, images=[picture(128, 64)], mask=picture(128, 64, "white"))
    assert (request.task, request.references) == (MASK, ())


@pytest.mark.parametrize(
    ("size", "fits"), [((640, 80), True), ((80, 640), True), ((648, 80), False), ((1, 4000), False)]
)
def test_a_picture_is_no_longer_than_the_model_edits(size: tuple[int, int], fits: bool) -> None:
    model = replace(EDITOR, editing=EDITORS["Flux2KleinPipeline"])
    if fits:
        assert ask(model, images=[picture(64, 64), picture(*size)]).references[1].size == size
    else:
        told = refusal(model, images=[picture(64, 64), picture(*size)])
        assert "images.1: the picture is" in told and "at most 8 times the other" in told


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((1024, 1024), (1024, 1024)),
        ((2048, 512), (2048, 512)),
        ((2100, 2100), (1024, 1024)),
        ((300, 300), (512, 512)),
        ((300, 400), (512, 672)),
        ((4200, 1050), (2048, 512)),
        ((640, 1000), (640, 992)),
        ((2052, 512), None),
    ],
)
def test_a_model_that_scales_no_picture_is_handed_one_that_it_sees(
    size: tuple[int, int], seen: tuple[int, int] | None
) -> None:
    model = replace(EDITOR, editing=EDITORS["GlmImagePipeline"])
    if seen is None:
        assert "at most 4 times the other" in refusal(model, images=[picture(*size)])
        return
    request = ask(model, images=[picture(*size)])
    assert [one.size for one in request.references] == [seen]
    told = [one for one in request.warnings if f": {size[0]}x{size[1]} was scaled" in one]
    assert len(told) == (seen != size)


def test_no_picture_is_a_prompt_alone() -> None:
    for fields in ({}, {"images": []}, {"image": None}, {"images": None}):
        assert ask(EDITOR, **fields).task == TEXT


def test_transparent_parts_are_filled_and_said() -> None:
    """They say nothing of what is to be edited, as they say what is to be drawn anew elsewhere."""
    request = ask(EDITOR, image=picture(64, 64, (255, 0, 0, 0), mode="RGBA"))
    assert request.task == EDIT and request.warnings == ("image: its transparent parts were filled with white",)
    assert request.references[0].getpixel((0, 0)) == (255, 255, 255)


def test_a_data_uri_base64_and_a_path_on_the_volume_mean_the_same(tmp_path: Path) -> None:
    noise = _noise()
    noise.save(tmp_path / "a.png")
    plain = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    rules = PictureRules(volume=tmp_path)
    request = ask(EDITOR, images=[sent(noise), plain, f"{tmp_path}/a.png", "volume:a.png"], rules=rules)
    assert [one.mode for one in request.references] == ["RGB"] * 4 and request.warnings == ()
    assert all(ImageChops.difference(one, noise).getbbox() is None for one in request.references)


# The size that is drawn


@pytest.mark.parametrize(
    ("sent_size", "fields", "size"),
    [
        ((512, 512), {}, (1024, 1024)),
        ((400, 300), {}, (1184, 880)),
        ((300, 600), {}, (720, 1456)),
        ((300, 600), {"width": 512}, (512, 1024)),
        ((300, 600), {"height": 512}, (256, 512)),
        ((300, 600), {"width": 640, "height": 640}, (640, 640)),
        ((300, 600), {"aspect_ratio": "1:1"}, (1024, 1024)),
        ((1, 900), {}, (64, 8192)),
    ],
    ids=str,
)
def test_the_size_is_the_model_s_own_in_the_aspect_of_the_first_picture(
    sent_size: tuple[int, int], fields: dict[str, Any], size: tuple[int, int]
) -> None:
    request = ask(EDITOR, images=[picture(*sent_size), picture(64, 64)], **fields)
    assert (request.width, request.height) == size


def test_a_picture_of_more_pixels_than_is_looked_at_is_scaled_and_said() -> None:
    request = ask(EDITOR, image=picture(4096, 2048))
    (reference,) = request.references
    assert reference.size == (2896, 1448)
    assert request.warnings == ("image: 4096x2048 was scaled to 2896x1448",)


@pytest.mark.parametrize(("sent_size", "size"), [((1, 1), (64, 64)), ((1, 128), (64, 8192)), ((300, 1), (8192, 64))])
def test_a_picture_too_small_to_be_looked_at_is_enlarged_and_said(
    sent_size: tuple[int, int], size: tuple[int, int]
) -> None:
    request = ask(EDITOR, image=picture(*sent_size))
    assert request.references[0].size == size
    (told,) = request.warnings
    assert told.startswith("image: {}x{} was scaled".format(*sent_size)) and told.endswith("to {}x{}".format(*size))


# Bounds


def test_every_model_takes_a_number_that_a_request_can_hold() -> None:
    assert all(1 <= one.references <= MAX_REFERENCES for one in EDITORS.values())


@pytest.mark.parametrize("most", [1, 3, TEN])
def test_more_than_the_model_takes_are_refused_by_name(most: int) -> None:
    assert len(ask(_taking(most), images=[picture(64, 64)] * most).references) == most
    told = refusal(_taking(most), images=[picture(64, 64)] * (most + 1))
    assert told.startswith(f"images: got a list of {most + 1}; ") and (f"{most}" in told or "one picture" in told)


def test_a_thousand_are_refused_before_any_is_read() -> None:
    read: list[None] = []
    rules = PictureRules(check=lambda: read.append(None))
    assert refusal(_taking(TEN), images=["x"] * 1_000, rules=rules).startswith("images: got a list of 1000; ")
    assert read == []


def test_each_is_bounded_as_any_picture() -> None:
    good, noise = picture(64, 64), _noise()
    rules = PictureRules(max_bytes=len(file_of(noise)) - 1, max_pixels=10_000)
    assert refusal(EDITOR, images=[good, sent(noise)], rules=rules).startswith("images.1: got a data URI")
    assert "at most 10000 pixels" in refusal(EDITOR, images=[good, good, picture(128, 128)], rules=rules)
    assert refusal(EDITOR, images=[good, "zz!"]).startswith("images.1: got 'zz!'; ")
    assert refusal(EDITOR, images=[good, "file:///etc/passwd"]).startswith("images.1: got ")


def test_ten_together_are_bounded_in_pixels() -> None:
    rules = PictureRules(max_pixels=64 * 64)
    assert len(ask(_taking(TEN), images=[picture(64, 64)] * MAX_LARGEST, rules=rules).references) == MAX_LARGEST
    told = refusal(_taking(TEN), images=[picture(64, 64)] * TEN, rules=rules)
    assert told.startswith(f"images.{MAX_LARGEST}: got ") and f"{MAX_LARGEST * 64 * 64} pixels together" in told


def test_ten_together_are_bounded_in_bytes() -> None:
    data = file_of(_noise())
    rules = PictureRules(max_bytes=len(data))
    told = refusal(_taking(TEN), images=[base64.b64encode(data).decode()] * TEN, rules=rules)
    assert told.startswith(f"images.{MAX_LARGEST}: got ") and f"{MAX_LARGEST * len(data)} bytes" in told


def test_ten_urls_lead_to_public_hosts_only() -> None:
    """Each is held to the rules by itself: a good one before it opens no door."""
    asked: list[str] = []

    def note(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        answer(file_of(corners()))(request)

    with hosting(note) as host:
        url = f"http://127.0.0.1:{host.server_address[1]}/a.png"
        for place in range(TEN):
            images = [picture(64, 64)] * TEN
            images[place] = url
            told = refusal(_taking(TEN), images=images)
            assert told.startswith(f"images.{place}: got a URL at 127.0.0.1; ")
    assert asked == []


def test_a_job_that_is_not_wanted_any_more_is_left_between_two_pictures() -> None:
    class Gone(Exception):
        pass

    left = 8

    def check() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Gone

    with pytest.raises(Gone):
        ask(_taking(TEN), images=[picture(64, 64)] * TEN, rules=PictureRules(check=check))


# What goes with what


@pytest.mark.parametrize(
    ("model", "fields", "field"),
    [
        (EDIT_ONLY, {}, "image"),
        (EDIT_ONLY, {"strength": 0.5}, "image"),
        (EDIT_ONLY, {"image": picture(), "strength": 0.5}, "strength"),
        (EDIT_ONLY, {"image": picture(), "mask": picture()}, "mask"),
        (EDIT_ONLY, {"image": picture(), "hires": {}}, "hires"),
        (EDITOR, {"image": picture(), "strength": 0.5}, "strength"),
        (EDITOR, {"mask": picture()}, "mask"),
        (EDITOR, {"image": picture(), "hires": {}}, "hires"),
        (EDITOR, {"image": picture(), "mask": picture(colour="white"), "images": [picture()] * 2}, "images"),
        (EDITOR, {"image": picture(), "controlnet": {"image": picture()}}, "controlnet"),
        (SD1, {"images": [picture(), picture()]}, "images"),
        (SD1, {"layers": 2}, "layers"),
        (EDITOR, {"image": picture(), "layers": 2}, "layers"),
        (SPLITTER, {"image": picture(), "layers": 11}, "layers"),
        (SPLITTER, {"image": picture(), "output_format": "jpeg"}, "output_format"),
        (SPLITTER, {"image": picture(), "num_images": 5}, "num_images"),
        (SD1, {"image": picture(), "images": [picture()]}, "images"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_under_the_field_s_name(
    model: Capabilities, fields: dict[str, Any], field: str
) -> None:
    assert field in _names(refusal(model, **fields))


# Drawing on


def test_drawing_on_says_the_size_and_keeps_every_pixel() -> None:
    noise = _noise(100, 70)
    request = ask(SD1, image=sent(noise), outpaint={"left": 5, "right": 30, "top": 1})
    assert (request.width, request.height, request.cut) == (136, 72, (135, 71))
    source = request.init_image
    assert source is not None and source.mask is not None and request.warnings == ()
    kept = 5, 1, 105, 71
    assert ImageChops.difference(source.image.crop(kept), noise).getbbox() is None
    assert source.mask.crop(kept).getbbox() is None
    assert source.mask.getbbox() == (0, 0, 136, 72)


def test_whole_steps_need_no_cut() -> None:
    request = ask(SD1, image=picture(64, 64), outpaint={"bottom": 64})
    assert (request.width, request.height, request.cut) == (64, 128, None)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"outpaint": {}}, "1 pixel at least"),
        ({"outpaint": {"left": 0, "top": 0}}, "1 pixel at least"),
        ({"outpaint": {"left": -1}}, "greater than or equal to 0"),
        ({"outpaint": {"left": 8193}}, "less than or equal to 8192"),
        ({"outpaint": {"up": 8}}, "outpaint.up"),
        ({"outpaint": 64}, "should be an object"),
        ({"outpaint": {"left": 960}}, "1024x1025; it may have 1048576 pixels at most"),
        ({"outpaint": {"left": 64}, "width": 512}, "leave width and height out"),
        ({"outpaint": {"left": 64}, "aspect_ratio": "1:1"}, "leave width and height out"),
        ({"outpaint": {"left": 64}, "hires": {}}, "hires"),
        ({"outpaint": {"left": 64}, "image": None}, "needs an image"),
    ],
    ids=str,
)
def test_drawing_on_for_nothing_or_too_far_is_refused_by_name(fields: dict[str, Any], told: str) -> None:
    given = {"image": picture(64, 1025) if fields.get("outpaint") == {"left": 960} else picture(64, 64), **fields}
    answered = refusal(SD1, **given)
    assert "outpaint" in answered or "hires" in answered
    assert told in answered


def test_a_model_that_cannot_inpaint_draws_on_nothing() -> None:
    assert refusal(EDIT_ONLY, image=picture(), outpaint={"left": 8}).startswith("outpaint: got an object of 1; ")


PICTURES = st.sampled_from([picture(64, 64), picture(96, 64, "blue"), picture(64, 64, (1, 2, 3, 0), mode="RGBA")])
ANY = st.one_of(PICTURES, st.none(), st.text(max_size=5), st.integers(), st.lists(PICTURES, max_size=2))
SIDES = st.one_of(st.integers(-2, 300), st.sampled_from([0, 16, 9000, 10**9]), ANY)
FIELDS = {
    "outpaint": st.one_of(st.dictionaries(st.sampled_from(["left", "right", "top", "bottom", "x"]), SIDES), ANY),
    "controlnet": st.one_of(st.fixed_dictionaries({"image": PICTURES}, optional={"scale": st.floats(0, 2)}), ANY),
    "image": ANY,
    "images": st.one_of(st.lists(ANY, max_size=12), st.lists(PICTURES, max_size=4), ANY),
    "mask": st.one_of(st.sampled_from([picture(64, 64, "white"), picture(64, 64, "black")]), ANY),
    "strength": st.one_of(st.floats(0, 1), ANY),
    "width": st.sampled_from([64, 512, 10**9]),
    "hires": st.sampled_from([{}, {"scale": 2}]),
}


@examples(150)
@given(st.sampled_from([EDITOR, EDIT_ONLY, SD1, FILL, CONTROL]), st.fixed_dictionaries({}, optional=FIELDS))
def test_any_pictures_are_a_request_that_the_model_can_draw_or_refused_by_field(
    model: Capabilities, fields: dict[str, Any]
) -> None:
    try:
        request = parse({"input": {"prompt": "x", **fields}}, model)[0]
    except InvalidInputError as error:
        assert all(
            problem.partition(":")[0].partition(".")[0] in fields or "image" in problem for problem in error.problems
        )
        return
    assert request.task in model.tasks
    assert len(request.references) <= (model.editing.references if model.editing else 0)


# Guidance under two names


def test_where_there_is_one_guidance_both_names_mean_it() -> None:
    qwen = replace(SD1, family=replace(SD1.family, guidance="true_cfg_scale"))
    assert ask(qwen, true_cfg_scale=3, seed=1) == ask(qwen, guidance_scale=3, seed=1)
    assert ask(qwen, true_cfg_scale=3, guidance_scale=3).guidance_scale == 3
    assert "say" in refusal(qwen, true_cfg_scale=3, guidance_scale=4)
    assert refusal(SD1, true_cfg_scale=3).startswith("true_cfg_scale: got 3; ")
