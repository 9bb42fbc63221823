"""A scheduler's name draws what it says, whatever the model's own config says beside it, or is refused by name.

The configs are those that diffusers writes. Every name is tried on every one, from noise and from a picture; the
expected latents come from diffusers' classes, set up from the model's training alone.
"""

import copy
import functools
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from torch import Tensor

from tests.helpers import asking, tiny_models, tiny_transformers
from tests.helpers.asking import ask, refusal
from tests.helpers.drawing import assert_same, load_engine, picture, scene, uri
from tests.helpers.plain_diffusers import EXPECTED, TRAINING, around, load_plain, plainly, run, scheduler_for
from tests.helpers.tiny_models import BETAS
from worker.engine.load.describe import describe
from worker.engine.scheduling import build_scheduler
from worker.errors import SettingsError
from worker.models.adapters import AdapterCatalogue
from worker.models.capabilities import Capabilities
from worker.models.schedulers import SCHEDULERS, Scheduler
from worker.settings import Settings

V = {"prediction_type": "v_prediction"}
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
# name -> class, entries
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "exponential": ("EulerDiscreteScheduler", {"use_exponential_sigmas": True}),
    "beta": ("DPMSolverMultistepScheduler", {"use_beta_sigmas": True}),
    "lu": ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}),
    "ends early": ("EulerDiscreteScheduler", SIGMA_MIN),
    "dpmsolver": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", **SIGMA_MIN, "solver_order": 3}),
    "sde-dpmsolver": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver", **SIGMA_MIN}),
    "sde-dpmsolver++": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "euler_at_final": True, "solver_order": 3},
    ),
    "single": ("DPMSolverSinglestepScheduler", {"solver_type": "heun", "solver_order": 3}),
    "deis": ("DEISMultistepScheduler", {"solver_order": 3, "lower_order_final": False}),
    "unipc": (
        "UniPCMultistepScheduler",
        {"solver_type": "bh1", "disable_corrector": [0], "predict_x0": False, **SIGMA_MIN},
    ),
    "clipped": ("DDIMScheduler", {"clip_sample": True, "thresholding": True, "timestep_spacing": "leading"}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": False, "steps_offset": 1}),
    "lcm": ("LCMScheduler", {"original_inference_steps": 20, "timestep_scaling": 5.0}),
    "ddpm": ("DDPMScheduler", {"variance_type": "fixed_large"}),
    "trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "leading": ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
    "linspace": ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "linspace"}),
    "v": ("DDIMScheduler", {**V, "clip_sample": False}),
    "sample": ("DDIMScheduler", {"prediction_type": "sample"}),
    "zero SNR": ("EulerDiscreteScheduler", ZERO_SNR),
    "zero SNR, v": ("EulerDiscreteScheduler", {**ZERO_SNR, **V}),
    "zero SNR, v, a class that ignores it": ("PNDMScheduler", {**V, "timestep_spacing": "trailing"}),
    "zero SNR, a class that divides by it": ("DDIMScheduler", ZERO_SNR),
    "flow sigmas": ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
    "continuous": ("EulerDiscreteScheduler", {"timestep_type": "continuous", **V}),
    "cosine": ("DDPMScheduler", {"beta_schedule": "squaredcos_cap_v2"}),
}
IGNORED = {"rescale_betas_zero_snr": True}  # as a hidden entry


NOTHING_BESIDE = AdapterCatalogue({}, {}, None, None, {}, {}, {})
IMAGE = asking.picture(64, 64)
STEPS = 6  # an odd half, and enough for the third order in its middle


@dataclass(frozen=True)
class Model:
    """What a worker knows of a model with such a config; no weights."""

    capabilities: Capabilities
    config: Mapping[str, Any]
    built: dict[tuple[Any, ...], Any]


def write_config(name: str) -> Any:
    """The scheduler that a model with this config has, read back from what diffusers writes."""
    class_name, entries = CONFIGS[name]
    kind = getattr(diffusers, class_name)
    written = kind.from_config({**BETAS, **entries, **(IGNORED if "ignores" in name else {})}).to_json_string()
    return kind.from_config(json.loads(written))


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Any]:
    parts = tiny_models.sd1()
    return {name: around(parts, scheduler=write_config(name)) for name in CONFIGS}


@pytest.fixture(scope="module")
def models(pipelines: dict[str, Any]) -> dict[str, Model]:
    settings = Settings.model_construct()
    return {
        name: Model(describe(pipeline, name, settings, NOTHING_BESIDE), dict(pipeline.scheduler.config), {})
        for name, pipeline in pipelines.items()
    }


def walk(scheduler: Any, steps: int, from_picture: bool) -> Tensor:
    """The latents at the end of a schedule, or of its second half, with a function in the place of the denoiser."""
    generator = torch.Generator().manual_seed(3)
    scheduler.set_timesteps(steps)
    noise = torch.randn(1, 4, 6, 6, generator=generator)
    first = steps // 2 * scheduler.order if from_picture else 0
    timesteps = scheduler.timesteps[first:]
    if from_picture:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        sample = scheduler.add_noise(noise.tanh(), noise.roll(1, 0), timesteps[:1])
    else:
        sample = noise * scheduler.init_noise_sigma
    accepted = inspect.signature(scheduler.step).parameters
    for index, timestep in enumerate(timesteps):
        scaled = scheduler.scale_model_input(sample, timestep)
        # LMS is held to the derivatives it has; diffusers' own takes more of them in mid-schedule.
        named = {"generator": generator, "order": min(4, index + 1)}
        named = {name: value for name, value in named.items() if name in accepted}
        output = (scaled * 0.3 + scaled.roll(1, -1) * 0.1).tanh()
        sample = scheduler.step(output, timestep, sample, **named, return_dict=False)[0]
    return sample


def expected(config: Mapping[str, Any], name: str, from_picture: bool) -> Tensor:
    """What plain diffusers draws by this name for a model so trained."""
    trained = json.dumps({entry: config[entry] for entry in TRAINING if entry in config})
    return _expected(trained, name, from_picture)


@functools.cache
def _expected(trained: str, name: str, from_picture: bool) -> Tensor:
    scheduler = scheduler_for(json.loads(trained), name)
    if not from_picture and hasattr(scheduler, "set_begin_index"):
        settle = scheduler.set_timesteps
        scheduler.set_timesteps = lambda count: (settle(count), scheduler.set_begin_index(0))
    return walk(scheduler, STEPS, from_picture)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", [name for name in EXPECTED if not name.startswith("Flow")])
def test_a_name_draws_what_it_says_or_is_refused(name: str, config: str, models: dict[str, Model]) -> None:
    model, fields = models[config], {"scheduler": name, "num_inference_steps": STEPS}
    if name not in model.capabilities.list_schedulers():
        assert refusal(model.capabilities, **fields).startswith(f"scheduler: got {name!r}; ")
        return
    row = ask(model.capabilities, **fields).scheduler
    for from_picture in (False, True) if row.starts_from_picture else (False,):
        got = walk(build_scheduler(row, model.config, model.built), STEPS, from_picture)
        assert got.isfinite().all()
        assert torch.equal(got, expected(model.config, name, from_picture)), f"from a picture: {from_picture}"
    if row.starts_from_picture:
        ask(model.capabilities, **fields, image=IMAGE)
    else:
        told = refusal(model.capabilities, **fields, image=IMAGE)
        assert told.startswith(f"scheduler: got {name!r}; {name} cannot start from a picture")


# What else a model's training decides; and solver_p, a second scheduler, which no file holds.
OF_THE_MODEL = {"interpolation_type", "timestep_type", "sigma_min", "sigma_max", "lambda_min_clipped", "invert_sigmas"}
OF_THE_MODEL |= {"variance_type", "solver_p"}
# Entries without effect -> the entry that leaves them none.
WITHOUT_EFFECT = {
    "dynamic_thresholding_ratio": "thresholding",
    "sample_max_value": "thresholding",
    "clip_sample_range": "clip_sample",
    "euler_at_final": "final_sigmas_type",
    "flow_shift": "use_flow_sigmas",
    "use_dynamic_shifting": "use_flow_sigmas",
    "time_shift_type": "use_flow_sigmas",
    "shift_terminal": "use_flow_sigmas",
}


@pytest.mark.parametrize("row", SCHEDULERS, ids=lambda row: row.name)
def test_a_name_says_every_entry_that_is_not_the_models(row: Scheduler) -> None:
    """Also those that a new diffusers brings."""
    entries = inspect.signature(getattr(diffusers, row.class_name)).parameters.keys()
    settled = {name for name, decided_by in WITHOUT_EFFECT.items() if decided_by in row.options}
    assert entries - row.options.keys() - {*TRAINING} - OF_THE_MODEL - settled == set()
    assert row.options.keys() <= entries


OFFERED_LEAST = {"sample": 30, "zero SNR": 15, "zero SNR, v": 19, "zero SNR, v, a class that ignores it": 19}
OWN_ONLY = ("flow sigmas", "continuous", "cosine")


@pytest.mark.parametrize("config", CONFIGS)
def test_most_names_are_offered(config: str, models: dict[str, Model]) -> None:
    """Else the test above would hold for a worker that refuses everything."""
    names = models[config].capabilities.list_schedulers()
    if config in OWN_ONLY:
        assert len(names) == 1
    elif not config.startswith("zero SNR"):
        assert len(names) >= OFFERED_LEAST.get(config, 40)
    else:
        assert {"Euler", "Euler a", "DPM++ 2M Karras", "UniPC"} <= set(names)
        assert not {"LMS", "DPM2", "PNDM", "DEIS", "DPM++ 2S"} & set(names)
        assert ("DDIM" in names) == ("v" in config.split(", "))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("own", ["own", "by class"])
def test_the_models_own_is_offered_by_its_name(
    config: str, own: str, models: dict[str, Model], pipelines: dict[str, Any]
) -> None:
    model, published = models[config], copy.deepcopy(pipelines[config].scheduler)
    name = "own" if own == "own" else type(published).__name__
    if config in ("zero SNR, v, a class that ignores it", "zero SNR, a class that divides by it"):
        assert refusal(model.capabilities, scheduler=name).startswith(f"scheduler: got {name!r}; ")
        return
    row = ask(model.capabilities, scheduler=name, num_inference_steps=STEPS).scheduler
    got = walk(build_scheduler(row, model.config, {}), STEPS, from_picture=False)
    assert torch.equal(got, walk(published, STEPS, from_picture=False))


@pytest.mark.parametrize("config", [name for name in CONFIGS if name.startswith("zero SNR")])
def test_zero_snr_models_start_from_pure_noise_unless_told_otherwise(config: str, models: dict[str, Model]) -> None:
    model = models[config]
    scheduler = build_scheduler(ask(model.capabilities).scheduler, model.config, {})
    assert scheduler.alphas_cumprod[-1] < 1e-6
    scheduler.set_timesteps(STEPS)
    assert scheduler.timesteps[0] == 999


def test_an_owner_cannot_choose_what_ignores_zero_snr(pipelines: dict[str, Any]) -> None:
    settings = Settings.model_construct(default_scheduler="LMS")
    with pytest.raises(SettingsError, match=r"DEFAULT_SCHEDULER: got 'LMS'; .* takes one of Euler"):
        describe(pipelines["zero SNR, v"], "model", settings, NOTHING_BESIDE)


PICTURES = {"karras": "Euler", "deis": "DPM++ 2M", "unipc": "UniPC Karras", "zero SNR, v": "DPM++ 2M SDE"}


@pytest.mark.parametrize(("config", "name"), PICTURES.items())
def test_pictures(config: str, name: str, pipelines: dict[str, Any], tmp_path: Path) -> None:
    """From the prompt and from a picture, in diffusers' own pipelines."""
    folder = tiny_models.save(pipelines[config], tmp_path / "model")
    engine, plain = load_engine(MODEL_NAME=str(folder)), load_plain(folder)
    scheduler = scheduler_for(plain.scheduler.config, name)
    assert_same(picture(engine, scheduler=name), plainly(around(plain, scheduler=scheduler)))
    image, call = scene(), {"prompt": "a red square", "strength": 0.6, "num_inference_steps": 5}
    again = scheduler_for(plain.scheduler.config, name)
    theirs = run(around(plain, StableDiffusionImg2ImgPipeline.__name__, scheduler=again), **call, image=image)[0]
    assert_same(picture(engine, **call, image=uri(image), scheduler=name, guidance_scale=7.5), theirs)


def flow_model(**scheduler: Any) -> Any:
    pipeline = tiny_transformers.sd3()
    pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, **scheduler)
    return pipeline


@pytest.mark.parametrize("entries", [{}, {"use_karras_sigmas": True}, {"use_beta_sigmas": True}], ids=str)
def test_flows(entries: dict[str, Any], tmp_path: Path) -> None:
    folder = tiny_models.save(flow_model(**entries), tmp_path / "flow")
    engine, plain = load_engine(MODEL_NAME=str(folder)), load_plain(folder)
    names = [name for name in EXPECTED if name.startswith("Flow")]
    assert engine.capabilities.list_schedulers() == names
    for name in names:
        scheduler = scheduler_for(plain.scheduler.config, name)
        assert_same(picture(engine, scheduler=name), plainly(around(plain, scheduler=scheduler)))


def test_a_flow_model_with_a_solver_of_another_kind_keeps_to_it() -> None:
    pipeline = flow_model()
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    pipeline.scheduler = diffusers.DPMSolverMultistepScheduler(**flow)
    model = describe(pipeline, "model", Settings.model_construct(), NOTHING_BESIDE)
    assert model.list_schedulers() == ["DPMSolverMultistepScheduler"]
    assert refusal(model, scheduler="Flow Euler").startswith("scheduler: got 'Flow Euler'; ")


def test_lcm_takes_no_more_steps_than_it_was_distilled_from(models: dict[str, Model]) -> None:
    model = models["leading"].capabilities
    told = refusal(model, scheduler="LCM", num_inference_steps=51)
    assert told.startswith("num_inference_steps: got 51; LCM takes")
    assert ask(model, scheduler="LCM").num_inference_steps == 50
    distilled = models["lcm"].capabilities
    told = refusal(distilled, scheduler="own", num_inference_steps=21)
    assert told.startswith("num_inference_steps: got 21; ")


def test_close_sigmas_that_share_a_timestep_are_drawn(models: dict[str, Model]) -> None:
    """diffusers runs past the end of such a schedule."""
    model = models["zero SNR, v"]
    row = ask(model.capabilities, scheduler="DPM++ 2M Karras").scheduler
    scheduler = build_scheduler(row, model.config, model.built)
    assert walk(scheduler, 50, from_picture=False).isfinite().all()
    assert scheduler.timesteps[0] == scheduler.timesteps[1], "nothing is shared: the test proves nothing"


# Where 1,000 / steps is rounded down, so many spans end above 0, and one more is counted.
MISCOUNTED = [steps for steps in range(1, 500) if len(np.arange(1000, 0, -1000 / steps)) != steps]


@pytest.mark.parametrize(
    "name", ["LMS", "Euler", "Euler a", "Heun", "DPM++ 2M", "DEIS", "UniPC", "DDIM", "DDPM", "PNDM", "DDIM SGM Uniform"]
)
def test_trailing_timesteps_are_as_many_as_there_are_steps(name: str, models: dict[str, Model]) -> None:
    """diffusers counts one more, timestep -1, which is read as the noisiest."""
    model = models["trailing"]
    row = ask(model.capabilities, scheduler=name).scheduler
    assert MISCOUNTED, "NumPy counts right: nothing is left to mend"
    for steps in [20, 50, *MISCOUNTED]:
        scheduler = build_scheduler(row, model.config, model.built)
        scheduler.set_timesteps(steps)
        wanted = [float(Fraction(1000 * (steps - i), steps)) - 1 for i in range(steps)]
        got = dict.fromkeys(scheduler.timesteps.tolist())  # a step of two evaluations has its timestep twice
        assert [*got] == pytest.approx(wanted, abs=0.5 + 1e-9)
