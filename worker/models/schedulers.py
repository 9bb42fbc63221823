"""Scheduler names -> diffusers classes and options. A plain table; it knows no torch.

A scheduler is always built from the model's own original config, so its betas, spacing and prediction type stay the
model's; `options` holds only what makes this row differ. Names are those of AUTOMATIC1111 where it has one, so that
the parameters embedded in a picture are understood elsewhere.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

Noise = Literal["diffusion", "flow", "own"]


@dataclass(frozen=True)
class Scheduler:
    """One row: a way to step from noise to a picture.

    Attributes:
        name: as shown and embedded in pictures.
        class_name: the class in diffusers; also accepted as a name, with or without "Scheduler".
        aliases: other names, in any case; spaces, hyphens and underscores do not count.
        options: config entries that differ from the model's own.
        noise: what the scheduler integrates: a diffusion process (betas), a flow (straight paths), or what only the
            model's own scheduler knows.
        min_steps: the fewest steps that give a picture.
        any_prediction: False when only models that predict the noise (epsilon) can use it.
        caveat: told to the caller as a warning.
    """

    name: str
    class_name: str
    aliases: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    noise: Noise = "diffusion"
    min_steps: int = 1
    any_prediction: bool = True
    caveat: str | None = None


_KARRAS = MappingProxyType({"use_karras_sigmas": True})
_SDE = MappingProxyType({"algorithm_type": "sde-dpmsolver++"})
# These classes clip what they predict to [-1, 1] unless told otherwise, which latents do not survive.
_UNCLIPPED = MappingProxyType({"clip_sample": False})

SCHEDULERS: tuple[Scheduler, ...] = (
    Scheduler("LMS", "LMSDiscreteScheduler", ("K-LMS",), min_steps=2),
    Scheduler("LMS Karras", "LMSDiscreteScheduler", options=_KARRAS, min_steps=2),
    Scheduler("Euler", "EulerDiscreteScheduler", ("K-Euler", "Euler-D")),
    Scheduler("Euler Karras", "EulerDiscreteScheduler", options=_KARRAS),
    Scheduler("Euler a", "EulerAncestralDiscreteScheduler", ("K-Euler-Ancestral", "Euler Ancestral")),
    Scheduler("Heun", "HeunDiscreteScheduler", ("K-Heun",)),
    Scheduler("DPM2", "KDPM2DiscreteScheduler", ("KDPM2-D", "KDPM2", "K-DPM-2")),
    Scheduler("DPM2 a", "KDPM2AncestralDiscreteScheduler", ("KDPM2-A", "K-DPM-2-Ancestral")),
    Scheduler("DPM++ 2M", "DPMSolverMultistepScheduler", ("DPM-M",)),
    Scheduler("DPM++ 2M Karras", "DPMSolverMultistepScheduler", ("DPMSolverMultistep Karras",), _KARRAS),
    Scheduler("DPM++ 2M SDE", "DPMSolverMultistepScheduler", options=_SDE),
    Scheduler("DPM++ 2M SDE Karras", "DPMSolverMultistepScheduler", options=MappingProxyType({**_SDE, **_KARRAS})),
    Scheduler("DPM++ 2S", "DPMSolverSinglestepScheduler", ("DPM-S",), MappingProxyType({"lower_order_final": True})),
    Scheduler("DEIS", "DEISMultistepScheduler"),
    Scheduler("UniPC", "UniPCMultistepScheduler"),
    Scheduler("DDIM", "DDIMScheduler", options=_UNCLIPPED),
    Scheduler("DDPM", "DDPMScheduler", options=_UNCLIPPED),
    # Stable Diffusion is always sampled without the Runge-Kutta warm-up that the class does by default.
    Scheduler("PNDM", "PNDMScheduler", ("PLMS",), MappingProxyType({"skip_prk_steps": True})),
    Scheduler("LCM", "LCMScheduler", options=_UNCLIPPED),
    Scheduler(
        "IPNDM",
        "IPNDMScheduler",
        any_prediction=False,
        caveat="IPNDM has a noise schedule of its own and ignores the model's; pictures may look wrong",
    ),
    Scheduler("Flow Euler", "FlowMatchEulerDiscreteScheduler", ("FlowMatchEuler",), noise="flow"),
    Scheduler("Flow Euler Karras", "FlowMatchEulerDiscreteScheduler", options=_KARRAS, noise="flow"),
)


def _key(name: str) -> str:
    """A name without what people write differently: case, spaces, hyphens, underscores, a final 'Scheduler'."""
    return re.sub(r"[\s_-]+", "", name).casefold().removesuffix("scheduler")


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
    """The row that goes by this name, or None; a model's own scheduler goes by its class name, in the table or not."""
    if own is not None and _key(name) == _key(own.class_name):
        return own
    return _BY_NAME.get(_key(name))


def describe_own(class_name: str, noise: Noise) -> Scheduler:
    """The row for a model's own scheduler: its config is the model's, so there are no options."""
    known = _BY_NAME.get(_key(class_name))
    if known:
        return replace(known, options=MappingProxyType({}))
    return Scheduler(class_name.removesuffix("Scheduler"), class_name, noise=noise)


def is_usable(row: Scheduler, own: Scheduler, noise: Noise, prediction_type: str) -> bool:
    """Whether a model with this scheduler of its own, noise and prediction can be sampled with this row."""
    if row.class_name == own.class_name and not row.options:
        return True
    return row.noise == noise and (row.any_prediction or prediction_type == "epsilon")


def list_names(own: Scheduler, noise: Noise, prediction_type: str) -> list[str]:
    """The names that such a model accepts, in the table's order; its own last if the table has none such."""
    usable_names = [row.name for row in SCHEDULERS if is_usable(row, own, noise, prediction_type)]
    return usable_names if own.name in usable_names else [*usable_names, own.class_name]
