"""A refusal names the field that the caller wrote, in the caller's spelling, and says of it what is true."""

from typing import Any

import pytest
from PIL import Image

from tests.helpers.asking import SD1, ask, model_of, picture, refusal, sent
from worker.models.capabilities import Capabilities

FLUX = model_of("flux-dev")


@pytest.mark.parametrize(
    ("fields", "model", "said"),
    [
        ({"init_image": "zz!"}, SD1, "init_image: got 'zz!'; "),
        ({"init_images": ["zz!"]}, SD1, "init_images: got 'zz!'; "),
        ({"image": picture(), "mask_url": "zz!"}, SD1, "mask_url: got 'zz!'; "),
        ({"image": picture(), "denoising_strength": 0.001}, SD1, "denoising_strength: got 0.001; "),
        ({"enable_hr": True, "denoising_strength": 0.001}, SD1, "denoising_strength: got 0.001; "),
        ({"hires": {"scale": 1.2, "strength": 0.001}}, SD1, "hires.strength: got 0.001; "),
        ({"override_settings": {"CLIP_stop_at_last_layers": 2}}, FLUX, "override_settings: got an object of 1; "),
        ({"clip_skip": 1, "override_settings": {}}, FLUX, "clip_skip: got 1; "),
    ],
)
def test_the_field_is_the_callers(fields: dict[str, Any], model: Capabilities, said: str) -> None:
    assert refusal(model, width=512, height=512, **fields).startswith(said)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://example.com/a.png", "s3://bucket/a.png"])
def test_an_address_of_another_scheme_is_a_url(address: str) -> None:
    assert refusal(image=address).endswith("; a URL starts with http:// or https://")


def test_a_mask_is_called_what_it_is() -> None:
    dot = Image.new("L", (512, 512))
    dot.putpixel((5, 5), 255)
    for fields, said in (
        ({"mask": picture(colour="black")}, "mask: it is black; white is what is drawn anew"),
        ({"mask": picture(colour="white"), "inpainting_mask_invert": 1}, "mask: it is white; black is what"),
        ({"mask": sent(dot), "mask_blur": 64}, "mask_blur: got 64; nothing of what is to be drawn anew is left"),
    ):
        assert refusal(image=picture(), **fields).startswith(said)


def test_an_s3_config_that_is_no_object_is_named_itself() -> None:
    assert "s3Config: should be an object" in refusal(s3=[])


@pytest.mark.parametrize("sides", [(4096, 256), (256, 4096)])
def test_a_side_beside_a_picture_is_judged_with_the_pictures_aspect(sides: tuple[int, int]) -> None:
    width, height = sides
    given = {"width": width} if width > height else {"height": height}
    for fields in ({"image": picture(*sides)}, {"controlnet": {"image": picture(*sides)}}):
        request = ask(model_of("sd1", controlnets=("edges",)), **given, **fields)
        assert (request.width, request.height) == sides
