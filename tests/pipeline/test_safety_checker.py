"""The safety checker runs where the model ships one, unless the owner turns it off; a job cannot change that."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import worker.runtime.worker
from tests.helpers import tiny_models
from tests.helpers.drawing import draw, load_engine
from worker.engine.engine import Engine
from worker.errors import InvalidInputError, ModelError


def checked(folder: Path, threshold: float) -> Path:
    """A tiny SD1 whose checker sounds the alarm for every picture (threshold -10) or for none (10).

    The checker compares cosines, which lie between -1 and 1, with its thresholds.
    """
    pipeline = tiny_models.sd1(safety_checker=True)
    torch.nn.init.constant_(pipeline.safety_checker.concept_embeds_weights, threshold)
    torch.nn.init.constant_(pipeline.safety_checker.special_care_embeds_weights, 10.0)
    return tiny_models.save(pipeline, folder)


@pytest.fixture(scope="module")
def prudish(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checked(tmp_path_factory.mktemp("prudish") / "model", threshold=-10.0)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return load_engine(MODEL_NAME=str(checked(tmp_path_factory.mktemp("calm") / "model", threshold=10.0)))


@pytest.fixture
def worker_with_checker(prudish: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[worker.runtime.worker.Worker]:
    monkeypatch.setenv("MODEL_NAME", str(prudish))
    yield worker.runtime.worker.Worker()


def test_on_where_the_model_ships_one(prudish: Path) -> None:
    engine = load_engine(MODEL_NAME=str(prudish))
    assert engine.capabilities.safety_checker
    for drawn in draw(engine, num_images=2):
        assert drawn.nsfw
        assert drawn.image.getbbox() is None, "a flagged picture is black"


def test_a_calm_checker_leaves_the_picture_as_it_is(calm: Engine, sd1: Engine) -> None:
    (with_checker,), (without,) = draw(calm), draw(sd1)
    assert not with_checker.nsfw
    assert with_checker.image == without.image


def test_off_when_the_owner_says_so(prudish: Path, sd1: Engine) -> None:
    engine = load_engine(MODEL_NAME=str(prudish), SAFETY_CHECKER="off")
    assert not engine.capabilities.safety_checker
    (drawn,) = draw(engine)
    assert not drawn.nsfw
    assert drawn.image == draw(sd1)[0].image


def test_a_model_without_one_loads_either_way(folders: dict[str, Path]) -> None:
    for setting in ("on", "off"):
        assert not load_engine(MODEL_NAME=str(folders["sdxl"]), SAFETY_CHECKER=setting).capabilities.safety_checker


def test_flags_reach_the_answer_one_for_each_picture(worker_with_checker: worker.runtime.worker.Worker) -> None:
    job = {"id": "a-job", "input": {"prompt": "x", "num_inference_steps": 2, "num_images": 3}}
    answer = worker_with_checker.handle(job)
    assert answer.get("nsfw") == [True, True, True], answer


def test_a_job_may_insist_on_it(calm: Engine, sd1: Engine) -> None:
    assert draw(calm, safety_checker=True)
    with pytest.raises(InvalidInputError, match=r"safety_checker: got True.*not part of this model"):
        draw(sd1, safety_checker=True)


def test_a_job_may_not_turn_it_off(calm: Engine, sd1: Engine) -> None:
    assert draw(sd1, safety_checker=False)
    with pytest.raises(InvalidInputError, match=r"safety_checker: got False.*is on"):
        draw(calm, safety_checker=False)


def test_nsfw_true_has_no_effect_but_a_warning(prudish: Path) -> None:
    (drawn,) = draw(load_engine(MODEL_NAME=str(prudish)), nsfw=True)
    assert drawn.nsfw


def test_one_that_is_not_there_is_missed_only_where_it_is_wanted(prudish: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(prudish, tmp_path / "model")
    weights = folder / "safety_checker" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))

    assert not load_engine(MODEL_NAME=str(folder), SAFETY_CHECKER="off").capabilities.safety_checker
    with pytest.raises(ModelError, match=r"safety_checker holds no .safetensors weights.*SAFETY_CHECKER=off"):
        load_engine(MODEL_NAME=str(folder))
    shutil.rmtree(weights.parent)
    with pytest.raises(ModelError, match=r"safety_checker.*SAFETY_CHECKER=off loads without it"):
        load_engine(MODEL_NAME=str(folder))
