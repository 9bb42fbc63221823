"""`true_cfg_scale` and `max_sequence_length` mean what diffusers means by them, pixel for pixel, in every task."""

from typing import Any

import pytest
import torch

from tests.helpers.drawing import assert_same, hole, picture, scene, uri
from tests.helpers.plain_diffusers import around
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.engine.prompts.warnings import list_prompt_warnings
from worker.errors import InvalidInputError

CALL: dict[str, Any] = {"prompt": "a red square", "num_inference_steps": 3, "guidance_scale": 3.0}
CALL |= {"width": 64, "height": 64}
FIELDS: dict[str, dict[str, Any]] = {
    "true_cfg_scale": {"true_cfg_scale": 3.0, "negative_prompt": "a blue dot"},
    "max_sequence_length": {"max_sequence_length": 5},
    "both": {"true_cfg_scale": 2.0, "negative_prompt": "a blue dot", "max_sequence_length": 7},
}
TASKS: dict[str, dict[str, Any]] = {"": {}, "Img2Img": {"image": scene(), "strength": 0.7}}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("fields", FIELDS)
def test_flux(fields: str, task: str, more_engines: dict[str, Engine], more_plain: dict[str, Any]) -> None:
    plain = around(more_plain["flux"], f"Flux{task}Pipeline", scheduler=more_plain["flux"].scheduler)
    call = {**CALL, **FIELDS[fields], **TASKS[task]}
    theirs = plain(**call, generator=torch.Generator().manual_seed(7)).images[0]
    job = {**call, **({"image": uri(scene())} if task else {})}

    ours = picture(more_engines["flux"], **job)

    assert_same(ours, theirs)
    for name in FIELDS[fields].keys() - {"negative_prompt"}:
        without = {key: value for key, value in job.items() if key not in (name, "negative_prompt")}
        without |= {} if name == "true_cfg_scale" else {key: job[key] for key in job if key == "negative_prompt"}
        assert picture(more_engines["flux"], **without).tobytes() != ours.tobytes()


def test_another_negative_prompt_is_another_picture(more_engines: dict[str, Engine]) -> None:
    """Though the prompt is encoded once for all of them."""
    job = {**CALL, "true_cfg_scale": 3.0}
    drawn = {picture(more_engines["flux"], **job, negative_prompt=text).tobytes() for text in ("a dot", "a star", "")}
    assert len(drawn) == 3


def test_sd3_reads_further_than_by_default(more_engines: dict[str, Engine], more_plain: dict[str, Any]) -> None:
    call = {**CALL, "prompt": "a " * 300, "max_sequence_length": 400}
    theirs = more_plain["sd3"](**call, generator=torch.Generator().manual_seed(7)).images[0]

    assert_same(picture(more_engines["sd3"], **call), theirs)
    assert picture(more_engines["sd3"], **{**call, "max_sequence_length": None}).tobytes() != theirs.tobytes()


def test_masks_keep_them(more_engines: dict[str, Engine]) -> None:
    job = {**CALL, "image": uri(scene()), "mask": uri(hole())}
    drawn = [picture(more_engines["flux"], **job, **FIELDS[name]).tobytes() for name in FIELDS]
    assert len({*drawn, picture(more_engines["flux"], **job).tobytes()}) == 4


@pytest.mark.parametrize(
    ("family", "fields", "told"),
    [
        ("flux", {"true_cfg_scale": 3}, "true_cfg_scale: got 3; needs a negative_prompt"),
        (
            "flux",
            {"negative_prompt": "x"},
            "negative_prompt: got 'x'; Flux takes no negative prompt without a true_cfg",
        ),
        ("flux", {"negative_prompt": "x", "true_cfg_scale": 1}, "negative_prompt: got 'x'; "),
        ("flux", {"max_sequence_length": 513}, "max_sequence_length: got 513; "),
        ("sd3", {"true_cfg_scale": 3, "negative_prompt": "x"}, "true_cfg_scale: got 3; "),
        ("sd3", {"max_sequence_length": 513}, "max_sequence_length: got 513; "),
        ("lcm", {"max_sequence_length": 77}, "max_sequence_length: got 77; "),
        ("lcm", {"true_cfg_scale": 2}, "true_cfg_scale: got 2; "),
    ],
    ids=str,
)
def test_where_they_have_no_use_they_are_refused_by_name(
    family: str, fields: dict[str, Any], told: str, more_engines: dict[str, Engine]
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        picture(more_engines[family], **fields)
    assert told.replace("Flux", more_engines[family].capabilities.family.title) in str(refused.value)


@pytest.mark.parametrize(("limit", "lost"), [(512, False), (20, True)])
def test_tokens_that_are_not_read_are_told(limit: int, lost: bool, more_engines: dict[str, Engine]) -> None:
    engine = more_engines["chroma"]
    request = parse({"input": {"prompt": "a " * 60, "max_sequence_length": limit}}, engine.capabilities)[0]
    assert any("beyond what" in note for note in list_prompt_warnings(engine, request)) == lost
