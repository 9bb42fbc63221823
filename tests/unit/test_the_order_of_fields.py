"""The order of the fields in the table means nothing: shuffled, every job is the same request or the same refusal."""

import ast
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.helpers.asking import SD1, SDXL, ask_all, model_of, picture
from worker.api import parse, schema, validation_errors
from worker.errors import InvalidInputError
from worker.models.capabilities import TEXT

ABLE: dict[str, Any] = {"loras": ("style", "people/anna"), "controlnets": ("canny",), "ip_adapter": True}
GIFTED = model_of("sd1", **ABLE)
SMALL = model_of("sd1", **ABLE, max_images=2, max_steps=20, max_pixels=300 * 300)
REFINED = model_of("sdxl", **ABLE, refiner=True)
BARE = model_of("sd1", tasks={TEXT: {}}, latent_upscaling=False, clip_layers=0, previews=False)
MODELS = [SD1, SDXL, GIFTED, SMALL, REFINED, BARE, model_of("flux-schnell")]

CANNY = {"name": "canny", "image": picture(64, 64)}
JOBS: list[dict[str, Any]] = [
    {},
    {"prompt": ["a", "b"], "num_images": 2, "seed": [1, 2, 3, 4]},
    {"width": 64, "height": 128, "steps": 5, "scheduler": "Euler", "guidance_scale": 3, "output_format": "jpeg"},
    {"image": picture(96, 64), "mask": picture(96, 64, "white"), "strength": 0.5, "controlnet": CANNY},
    {"ip_adapter": {"image": picture(64, 64)}, "loras": ["style", {"name": "people/anna", "scale": 0.5}]},
    {"hires": {"scale": 1.5}, "clip_skip": 1, "guidance_rescale": 0.5, "width": 128, "height": 128},
    {"refiner": {"high_noise_frac": 0.6, "steps": 10}, "preview": True},
    {"high_noise_frac": 0.6, "refiner_inference_steps": 10, "lora_scale": 2, "nsfw": True, "negative_prompt": "x"},
    {"size": "128*192", "n_iter": 2, "enable_hr": True, "hr_scale": 1.2, "denoising_strength": 0.6, "tiling": False},
    {"aspect_ratio": "3:2", "megapixels": "0.05", "refine": "no_refiner", "guidance": "3.5", "image_format": "jpg"},
    # refused: by the table, by rules of one field, by rules of several, by several of these at once
    {"prompt": None, "num_images": 99, "seed": [1, 2]},
    {"prompt": [1, 2, "c"], "seed": [5], "width": "wide", "height": 8192},
    {"promt": "x", "width": -1, "zebra": 1, "quality": 101, "num_outputs": 2, "num_images": 3},
    {"prompt": ["a"] * 17, "seed": [1], "steps": 900, "scheduler": "wizard"},
    {"width": 8192, "height": 8192, "hires": {"scale": 4, "steps": 501}},
    {"hires": {"scale": 1.5}, "image": picture(64, 64), "controlnet": [CANNY, CANNY], "width": 8192},
    {"image": 5, "mask": picture(64, 64), "controlnet": {**CANNY, "name": "pose", "start": 0.9, "end": 0.1}},
    {"mask": picture(64, 64), "guidance_rescale": 0.5, "ip_adapter": {"image": picture(64, 64)}, "controlnet": CANNY},
    {"refiner": {"high_noise_frac": 0.6, "strength": 0.5}, "high_noise_frac": 2, "refiner_inference_steps": 900},
    {"refiner": {"steps": 900}, "high_noise_frac": 0.5, "loras": ["nobody"], "lora": "style", "clip_skip": 50},
    {"size": "64x9000", "width": 64, "enable_hr": True, "hr_scale": 9, "hires": {}, "tiling": True, "n_iter": 99},
    {"delivery": "s3", "safety_checker": True, "preview": 1, "hires": {"factor": 2}, "strength": 2},
    {f"field{i}": i for i in range(150)} | {"width": "wide", "prompt": list(range(150))},
]


def _shuffle_table(seed: int) -> ModuleType:
    """The schema's module, but for the order in which its table lists the fields."""
    tree = ast.parse(Path(schema.__file__).read_text())
    (table,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Fields")
    places = [place for place, node in enumerate(table.body) if isinstance(node, ast.AnnAssign)]
    fields = [table.body[place] for place in places]
    random.Random(seed).shuffle(fields)
    for place, field in zip(places, fields, strict=True):
        table.body[place] = field
    module = ModuleType(schema.__name__)
    exec(compile(tree, schema.__file__, "exec"), module.__dict__)
    return module


def _ask_everything() -> list[object]:
    """What comes of each job with each model."""
    told: list[object] = []
    for job in JOBS:
        for model in MODELS:
            try:
                told.append(ask_all(model, **{"seed": 1, **job}))
            except InvalidInputError as error:
                told.append(str(error))
    return told


@pytest.fixture(scope="module")
def as_written() -> list[object]:
    """What comes of the jobs with the table as it is."""
    told = _ask_everything()
    refused = sum(isinstance(one, str) for one in told)
    assert 30 < refused < len(told) - 30
    return told


@pytest.mark.parametrize("seed", range(5))
def test_a_shuffled_table_means_the_same(seed: int, as_written: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    shuffled = _shuffle_table(seed)
    assert set(shuffled.Fields.model_fields) == set(schema.Fields.model_fields)
    assert list(shuffled.Fields.model_fields) != list(schema.Fields.model_fields)
    monkeypatch.setattr(parse, "Fields", shuffled.Fields)
    for module in (parse, validation_errors):
        monkeypatch.setattr(module, "_CANONICAL", shuffled.spellings())
    assert _ask_everything() == as_written
