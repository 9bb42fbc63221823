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


FULL = model_of("sd1", loras=("style",), controlnets=("edges",), ip_adapter=True)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": 3}, "prompt: got 3; should be a string or a list of strings"),
        ({"prompt": {"text": "a"}}, "prompt: got an object of 1; should be a string or a list of strings"),
        ({"prompt": ["a", ["b"]]}, "prompt.1: got a list of 1; should be a string"),
        ({"prompt": []}, "prompt: got a list of 0; should not be empty"),
        ({"prompt": "a\0b"}, "prompt: got 'a\\x00b'; should hold no NUL character"),
        ({"seed": "abc"}, "seed: got 'abc'; should be an integer or a list of integers"),
        ({"seed": [1, "a"]}, "seed.1: got 'a'; should be an integer"),
        ({"loras": [{"scale": 0.5}]}, "loras.0.name: required, but missing"),
        ({"loras": [{"name": "style", "weight": 1}]}, "loras.0.weight: got 1; unknown field; known there: name, scale"),
        ({"ip_adapter": {"scale": 1}}, "ip_adapter.image: required, but missing"),
        ({"controlnet": {"image": picture(), "weight": 1}}, "controlnet.0.weight: got 1; unknown field; known there: "),
        ({"controlnet": "edges"}, "controlnet: got 'edges'; should be an object with a name and an image, or a list "),
        ({"loras": [["style"]]}, "loras.0: got a list of 1; should be a name, or an object with a name and a scale"),
        ({"controlnet": ["edges"]}, "controlnet.0: got 'edges'; should be an object with a name and an image"),
        ({"loras": [{"a\nb: c": 1, "name": "style"}]}, "loras.0: got 1; unknown field; known there: name, scale"),
        (
            {"override_settings": {"clip_stop_at_last_layer": 1}},
            "override_settings.clip_stop_at_last_layer: got 1; unk",
        ),
        ({"output_compression": "x"}, "output_compression: got 'x'; should be an integer"),
        ({"hires": True}, "hires: got True; should be an object"),
        ({"image": ""}, "image: got ''; should not be empty"),
        ({"quality": "high"}, "quality: got 'high'; should be an integer, of jpeg and webp; `num_inference_steps` "),
        ({"input": {"prompt": "a"}}, "input: got an object of 1; write the fields in it into `input` itself"),
        ({"webhook": "https://example.com"}, "webhook: got 'https://example.com'; write it beside `input`, "),
    ],
    ids=ascii,
)
def test_it_says_where_it_is_and_what_is_allowed_there(fields: dict[str, Any], said: str) -> None:
    (told,) = refusal(FULL, **fields).split("; prompt: required")[:1]
    assert told.startswith(said) and told.count(": got ") <= 1


@pytest.mark.parametrize("fields", [{"loras": []}, {"controlnet": []}, {"images": []}, {"scheduler": "Automatic"}])
def test_what_asks_for_nothing_is_as_good_as_left_out(fields: dict[str, Any]) -> None:
    asked, plain = ask(FULL, **fields, seed=1), ask(FULL, seed=1)
    assert asked == plain


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"denoising_strength": 0.7}, "denoising_strength"),
        ({"prompt_strength": 0.8}, "prompt_strength"),
        ({"guidance_scale": None, "cfg_scale": 3}, "guidance_scale"),
        ({"width": None, "size": "256x256"}, "width"),
        ({"hires": None, "enable_hr": True}, "hires"),
        ({"input_fidelity": "high", "image": picture()}, "input_fidelity"),
    ],
)
def test_a_warning_is_told_under_the_name_that_came(fields: dict[str, Any], named: str) -> None:
    assert {warning.partition(":")[0] for warning in ask(FULL, **fields).warnings} == {named}


def test_a_warning_of_a_side_says_which() -> None:
    told = ask(FULL, size="513x257").warnings
    assert [warning.partition(":")[0] for warning in told] == ["width", "height"]


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
