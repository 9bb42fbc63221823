"""One tiny model of each family, saved once and loaded once; the tests share them."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LMSDiscreteScheduler,
)

from tests.helpers import tiny_addons, tiny_controlnets, tiny_editors, tiny_models, tiny_transformers
from tests.helpers.drawing import load_engine
from tests.helpers.faults import a_worker_each
from tests.helpers.plain_diffusers import load_plain
from worker.engine.engine import Engine
from worker.runtime.worker import Worker

# Threads that wait for each other cost more than these tiny networks: a hundred times as much on a busy machine.
torch.set_num_threads(1)


_SLOW = LMSDiscreteScheduler, HeunDiscreteScheduler, KDPM2DiscreteScheduler, KDPM2AncestralDiscreteScheduler


@pytest.fixture(scope="session", autouse=True)
def quick_construction() -> Iterator[None]:
    """Spare these schedulers what takes half a second when they are made: a schedule that nothing is drawn with."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in _SLOW:
            patch.setattr(kind, "set_timesteps", _shorten_first(kind.set_timesteps))
        yield


def _shorten_first(settle: Any) -> Any:
    @functools.wraps(settle)
    def shortened(scheduler: Any, steps: int, *rest: Any, **named: Any) -> None:
        is_first = not hasattr(scheduler, "_begin_index")
        settle(scheduler, 2 if is_first else steps, *rest, **named)

    return shortened


@pytest.fixture(scope="module")
def small_references() -> Iterator[None]:
    """Have pictures that are looked at shrunk, for as long as the file's models live."""
    with tiny_editors.small_references():
        yield


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family -> folder of its tiny model."""
    return tiny_models.save_all(tiny_models.UNETS, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def engines(folders: dict[str, Path]) -> dict[str, Engine]:
    """Family -> its tiny model, loaded by the worker."""
    return {family: load_engine(MODEL_NAME=str(folder)) for family, folder in folders.items()}


@pytest.fixture(scope="module")
def workers(folders: dict[str, Path]) -> Iterator[dict[str, Worker]]:
    """A worker with each model of `folders`, which a file may have of its own."""
    with a_worker_each(folders) as made:
        yield made


@pytest.fixture(scope="session")
def plain(folders: dict[str, Path]) -> dict[str, DiffusionPipeline]:
    """Family -> the same model in diffusers' own pipeline, and nothing of the worker's."""
    return {family: load_plain(folder) for family, folder in folders.items()}


@pytest.fixture(scope="session")
def more_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same of families beyond the UNets with CLIP."""
    makers = {name: getattr(tiny_transformers, name) for name in ("sd3", "flux", "chroma", "lcm")}
    return tiny_models.save_all(makers, tmp_path_factory.mktemp("more"))


@pytest.fixture(scope="session")
def more_engines(more_folders: dict[str, Path]) -> dict[str, Engine]:
    """Those, loaded by the worker."""
    return {family: load_engine(MODEL_NAME=str(folder)) for family, folder in more_folders.items()}


@pytest.fixture(scope="session")
def more_plain(more_folders: dict[str, Path]) -> dict[str, DiffusionPipeline]:
    """Those in diffusers' own pipelines."""
    return {family: load_plain(folder) for family, folder in more_folders.items()}


@pytest.fixture(scope="session")
def sd1(engines: dict[str, Engine]) -> Engine:
    """Stable Diffusion 1, for tests that any family would do for."""
    return engines["sd1"]


@pytest.fixture(scope="session")
def kits(tmp_path_factory: pytest.TempPathFactory) -> tiny_addons.Kits:
    """For the tests of LoRAs, ControlNets, IP-Adapters and words."""
    return tiny_addons.Kits(tmp_path_factory.mktemp("kits"))


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> tiny_controlnets.Places:
    """For the tests of ControlNets that take more than a picture."""
    return tiny_controlnets.Places(tmp_path_factory.mktemp("nets"))


def pytest_configure(config: pytest.Config) -> None:
    """Keep quiet about what every diffusers scheduler does with tensors and NumPy 2."""
    config.addinivalue_line("filterwarnings", "ignore:__array:DeprecationWarning")
