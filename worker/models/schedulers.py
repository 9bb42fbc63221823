"""Scheduler names -> diffusers classes and options. A plain table; it knows no torch.

A scheduler is always built from the model's own original config, so its betas, spacing and prediction type stay the
model's. `options` holds every entry that a name means, also where it is the class's default: the model's config may
say otherwise. Names are those of AUTOMATIC1111 where it has one, so that the parameters embedded in a picture are
understood elsewhere.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from worker.models.scheduler_classes import CLASSES, draws_with, merge, starts_from_picture

Noise = Literal["diffusion", "flow", "own"]


@dataclass(frozen=True)
class Scheduler:
    """One row: a way to step from noise to a picture.

    Attributes:
        name: as shown and embedded in pictures.
        class_name: the class in diffusers; also accepted as a name, with or without "Scheduler".
        aliases: other names, in any case; spaces, hyphens and underscores do not count.
        options: the config entries that the name means; all others are the model's.
        noise: what the scheduler integrates: a diffusion process (betas), a flow (straight paths), or what only the
            model's own scheduler knows.
        min_steps, max_steps: the fewest steps that give a picture, and the most that the class takes.
        caveat: told to the caller as a warning.
    """

    name: str
    class_name: str
    aliases: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    noise: Noise = "diffusion"
    min_steps: int = 1
    max_steps: int | None = None
    caveat: str | None = None

    @property
    def starts_from_picture(self) -> bool:
        """Whether a picture can be its start."""
        return starts_from_picture(self.class_name)


def _row(
    name: str, class_name: str, aliases: tuple[str, ...] = (), *changes: Mapping[str, object], **rest: Any
) -> Scheduler:
    """The class's plain meaning, but for these changes."""
    class_name += "Scheduler"
    return Scheduler(name, class_name, aliases, merge(CLASSES[class_name].options, *changes), **rest)


_KARRAS = {"use_karras_sigmas": True}
_EXPONENTIAL = {"use_exponential_sigmas": True}
_BETA = {"use_beta_sigmas": True}
_TRAILING = {"timestep_spacing": "trailing"}
_SDE = {"algorithm_type": "sde-dpmsolver++"}
_SDE_3 = {**_SDE, "solver_order": 3}
_NOT_ANCESTRAL = "DPM++ 2S a is drawn as DPM++ 2S, the nearest that diffusers has: no noise is added between its steps"
_NO_BETAS = "IPNDM has a noise schedule of its own and ignores the model's; pictures may look wrong"

SCHEDULERS: tuple[Scheduler, ...] = (
    _row("LMS", "LMSDiscrete", ("K-LMS", "KLMS"), min_steps=2),
    _row("LMS Karras", "LMSDiscrete", (), _KARRAS, min_steps=2),
    _row("Euler", "EulerDiscrete", ("K-Euler", "Euler-D")),
    _row("Euler Karras", "EulerDiscrete", (), _KARRAS),
    _row("Euler Exponential", "EulerDiscrete", (), _EXPONENTIAL),
    _row("Euler Beta", "EulerDiscrete", (), _BETA),
    _row("Euler SGM Uniform", "EulerDiscrete", (), _TRAILING),
    _row("Euler a", "EulerAncestralDiscrete", ("K-Euler-Ancestral", "Euler Ancestral")),
    _row("Euler a SGM Uniform", "EulerAncestralDiscrete", (), _TRAILING),
    _row("Heun", "HeunDiscrete", ("K-Heun",)),
    _row("Heun Karras", "HeunDiscrete", (), _KARRAS),
    _row("DPM2", "KDPM2Discrete", ("KDPM2-D", "KDPM2", "K-DPM-2")),
    _row("DPM2 Karras", "KDPM2Discrete", (), _KARRAS),
    _row("DPM2 a", "KDPM2AncestralDiscrete", ("KDPM2-A", "K-DPM-2-Ancestral")),
    _row("DPM2 a Karras", "KDPM2AncestralDiscrete", (), _KARRAS),
    _row("DPM++ 2M", "DPMSolverMultistep", ("DPM-M",)),
    _row("DPM++ 2M Karras", "DPMSolverMultistep", ("KarrasDPM", "DPMSolverMultistep Karras"), _KARRAS),
    _row("DPM++ 2M Exponential", "DPMSolverMultistep", (), _EXPONENTIAL),
    _row("DPM++ 2M Beta", "DPMSolverMultistep", (), _BETA),
    _row("DPM++ 2M SGM Uniform", "DPMSolverMultistep", (), _TRAILING),
    _row("DPM++ 2M SDE", "DPMSolverMultistep", (), _SDE),
    _row("DPM++ 2M SDE Karras", "DPMSolverMultistep", (), _SDE, _KARRAS),
    _row("DPM++ 2M SDE Exponential", "DPMSolverMultistep", (), _SDE, _EXPONENTIAL),
    _row("DPM++ 2M SDE SGM Uniform", "DPMSolverMultistep", (), _SDE, _TRAILING),
    _row("DPM++ 3M SDE", "DPMSolverMultistep", (), _SDE_3),
    _row("DPM++ 3M SDE Karras", "DPMSolverMultistep", (), _SDE_3, _KARRAS),
    _row("DPM++ 3M SDE Exponential", "DPMSolverMultistep", (), _SDE_3, _EXPONENTIAL),
    _row("DPM++ 2S", "DPMSolverSinglestep", ("DPM-S",)),
    _row("DPM++ 2S Karras", "DPMSolverSinglestep", (), _KARRAS),
    _row("DPM++ 2S a", "DPMSolverSinglestep", caveat=_NOT_ANCESTRAL),
    _row("DPM++ 2S a Karras", "DPMSolverSinglestep", (), _KARRAS, caveat=_NOT_ANCESTRAL),
    _row("DPM++ SDE", "DPMSolverSinglestep", (), _SDE),
    _row("DPM++ SDE Karras", "DPMSolverSinglestep", (), _SDE, _KARRAS),
    _row("DEIS", "DEISMultistep"),
    _row("DEIS Karras", "DEISMultistep", (), _KARRAS),
    _row("UniPC", "UniPCMultistep", ("uni_pc_bh2",)),
    _row("UniPC Karras", "UniPCMultistep", (), _KARRAS),
    _row("UniPC SGM Uniform", "UniPCMultistep", (), _TRAILING),
    _row("DDIM", "DDIM", ("DDIM Uniform",)),
    _row("DDIM SGM Uniform", "DDIM", (), _TRAILING),
    _row("DDPM", "DDPM"),
    _row("PNDM", "PNDM", ("PLMS",)),
    _row("LCM", "LCM", ("LCM SGM Uniform",), max_steps=50),
    _row("IPNDM", "IPNDM", caveat=_NO_BETAS),
    _row("Flow Euler", "FlowMatchEulerDiscrete", ("FlowMatchEuler",), noise="flow"),
    _row("Flow Euler Karras", "FlowMatchEulerDiscrete", (), _KARRAS, noise="flow"),
    _row("Flow Euler Exponential", "FlowMatchEulerDiscrete", (), _EXPONENTIAL, noise="flow"),
    _row("Flow Euler Beta", "FlowMatchEulerDiscrete", (), _BETA, noise="flow"),
)

# Words that follow a sampler's name for how its noise levels are spaced; those without one are the sampler's plain row.
SCHEDULES = ("Karras", "Exponential", "Beta", "SGM Uniform")
_PLAIN = ("normal", "uniform")
# What AUTOMATIC1111 1.9 takes for "Automatic" where that is not the plain row.
_AUTOMATIC = MappingProxyType(
    {
        "DPM2": "DPM2 Karras",
        "DPM2 a": "DPM2 a Karras",
        "DPM++ 2M": "DPM++ 2M Karras",
        "DPM++ 2S a": "DPM++ 2S a Karras",
        "DPM++ SDE": "DPM++ SDE Karras",
        "DPM++ 2M SDE": "DPM++ 2M SDE Exponential",
        "DPM++ 3M SDE": "DPM++ 3M SDE Exponential",
    }
)
_OWN = "own"
# Programs' ways to write one word: k-diffusion's prefix, ComfyUI's spellings.
_SPELLINGS = (
    (r"^k[\s_-]+", ""),
    (r"[\s_-]+", ""),
    ("scheduler$", ""),
    ("dpmpp", "dpm++"),
    ("ancestral", "a"),
    ("gpu", ""),
    ("simple|trailing", "sgmuniform"),
)


def _key(name: str) -> str:
    """A name without what people write differently."""
    key = name.strip().casefold()
    for pattern, plain in _SPELLINGS:
        key = re.sub(pattern, plain, key)
    return key


def _index() -> dict[str, Scheduler]:
    """Every accepted spelling -> its row; a class name means the class's first row."""
    index: dict[str, Scheduler] = {}
    for row in SCHEDULERS:
        for name in (row.name, *row.aliases):
            index[_key(name)] = row
    for row in SCHEDULERS:
        index.setdefault(_key(row.class_name), row)
    return index


_BY_NAME = _index()


def find_scheduler(name: str, own: Scheduler | None = None) -> Scheduler | None:
    """The row that goes by this name, or None.

    Args:
        own: the model's own scheduler, which goes by "own" and by its class's full name.
    """
    key, known = _key(name), _BY_NAME.get(_key(name))
    if own is not None and (key == _OWN or (key == _key(own.class_name) and _is_class_name(name, known))):
        return own
    return known


def _is_class_name(name: str, known: Scheduler | None) -> bool:
    """Whether it can only be a class: "DDIM" is a row of the table too, "DDIMScheduler" is not."""
    row_names = (known.name, *known.aliases) if known else ()
    return name.strip().casefold().endswith("scheduler") or _key(name) not in map(_key, row_names)


def join_names(sampler: str, schedule: str) -> str | None:
    """The one name for a sampler and a schedule type, or None where no row is both.

    AUTOMATIC1111 since 1.9 and ComfyUI name them apart. A sampler that is not known is returned as it is.
    """
    row = _BY_NAME.get(_key(sampler))
    if row is None or row is _BY_NAME.get(_key(schedule)):
        return sampler
    if _key(schedule) == "automatic":
        return _AUTOMATIC.get(row.name, row.name)
    base = _plain_name(row)
    joined = _BY_NAME.get(_key(base if _key(schedule) in _PLAIN else f"{base} {schedule}"))
    return joined.name if joined else None


def list_schedules(sampler: str) -> list[str]:
    """The schedule types that `join_names` takes beside this sampler."""
    return [word for word in ("Automatic", "Normal", *SCHEDULES) if join_names(sampler, word)]


def _plain_name(row: Scheduler) -> str:
    """The name without a schedule."""
    return next((row.name.removesuffix(f" {word}") for word in SCHEDULES if row.name.endswith(f" {word}")), row.name)


def describe_own(class_name: str, noise: Noise, config: Mapping[str, object]) -> Scheduler:
    """The row for a model's own scheduler: one that means what its config says, else one of its own.

    Args:
        config: as loaded; what it does not hold is as the class has it.
    """
    rows = [row for row in SCHEDULERS if row.class_name == class_name]
    for row in rows:
        if _agrees(row, config):
            return row
    if not rows:
        return Scheduler(class_name, class_name, noise=noise)
    steps = config.get("original_inference_steps")
    most = steps if isinstance(steps, int) else rows[0].max_steps
    return replace(rows[0], name=class_name, aliases=(), options=MappingProxyType({}), max_steps=most)


def _agrees(row: Scheduler, config: Mapping[str, object]) -> bool:
    """Whether such a config says all that the row means."""
    said = {name: config.get(name, value) for name, value in row.options.items()}
    return all((tuple(one) if isinstance(one, list) else one) == row.options[name] for name, one in said.items())


def is_usable(row: Scheduler, own: Scheduler, noise: Noise, prediction_type: str, zero_snr: bool) -> bool:
    """Whether a model with this scheduler of its own, so trained, can be drawn with this row.

    Args:
        noise: the kind of schedulers that fit the model.
        prediction_type: what the model predicts.
        zero_snr: whether it was trained down to no signal at all.
    """
    if row.noise == noise == "diffusion" and row.class_name in CLASSES:
        return draws_with(row.class_name, prediction_type, zero_snr)
    return row == own or row.noise == noise
