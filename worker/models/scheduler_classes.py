"""What each scheduler class of diffusers takes, and the config entries of it that a name decides. Knows no torch.

A class may ignore what a model was trained with, or divide by zero on it. Entries that belong to the model (betas,
prediction type, spacing, zero SNR) stand in no `options` here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

EPSILON, V_PREDICTION, SAMPLE = "epsilon", "v_prediction", "sample"
PREDICTIONS = EPSILON, V_PREDICTION, SAMPLE
BETA_SCHEDULES = "linear", "scaled_linear"  # others go where not every class follows, or ends in infinity

ZeroSnr = Literal["ignored", "unless epsilon", "honoured"]


@dataclass(frozen=True)
class SchedulerClass:
    """One class.

    Attributes:
        options: what a name without further words means.
        predictions: the prediction types that it draws with.
        zero_snr: whether it starts from pure noise where the model was trained so (arXiv:2305.08891). "unless epsilon":
            it then divides by the signal, which is 0.
        starts_from_picture: whether it can be entered in mid-schedule, with a picture and noise on it.
    """

    options: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    predictions: tuple[str, ...] = PREDICTIONS
    zero_snr: ZeroSnr = "ignored"
    starts_from_picture: bool = True


def merge(*options: Mapping[str, object]) -> Mapping[str, object]:
    """All of these entries; of two of one name the last."""
    return MappingProxyType({name: value for one in options for name, value in one.items()})


_SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_TO_ZERO = {"final_sigmas_type": "zero"}
# What classes do for pixels or flows, and what latents do not survive.
_UNCLIPPED = {"clip_sample": False, "thresholding": False}
_SOLVER = {**_SIGMAS, "solver_order": 2, "lower_order_final": True, "use_flow_sigmas": False, "thresholding": False}
_DPM = {**_SOLVER, **_TO_ZERO, "algorithm_type": "dpmsolver++", "solver_type": "midpoint"}

CLASSES: Mapping[str, SchedulerClass] = MappingProxyType(
    {
        "LMSDiscreteScheduler": SchedulerClass(merge(_SIGMAS)),
        "EulerDiscreteScheduler": SchedulerClass(merge(_SIGMAS, _TO_ZERO), zero_snr="honoured"),
        "EulerAncestralDiscreteScheduler": SchedulerClass(predictions=(EPSILON, V_PREDICTION), zero_snr="honoured"),
        "HeunDiscreteScheduler": SchedulerClass(merge(_SIGMAS, {"clip_sample": False})),
        "KDPM2DiscreteScheduler": SchedulerClass(merge(_SIGMAS), (EPSILON, V_PREDICTION)),
        "KDPM2AncestralDiscreteScheduler": SchedulerClass(merge(_SIGMAS), (EPSILON, V_PREDICTION)),
        "DPMSolverMultistepScheduler": SchedulerClass(merge(_DPM, {"use_lu_lambdas": False}), zero_snr="honoured"),
        "DPMSolverSinglestepScheduler": SchedulerClass(merge(_DPM)),
        "DEISMultistepScheduler": SchedulerClass(merge(_SOLVER, {"algorithm_type": "deis", "solver_type": "logrho"})),
        "UniPCMultistepScheduler": SchedulerClass(
            merge(_SOLVER, _TO_ZERO, {"solver_type": "bh2", "predict_x0": True, "disable_corrector": ()}),
            zero_snr="honoured",
        ),
        "DDIMScheduler": SchedulerClass(merge(_UNCLIPPED), zero_snr="unless epsilon"),
        "DDPMScheduler": SchedulerClass(merge(_UNCLIPPED, {"variance_type": "fixed_small"}), zero_snr="unless epsilon"),
        # Stable Diffusion is always sampled without the Runge-Kutta warm-up that the class does by default.
        "PNDMScheduler": SchedulerClass(merge({"skip_prk_steps": True}), (EPSILON, V_PREDICTION)),
        "LCMScheduler": SchedulerClass(
            merge(_UNCLIPPED, {"original_inference_steps": 50, "timestep_scaling": 10.0}), zero_snr="unless epsilon"
        ),
        "IPNDMScheduler": SchedulerClass(predictions=(EPSILON,), starts_from_picture=False),
        "FlowMatchEulerDiscreteScheduler": SchedulerClass(merge(_SIGMAS, {"stochastic_sampling": False})),
    }
)


def draws_with(class_name: str, prediction_type: str, zero_snr: bool) -> bool:
    """Whether the class can draw with a diffusion model that was trained so."""
    known = CLASSES[class_name]
    honoured = known.zero_snr == "honoured" or (known.zero_snr == "unless epsilon" and prediction_type != EPSILON)
    return prediction_type in known.predictions and (honoured or not zero_snr)


def starts_from_picture(class_name: str) -> bool:
    """Whether the class can be entered in mid-schedule; one that is not known here is taken to."""
    return class_name not in CLASSES or CLASSES[class_name].starts_from_picture
