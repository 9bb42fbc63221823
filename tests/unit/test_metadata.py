"""A picture carries the parameters that made it, where AUTOMATIC1111 and Civitai look and as they read them."""

import io
import json
import re
from typing import Any

import pytest
from PIL import Image

from tests.helpers.asking import SDXL, ask, model_of
from worker.models.capabilities import Capabilities
from worker.output.encode import encode
from worker.output.metadata import format_metadata
from worker.plan import make_plan
from worker.request import Request

PROMPTS = [
    "a red square",
    "a square, red: 1.2, (blue:1.3), [a|b], <lora:x:1>",
    'she said "hello", and he: "Steps: 3, Seed: 4, Sampler: x"',
    "first line\nsecond line",
    "a\tb \\ c {d}",
    "Größe, café, naïve",  # Latin-1
    "ein Quadrat für 5 €",  # one letter beyond it
    "красный квадрат на белом",
    "赤い四角、白い背景",
    "مربع أحمر",
    "a 🟥 on ⬜, 👩‍🎨",
]


def read_infotext(text: str) -> dict[str, str]:
    """What the web UI makes of such a text: its rules, after `parse_generation_parameters`.

    The last line holds the settings if it has three of them. Of the other lines, those from "Negative prompt:" on are
    the negative prompt.
    """
    pair = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
    *lines, last = text.strip().split("\n")
    settings = pair.findall(last)
    if len(settings) < 3:
        lines, settings = [*lines, last], []
    prompts: dict[str, list[str]] = {"Prompt": [], "Negative prompt": []}
    reading = "Prompt"
    for line in (line.strip() for line in lines):
        if line.startswith("Negative prompt:"):
            reading, line = "Negative prompt", line.removeprefix("Negative prompt:").strip()
        prompts[reading].append(line)
    found = {name: "\n".join(lines) for name, lines in prompts.items()}
    return found | {name: json.loads(value) if value[:1] == '"' else value for name, value in settings}


def read_file(data: bytes) -> str:
    """The text where the web UI looks for it in a file of any kind."""
    image = Image.open(io.BytesIO(data))
    if image.format == "PNG":
        return str(image.info["parameters"])
    comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment[:8] == b"UNICODE\0"
    return bytes(comment[8:]).decode("utf-16-be")


def _image() -> Image.Image:
    return Image.linear_gradient("L").resize((64, 48)).convert("RGB")


def _written(extension: str, model: Capabilities = SDXL, **fields: Any) -> tuple[Request, dict[str, str]]:
    """A request, and what the web UI reads from the file of its first picture."""
    request = ask(model, **fields)
    file = encode(_image(), format_metadata(request.pictures[0], make_plan(request), model), extension, 90)
    return request, read_infotext(read_file(file.data))


@pytest.mark.parametrize("extension", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=ascii)
def test_the_web_ui_reads_back_what_was_asked(extension: str, prompt: str) -> None:
    fields = {"seed": 2**32 - 1, "num_inference_steps": 30, "guidance_scale": 6.5, "scheduler": "DPM++ 2M Karras"}
    _, found = _written(extension, prompt=prompt, negative_prompt=f"no {prompt}", width=832, height=1216, **fields)
    assert found.pop("Recipe")
    assert found == {
        "Prompt": "\n".join(line.strip() for line in prompt.split("\n")),
        "Negative prompt": f"no {prompt}",
        "Steps": "30",
        "Sampler": "DPM++ 2M Karras",
        "CFG scale": "6.5",
        "Seed": "4294967295",
        "Size": "832x1216",
        "Model": "sdxl",
    }


def test_without_a_negative_prompt_there_is_no_such_line() -> None:
    for fields in ({}, {"negative_prompt": ""}, {"negative_prompt": None}):
        request = ask(**fields)
        assert "Negative" not in format_metadata(request.pictures[0], make_plan(request), SDXL)


def test_each_picture_of_a_job_names_its_own_prompt_and_seed() -> None:
    request = ask(prompt=["a", "b"], num_images=2, seed=7)
    found = [read_infotext(format_metadata(picture, make_plan(request), SDXL)) for picture in request.pictures]
    assert [(one["Prompt"], one["Seed"]) for one in found] == [("a", "7"), ("a", "8"), ("b", "9"), ("b", "10")]


@pytest.mark.parametrize("name", ["org/model", "model, v2", "v1:5", 'a "b"', "модель"])
def test_any_models_name_leaves_the_other_settings_readable(name: str) -> None:
    _, found = _written("png", model_of("sdxl", name=name), seed=3)
    assert found["Seed"] == "3" and found["Size"] == "1024x1024"
    assert found["Model"].split() == name.replace(",", " ").split()


def test_a_model_without_guidance_claims_none() -> None:
    assert "CFG scale" not in _written("png", model_of("flux-schnell"), guidance_scale=7.5)[1]


@pytest.mark.parametrize("extension", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("letter", ["x", "я", "🟥"])
def test_the_longest_prompts_fit_into_every_format(extension: str, letter: str) -> None:
    """A JPEG has room for 64 KB of EXIF; a request that was accepted and drawn must still become a file."""
    request, found = _written(extension, prompt=letter * 5_000, negative_prompt=letter * 5_000)
    assert found["Seed"] == str(request.pictures[0].seed)
    assert found["Prompt"].startswith(letter * 5_000)


@pytest.mark.parametrize("mode_and_noise", [("RGB", 0), ("RGB", 1)], ids=["smooth", "noise"])
def test_png_keeps_every_pixel(mode_and_noise: tuple[str, int]) -> None:
    noisy = Image.merge("RGB", [Image.effect_noise((64, 48), 100) for _ in range(3)])
    image = noisy if mode_and_noise[1] else _image()
    back = Image.open(io.BytesIO(encode(image, "text", "png", 90).data))
    assert (back.format, back.mode, back.tobytes()) == ("PNG", "RGB", image.tobytes())


@pytest.mark.parametrize(
    ("extension", "mime_type"), [("png", "image/png"), ("jpeg", "image/jpeg"), ("webp", "image/webp")]
)
def test_a_file_is_what_its_type_says(extension: str, mime_type: str) -> None:
    file = encode(_image(), "text", extension, 90)
    opened = Image.open(io.BytesIO(file.data))
    assert file.mime_type == mime_type == opened.get_format_mimetype()
    assert opened.size == (64, 48) and file.extension == extension


@pytest.mark.parametrize("extension", ["jpeg", "webp"])
def test_quality_trades_bytes_for_looks(extension: str) -> None:
    noise = Image.merge("RGB", [Image.effect_noise((64, 48), 100) for _ in range(3)])
    sizes = [len(encode(noise, "text", extension, quality).data) for quality in (1, 50, 100)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] / 2


def test_jpeg_has_white_where_a_picture_is_transparent() -> None:
    picture = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (0, 0, 8, 16))

    read = Image.open(io.BytesIO(encode(picture, "", "jpeg", 100).data))

    assert read.mode == "RGB"
    assert min(read.getpixel((15, 8))) > 240
    assert read.getpixel((0, 8))[2] > 240 > 20 > read.getpixel((0, 8))[0]
