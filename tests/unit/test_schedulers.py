"""Every scheduler name that clients of other workers write means the diffusers class they expect, and only that."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers.asking import ask, model_of, picture, refusal
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
    strange = describe_own("EDMEulerScheduler", "diffusion", {})
    model = model_of("sdxl", scheduler=strange, own_scheduler=strange)
    assert ask(model).scheduler.class_name == "EDMEulerScheduler"
    assert ask(model, scheduler="EDMEulerScheduler").scheduler.class_name == "EDMEulerScheduler"


def test_stable_diffusion_1_draws_with_lms_unless_told_otherwise() -> None:
    assert ask().scheduler.class_name == "LMSDiscreteScheduler"


# As AUTOMATIC1111 1.9 (sampler and schedule type), ComfyUI (sampler_name and scheduler) and Replicate write them.
APART = {
    ("DPM++ 2M", "Karras"): "DPM++ 2M Karras",
    ("DPM++ 2M Karras", "Karras"): "DPM++ 2M Karras",
    ("DPM++ 2M Karras", "Exponential"): "DPM++ 2M Exponential",
    ("DPM++ 2M", "Automatic"): "DPM++ 2M Karras",
    ("DPM++ 3M SDE", "automatic"): "DPM++ 3M SDE Exponential",
    ("DPM2", "Automatic"): "DPM2 Karras",
    ("Euler a", "Automatic"): "Euler a",
    ("Euler", "Normal"): "Euler",
    ("Euler", "Uniform"): "Euler",
    ("Euler", "SGM Uniform"): "Euler SGM Uniform",
    ("euler", "sgm_uniform"): "Euler SGM Uniform",
    ("euler", "simple"): "Euler SGM Uniform",
    ("euler_ancestral", "normal"): "Euler a",
    ("dpmpp_2m", "karras"): "DPM++ 2M Karras",
    ("dpmpp_2m_sde_gpu", "karras"): "DPM++ 2M SDE Karras",
    ("dpmpp_3m_sde", "exponential"): "DPM++ 3M SDE Exponential",
    ("dpmpp_sde", "karras"): "DPM++ SDE Karras",
    ("dpmpp_2s_ancestral", "karras"): "DPM++ 2S a Karras",
    ("dpm_2", "normal"): "DPM2",
    ("dpm_2_ancestral", "karras"): "DPM2 a Karras",
    ("uni_pc", "normal"): "UniPC",
    ("ddim", "ddim_uniform"): "DDIM",
    ("lcm", "sgm_uniform"): "LCM",
    ("k_lms", "karras"): "LMS Karras",
}
ALONE = {
    "KarrasDPM": "DPM++ 2M Karras",
    "K_EULER": "Euler",
    "K_EULER_ANCESTRAL": "Euler a",
    "DPM++SDEKarras": "DPM++ SDE Karras",
    "dpmpp_2m": "DPM++ 2M",
    "k_dpmpp_2m": "DPM++ 2M",
    "Euler Trailing": "Euler SGM Uniform",
    "DPM++ 2M Trailing": "DPM++ 2M SGM Uniform",
}


@pytest.mark.parametrize(("apart", "name"), APART.items(), ids=str)
def test_a_sampler_and_a_schedule_type_are_one_scheduler(apart: tuple[str, str], name: str) -> None:
    sampler, schedule = apart
    assert ask(sampler_name=sampler, scheduler=schedule).scheduler.name == name


@pytest.mark.parametrize(("written", "name"), ALONE.items())
def test_names_of_other_programs(written: str, name: str) -> None:
    assert ask(scheduler=written).scheduler.name == name
    assert ask(sampler_name=written).scheduler.name == name


def test_a_schedule_that_a_sampler_has_not_is_refused_with_those_it_has() -> None:
    told = refusal(sampler_name="Euler a", scheduler="Karras")
    assert told == "scheduler: got 'Karras'; beside sampler_name 'Euler a' it is one of Automatic, Normal, SGM Uniform"
    assert refusal(sampler_name="Wizard", scheduler="Karras").startswith("sampler_name: got 'Wizard'; ")


def test_a_stand_in_is_said_to_be_one() -> None:
    assert any("DPM++ 2S" in warning for warning in ask(scheduler="DPM++ 2S a Karras").warnings)


@pytest.mark.parametrize("starts", [{"image": picture()}, {"hires": {}}], ids=["image", "hires"])
def test_what_cannot_start_from_a_picture_is_refused_where_one_is_needed(starts: dict[str, object]) -> None:
    told = refusal(scheduler="IPNDM", **starts)
    assert told.startswith("scheduler: got 'IPNDM'; IPNDM cannot start from a picture")


def test_what_cannot_start_from_a_picture_is_not_offered_where_a_refiner_always_does() -> None:
    assert "IPNDM" in model_of("sdxl").list_schedulers()
    assert refusal(model_of("sdxl", refiner=True), scheduler="IPNDM").startswith("scheduler: got 'IPNDM'; ")


@pytest.mark.parametrize("fields", [{"refiner": {"steps": 60}}, {"refiner_inference_steps": 60}], ids=str)
def test_the_refiner_takes_as_many_steps_as_the_jobs_scheduler(fields: dict[str, object]) -> None:
    told = refusal(model_of("sdxl", refiner=True), scheduler="LCM", **fields)
    assert told.startswith(f"{next(iter(fields))}: got ") and told.endswith("LCM takes 1 to 50 steps")


@pytest.mark.parametrize("name", ["LMS", "DPM2", "PNDM", "DPM++ 2S", "DEIS", "Heun", "DDIM", "LCM"])
def test_a_zero_snr_model_that_predicts_noise_refuses_what_cannot_honour_it(name: str) -> None:
    model = model_of("sd2", zero_snr=True)
    assert refusal(model, scheduler=name).startswith(f"scheduler: got '{name}'; ")
    assert ask(model, scheduler="Euler").scheduler.name == "Euler"


def test_a_class_name_is_the_models_own_and_a_rows_name_is_the_row() -> None:
    own = describe_own("DDIMScheduler", "diffusion", {"clip_sample": True})
    model = model_of("sd2", own_scheduler=own)
    assert ask(model, scheduler="DDIMScheduler").scheduler == ask(model, scheduler="own").scheduler == own
    assert ask(model, scheduler="DDIM").scheduler.options["clip_sample"] is False


@pytest.mark.parametrize("row", [row for row in SCHEDULERS if row.noise == "diffusion"], ids=lambda row: row.name)
def test_a_config_that_says_what_a_row_means_goes_by_a_row_of_that_meaning(row) -> None:
    found = describe_own(row.class_name, "diffusion", {"prediction_type": "epsilon", **row.options})
    assert found in SCHEDULERS
    assert {**row.options, **found.options} == {**row.options}
