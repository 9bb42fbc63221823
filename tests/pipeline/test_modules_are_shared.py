"""Every task of an engine works on the same modules: none is copied, cast, left changed or kept beyond its job."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.drawing import draw, hole, load_engine, picture, scene, uri
from worker.engine.engine import Engine
from worker.engine.pipelines import modules

PICTURE, MASK = uri(scene(96, 64)), uri(hole(96, 64))
JOBS: dict[str, dict[str, Any]] = {
    "text": {},
    "image": {"image": PICTURE, "strength": 0.5},
    "mask": {"image": PICTURE, "mask": MASK, "strength": 0.5, "width": None, "height": None},
    "hires": {"hires": {"scale": 1.5, "strength": 0.5}},
    "latent hires": {"hires": {"scale": 1.5, "strength": 0.5, "upscaler": "latent"}},
    "weights": {"prompt": "a (red:1.3) square " * 8, "clip_skip": 1},
    "preview": {"preview": True},
    "other scheduler": {"scheduler": "Euler a", "width": 96},
}
OF_UNETS = {"latent hires", "weights", "other scheduler"}


def jobs(engine: Engine) -> list[dict[str, Any]]:
    """Each of the jobs that this model can do."""
    return [fields for name, fields in JOBS.items() if engine.capabilities.weighted_prompts or name not in OF_UNETS]


def weights(engine: Engine) -> dict[str, Any]:
    """Every weight and buffer: where it lies, its number format and what it is."""
    return {
        f"{name}.{key}": (tensor.data_ptr(), tensor.dtype, tensor.device, tensor.double().sum().item())
        for name, module in modules(engine.pipeline).items()
        for key, tensor in module.state_dict(keep_vars=True).items()
    }


@pytest.fixture(scope="module")
def both(engines: dict[str, Engine], more_engines: dict[str, Engine]) -> dict[str, Engine]:
    return engines | more_engines


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "flux"])
def test_every_pipeline_holds_the_modules_of_the_first(family: str, both: dict[str, Engine]) -> None:
    engine = both[family]
    parts, before, first = modules(engine.pipeline), weights(engine), picture(engine).tobytes()

    for fields in jobs(engine):
        draw(engine, **fields)
        assert picture(engine).tobytes() == first, f"after {fields}"

    assert len(engine.pipelines) >= 2
    for pipeline in engine.pipelines.values():
        found = modules(pipeline)
        assert found and all(found[name] is parts[name] for name in found)
        assert found.keys() >= parts.keys() - {"safety_checker", "image_encoder"}
    assert weights(engine) == before


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "flux"])
def test_half_precision_stays_half(family: str, folders: dict[str, Path], more_folders: dict[str, Path]) -> None:
    engine = load_engine(MODEL_NAME=str((folders | more_folders)[family]), DTYPE="bfloat16")
    assert formats(engine) == {torch.bfloat16}

    for fields in jobs(engine):
        draw(engine, num_inference_steps=2, **fields)
        assert formats(engine) == {torch.bfloat16}, f"after {fields}"


def formats(engine: Engine) -> set[torch.dtype]:
    tensors = (tensor for part in modules(engine.pipeline).values() for tensor in part.parameters())
    return {tensor.dtype for tensor in tensors}


def alive() -> tuple[int, int]:
    """How many tensors there are, and how many numbers they hold."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    return len(tensors), sum(one.numel() for one in tensors)


def test_fifty_jobs_leave_nothing_behind(engines: dict[str, Engine]) -> None:
    engine = engines["sd1"]
    kinds = jobs(engine)

    def work(times: int) -> None:
        for i in range(times * len(kinds)):
            kind = kinds[i % len(kinds)]
            size = {} if "width" in kind else {"width": 64 + 16 * (i % 3)}
            draw(engine, **{"num_inference_steps": 2, **kind, **size, "seed": i})

    work(1)
    before = alive()
    work(7)  # as many jobs, and the same at last: each pipeline keeps the scheduler of its last job
    assert alive() == before
    assert len(engine.pipelines) <= 4
