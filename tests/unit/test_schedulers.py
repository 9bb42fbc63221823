"""Every scheduler name that clients of other workers write means the diffusers class they expect, and only that."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.asking import ask, model_of, refusal
from worker.models.schedulers import SCHEDULERS, describe_own, find_scheduler

# Names that callers write -> the diffusers class, from the request table and the other workers' own sources.
EXPECTED = {
    "LMS": "LMSDiscreteScheduler",
    "KLMS": "LMSDiscreteScheduler",
    "K-LMS": "LMSDiscreteScheduler",
    "K_LMS": "LMSDiscreteScheduler",
    "EULER": "EulerDiscreteScheduler",
    "K_EULER": "EulerDiscreteScheduler",
    "EULER-D": "EulerDiscreteScheduler",
    "EULER_A": "EulerAncestralDiscreteScheduler",
    "EULER-A": "EulerAncestralDiscreteScheduler",
    "K_EULER_ANCESTRAL": "EulerAncestralDiscreteScheduler",
    "DPM++ 2M Karras": "DPMSolverMultistepScheduler",
    "DPMSolverMultistep": "DPMSolverMultistepScheduler",
    "DPM-M": "DPMSolverMultistepScheduler",
    "DPM-S": "DPMSolverSinglestepScheduler",
    "DDIM": "DDIMScheduler",
    "DDPM": "DDPMScheduler",
    "PNDM": "PNDMScheduler",
    "HEUN": "HeunDiscreteScheduler",
    "IPNDM": "IPNDMScheduler",
    "KDPM2-A": "KDPM2AncestralDiscreteScheduler",
    "KDPM2-D": "KDPM2DiscreteScheduler",
}


@pytest.mark.parametrize(("name", "class_name"), EXPECTED.items())
def test_every_published_name_means_its_class(name: str, class_name: str) -> None:
    assert ask(scheduler=name).scheduler.class_name == class_name


@pytest.mark.parametrize("name", EXPECTED)
def test_case_spaces_hyphens_and_underscores_do_not_count(name: str) -> None:
    for spelling in (name.lower(), name.upper(), name.replace("-", "_"), name.replace("_", " "), f" {name} "):
        assert find_scheduler(spelling) == find_scheduler(name)


def test_the_karras_name_turns_karras_sigmas_on() -> None:
    assert ask(scheduler="DPM++ 2M Karras").scheduler.options["use_karras_sigmas"] is True
    assert ask(scheduler="DPM++ 2M").scheduler.options["use_karras_sigmas"] is False


@pytest.mark.parametrize("row", SCHEDULERS, ids=lambda row: row.name)
def test_every_row_goes_by_its_own_name_its_aliases_and_its_class(row) -> None:
    assert all(find_scheduler(name) is row for name in (row.name, *row.aliases))
    by_class = find_scheduler(row.class_name)
    assert by_class is not None and by_class.class_name == row.class_name
    assert find_scheduler(row.class_name.removesuffix("Scheduler")) is by_class


def test_no_spelling_means_two_rows() -> None:
    def plain(name: str) -> str:
        return "".join(letter for letter in name.lower() if letter.isalnum() or letter == "+")

    meant: dict[str, str] = {}
    for row in SCHEDULERS:
        for spelling in {plain(name) for name in (row.name, *row.aliases)}:
            assert spelling not in meant, f"{spelling} means {meant[spelling]} and {row.name}"
            meant[spelling] = row.name


def test_every_class_exists_in_diffusers() -> None:
    """Read from the source of diffusers, because importing it takes seconds."""
    package = find_spec("diffusers")
    assert package is not None and package.origin is not None
    folder = Path(package.origin).parent / "schedulers"
    trees = [ast.parse(path.read_text()) for path in folder.glob("scheduling_*.py")]
    classes = {node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}
    assert {row.class_name for row in SCHEDULERS} <= classes


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    told = refusal(scheduler="Ancestral Wizard")
    assert told.startswith("scheduler: got 'Ancestral Wizard'; ")
    assert all(name in told for name in ("LMS", "Euler a", "DPM++ 2M Karras", "DDIM"))


def test_ipndm_is_refused_where_it_cannot_work_and_warned_of_where_it_can() -> None:
    told = refusal(model_of("sd2", prediction_type="v_prediction"), scheduler="IPNDM")
    assert told.startswith("scheduler: got 'IPNDM'; ")
    assert "IPNDM" not in told.removeprefix("scheduler: got 'IPNDM'; ")
    assert any("IPNDM" in warning for warning in ask(model_of("sd2"), scheduler="IPNDM").warnings)


@pytest.mark.parametrize("family", ["sd3", "flux-schnell", "flux-dev"])
@pytest.mark.parametrize("name", ["Euler", "LMS", "DDIM", "DPM++ 2M Karras", "IPNDM"])
def test_a_flow_model_refuses_diffusion_schedulers(family: str, name: str) -> None:
    told = refusal(model_of(family), scheduler=name)
    assert told.startswith(f"scheduler: got '{name}'; ") and "Flow Euler" in told


@pytest.mark.parametrize("family", ["shapes", "sd1", "sd2", "sdxl"])
def test_a_diffusion_model_refuses_flow_schedulers(family: str) -> None:
    for name in ("Flow Euler", "FlowMatchEulerDiscreteScheduler", "Flow Euler Karras"):
        told = refusal(model_of(family), scheduler=name)
        assert told.startswith(f"scheduler: got '{name}'; ") and "Flow" not in told.partition(";")[2]


@pytest.mark.parametrize("family", ["sd3", "flux-schnell", "flux-dev"])
def test_a_flow_model_takes_flow_schedulers(family: str) -> None:
    request = ask(model_of(family), scheduler="FlowMatchEulerDiscreteScheduler")
    assert request.scheduler.class_name == "FlowMatchEulerDiscreteScheduler"


def test_a_model_always_takes_its_own_scheduler_by_class_name() -> None:
    strange = describe_own("EDMEulerScheduler", "diffusion")
    model = model_of("sdxl", scheduler=strange)
    assert ask(model).scheduler.class_name == "EDMEulerScheduler"
    assert ask(model, scheduler="EDMEulerScheduler").scheduler.class_name == "EDMEulerScheduler"


def test_stable_diffusion_1_draws_with_lms_unless_told_otherwise() -> None:
    assert ask().scheduler.class_name == "LMSDiscreteScheduler"
