"""Jobs that are in hand together: what one of them looks at is seen in its own picture alone."""

from typing import Any

import pytest

from tests.helpers import tiny_editors, tiny_models
from tests.helpers.drawing import SMALL, hole, load_engine, scene, uri
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.plan import Plan, make_plan

JOB = {"num_inference_steps": 2, "image": uri(scene()), "mask": uri(hole())}
LOOKING = {**JOB, "images": [uri(scene(seed=3))], "prompt": "another", "seed": 8}
EDITING = {"num_inference_steps": 2, "image": uri(scene()), "prompt": "another", "seed": 8}
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a mask, and a mask with a picture": (JOB, LOOKING),
    "a mask with a picture, and a mask": (LOOKING, JOB),
    "two with pictures": (LOOKING, {**JOB, "images": [uri(scene(seed=4))]}),
    "two edits": (EDITING, {**EDITING, "image": uri(scene(seed=4))}),
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tiny_models.save(tiny_editors.klein(), tmp_path_factory.mktemp("klein"))
    return load_engine(MODEL_NAME=str(folder), MAX_BATCH="2")


def _plan(engine: Engine, fields: dict[str, Any]) -> Plan:
    return make_plan(parse({"input": {**SMALL, "guidance_scale": 0, **fields}}, engine.capabilities)[0])


@pytest.mark.parametrize("pair", PAIRS)
def test_they_are_not_drawn_together(pair: str, engine: Engine) -> None:
    first, second = (_plan(engine, fields) for fields in PAIRS[pair])

    assert first.batch_key != second.batch_key


def test_masks_alone_still_are(engine: Engine) -> None:
    assert _plan(engine, JOB).batch_key == _plan(engine, {**JOB, "seed": 9}).batch_key
