"""A scheduler's name draws what it says, whatever the model's own config says beside it, or is refused by name.

The configs are those that diffusers writes. Every name is tried on every one, from noise and from a picture; the
expected latents come from diffusers' classes, set up from the model's training alone.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from torch import Tensor

from tests.helpers import tiny_models, tiny_transformers
from tests.helpers.asking import picture as any_picture
from tests.helpers.drawing import assert_same, draw, load_engine, picture, scene, uri
from tests.helpers.plain_diffusers import EXPECTED, around, load_plain, plainly, run, scheduler_for
from tests.helpers.tiny_models import BETAS
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.engine.scheduling import build_scheduler
from worker.errors import InvalidInputError, SettingsError

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
    "lcm": ("LCMScheduler", {"original_inference_steps": 20}),
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


def write_config(name: str) -> Any:
    """The scheduler that a model with this config has."""
    class_name, entries = CONFIGS[name]
    kind = getattr(diffusers, class_name)
    return kind.from_config({**BETAS, **entries, **(IGNORED if "ignores" in name else {})})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, made = tmp_path_factory.mktemp("configs"), {}
    for name in CONFIGS:
        pipeline = tiny_models.sd1()
        pipeline.scheduler = write_config(name)
        made[name] = tiny_models.save(pipeline, root / name)
    return made


@pytest.fixture(scope="module")
def workers(models: dict[str, Path]) -> dict[str, Engine]:
    return {name: load_engine(MODEL_NAME=str(folder)) for name, folder in models.items()}


def walk(scheduler: Any, steps: int, from_picture: bool) -> Tensor:
    """The latents at the end of a schedule, or of its second half, with a function in the place of the denoiser."""
    generator = torch.Generator().manual_seed(3)
    scheduler.set_timesteps(steps)
    noise = torch.randn(1, 4, 6, 6, generator=generator)
    first = steps // 2 * scheduler.order if from_picture else 0
    timesteps = scheduler.timesteps[first:]
    if from_picture and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    sample = scheduler.add_noise(noise.tanh(), noise.roll(1, 0), timesteps[:1]) if from_picture else None
    if sample is None:
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


def expected(config: Mapping[str, Any], name: str, steps: int, from_picture: bool) -> Tensor:
    scheduler = scheduler_for(config, name)
    if not from_picture and hasattr(scheduler, "set_begin_index"):
        settle = scheduler.set_timesteps
        scheduler.set_timesteps = lambda count: (settle(count), scheduler.set_begin_index(0))
    return walk(scheduler, steps, from_picture)


def ask(engine: Engine, **fields: Any) -> Any:
    return parse({"id": "test", "input": {"prompt": "a red square", **fields}}, engine.capabilities)[0]


def refused(engine: Engine, **fields: Any) -> str:
    with pytest.raises(InvalidInputError) as refusal:
        ask(engine, **fields)
    return str(refusal.value)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", [name for name in EXPECTED if not name.startswith("Flow")])
def test_a_name_draws_what_it_says_or_is_refused(name: str, config: str, workers: dict[str, Engine]) -> None:
    engine = workers[config]
    fields = {"scheduler": name, "num_inference_steps": 8}
    if name not in engine.capabilities.list_schedulers():
        assert refused(engine, **fields).startswith(f"scheduler: got {name!r}; ")
        return
    row, own = ask(engine, **fields).scheduler, engine.scheduler_config
    starts = (False, True) if row.starts_from_picture else (False,)
    for from_picture in starts:
        got = walk(build_scheduler(row, own, engine.schedulers), 8, from_picture)
        assert got.isfinite().all()
        assert torch.equal(got, expected(own, name, 8, from_picture)), f"from a picture: {from_picture}"
    if row.starts_from_picture:
        ask(engine, **fields, image=any_picture())
    else:
        told = refused(engine, **fields, image=any_picture())
        assert told.startswith(f"scheduler: got {name!r}; {name} cannot start from a picture")


OFFERED_LEAST = {"sample": 30, "zero SNR": 15, "zero SNR, v": 19, "zero SNR, v, a class that ignores it": 19}
OWN_ONLY = ("flow sigmas", "continuous", "cosine")


@pytest.mark.parametrize("config", CONFIGS)
def test_most_names_are_offered(config: str, workers: dict[str, Engine]) -> None:
    """Else the test above would hold for a worker that refuses everything."""
    names = workers[config].capabilities.list_schedulers()
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
    config: str, own: str, models: dict[str, Path], workers: dict[str, Engine]
) -> None:
    engine, model = workers[config], load_plain(models[config]).scheduler
    name = "own" if own == "own" else type(model).__name__
    if config in ("zero SNR, v, a class that ignores it", "zero SNR, a class that divides by it"):
        assert refused(engine, scheduler=name).startswith(f"scheduler: got {name!r}; ")
        return
    row = ask(engine, scheduler=name, num_inference_steps=8).scheduler
    steps = min(8, row.max_steps or 8)
    got = walk(build_scheduler(row, engine.scheduler_config, {}), steps, False)
    assert torch.equal(got, walk(model, steps, False))


@pytest.mark.parametrize("config", [name for name in CONFIGS if name.startswith("zero SNR")])
def test_zero_snr_models_start_from_pure_noise_unless_told_otherwise(config: str, workers: dict[str, Engine]) -> None:
    engine = workers[config]
    scheduler = build_scheduler(ask(engine).scheduler, engine.scheduler_config, {})
    assert scheduler.alphas_cumprod[-1] < 1e-6
    scheduler.set_timesteps(8)
    assert scheduler.timesteps[0] == 999


def test_an_owner_cannot_choose_what_ignores_zero_snr(models: dict[str, Path]) -> None:
    with pytest.raises(SettingsError, match=r"DEFAULT_SCHEDULER: got 'LMS'; .* takes one of Euler"):
        load_engine(MODEL_NAME=str(models["zero SNR, v"]), DEFAULT_SCHEDULER="LMS")


@pytest.mark.parametrize("config", ["karras", "dpmsolver", "sde-dpmsolver++", "deis", "unipc", "zero SNR, v"])
@pytest.mark.parametrize("name", ["Euler", "DPM++ 2M", "UniPC Karras"])
def test_pictures(config: str, name: str, models: dict[str, Path], workers: dict[str, Engine]) -> None:
    """From the prompt and from a picture, in diffusers' own pipelines."""
    plain = load_plain(models[config])
    scheduler = scheduler_for(plain.scheduler.config, name)
    assert_same(picture(workers[config], scheduler=name), plainly(around(plain, scheduler=scheduler)))
    image, call = scene(), {"prompt": "a red square", "strength": 0.6, "num_inference_steps": 10}
    again = scheduler_for(plain.scheduler.config, name)
    theirs = run(around(plain, StableDiffusionImg2ImgPipeline.__name__, scheduler=again), **call, image=image)[0]
    assert_same(picture(workers[config], **call, image=uri(image), scheduler=name, guidance_scale=7.5), theirs)


@pytest.mark.parametrize("entries", [{}, {"use_karras_sigmas": True}, {"use_beta_sigmas": True}], ids=str)
def test_flows(entries: dict[str, Any], tmp_path: Path) -> None:
    pipeline = tiny_transformers.sd3()
    pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, **entries)
    folder = tiny_models.save(pipeline, tmp_path / "flow")
    engine, plain = load_engine(MODEL_NAME=str(folder)), load_plain(folder)
    names = [name for name in EXPECTED if name.startswith("Flow")]
    assert engine.capabilities.list_schedulers() == names
    for name in names:
        scheduler = scheduler_for(plain.scheduler.config, name)
        assert_same(picture(engine, scheduler=name), plainly(around(plain, scheduler=scheduler)))


def test_a_flow_model_with_a_solver_of_another_kind_keeps_to_it(tmp_path: Path) -> None:
    pipeline = tiny_transformers.sd3()
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    pipeline.scheduler = diffusers.DPMSolverMultistepScheduler(**flow)
    engine = load_engine(MODEL_NAME=str(tiny_models.save(pipeline, tmp_path / "flow")))
    assert engine.capabilities.list_schedulers() == ["DPMSolverMultistepScheduler"]
    assert refused(engine, scheduler="Flow Euler").startswith("scheduler: got 'Flow Euler'; ")


def test_lcm_takes_no_more_steps_than_it_was_distilled_from(workers: dict[str, Engine]) -> None:
    engine = workers["leading"]
    assert refused(engine, scheduler="LCM", num_inference_steps=51).startswith("num_inference_steps: got 51; LCM takes")
    assert ask(engine, scheduler="LCM").num_inference_steps == 50
    assert refused(workers["lcm"], scheduler="own", num_inference_steps=21).startswith("num_inference_steps: got 21; ")


def test_close_sigmas_that_share_a_timestep_are_drawn(workers: dict[str, Engine]) -> None:
    """diffusers runs past the end of such a schedule."""
    (drawn,) = draw(workers["zero SNR, v"], scheduler="DPM++ 2M Karras", num_inference_steps=50)
    assert drawn.image.size == (64, 64)


def test_the_embedded_models_own_is_in_the_table() -> None:
    engine = load_engine(MODEL_NAME=str(Path(__file__).parents[2] / "models" / "shapes"))
    assert engine.capabilities.scheduler.name == "LMS Karras"
