"""Requests made up of all fields that a worker admits, and workers with every kind of add-on beside a tiny model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.helpers import tiny_models
from tests.helpers.drawing import hole, scene, uri
from tests.helpers.tiny_addons import Kits
from tests.helpers.tiny_controlnets import Places
from worker.models.capabilities import Capabilities

FAMILIES = ("sd1", "sdxl", "sd3", "flux", "qwen")
_PICTURES = [uri(scene(seed=seed)) for seed in range(2)]
_WIDER = {"image": _PICTURES[0], "outpaint": {"left": 8, "bottom": 20}}
_SHARES = st.sampled_from([0.0, 0.3, 0.5, 1.0])


def equip(family: str, kits: Kits, places: Places, root: Path) -> dict[str, str]:
    """The environment of a worker for this family's tiny model, with all that there is beside it."""
    environment = places.settings(family)
    if family == "qwen":
        return environment
    environment |= kits[family].settings("loras", "ip_adapter", *(["words"] if kits[family].words else []))
    environment |= places.settings(family)
    if family == "sdxl":
        environment["REFINER_NAME"] = str(tiny_models.save(tiny_models.sdxl_refiner(), root / "refiner"))
    if family == "sd1":
        environment["VAE_NAME"] = str(places[family]["model"] / "vae")
    return environment


def requests(model: Capabilities) -> st.SearchStrategy[dict[str, Any]]:
    """What a job may say to this model, most of it admitted; small, and quickly drawn."""
    pictures = st.sampled_from(_PICTURES)
    usable = model.list_schedulers()
    optional = {
        "negative_prompt": st.sampled_from(["", "a blur"]),
        "width": st.sampled_from([64, 96]),
        "height": st.sampled_from([64, 80]),
        "scheduler": st.sampled_from(usable),
        "num_inference_steps": st.integers(2, 4),
        "guidance_scale": st.sampled_from([0.0, 1.0, 4.0]),
        "num_images": st.integers(1, 2),
        "strength": st.sampled_from([0.5, 1.0]),
        "clip_skip": st.just(1),
        "guidance_rescale": st.sampled_from([0.0, 0.7]),
        "image_guidance_scale": st.sampled_from([1.0, 3.0]),
        "true_cfg_scale": st.sampled_from([1.0, 3.0]),
        "max_sequence_length": st.sampled_from([8, 64]),
        "hires": st.fixed_dictionaries(
            {"scale": st.just(1.5)}, optional={"upscaler": st.sampled_from(["lanczos", "latent"]), "steps": st.just(2)}
        ),
        "refiner": st.sampled_from([{"high_noise_frac": 0.5}, {"strength": 0.5}, {"high_noise_frac": 1.0}]),
        "preview": st.booleans(),
        "loras": st.lists(st.sampled_from(model.loras), min_size=1, max_size=2, unique=True) if model.loras else None,
        "ip_adapter": st.fixed_dictionaries({"image": pictures}, optional={"scale": _SHARES}),
        "controlnet": _controls(model.controlnets),
    }
    source = st.sampled_from([{}, {"image": _PICTURES[0]}, {"image": _PICTURES[0], "mask": uri(hole())}, _WIDER])
    fields = {name: values for name, values in optional.items() if values is not None}
    fixed = {"prompt": st.sampled_from(["a red square", "a (red:1.2) square"]), "seed": st.just(7)}
    # A few at once, so that most are admitted.
    names = st.lists(st.sampled_from(sorted(fields)), max_size=5, unique=True)
    drawn = names.flatmap(lambda some: st.fixed_dictionaries({**fixed, **{name: fields[name] for name in some}}))
    return st.builds(_join, drawn, source)


def _join(job: dict[str, Any], start: dict[str, Any]) -> dict[str, Any]:
    """One job; of a picture that is drawn on, the sides say the size."""
    sizes = {"width", "height"} if "outpaint" in start else set()
    return {name: value for name, value in {**SMALLEST, **job, **start}.items() if name not in sizes}


SMALLEST = {"width": 64, "height": 64, "num_inference_steps": 2}


def _controls(names: Sequence[str]) -> st.SearchStrategy[list[dict[str, Any]]] | None:
    if not names:
        return None
    modes = ["canny", "depth", "repaint", 0, 5]
    one = st.fixed_dictionaries(
        {"name": st.sampled_from(names)},
        optional={
            "image": st.sampled_from(_PICTURES),
            "mode": st.sampled_from(modes),
            "scale": _SHARES,
            "start": st.sampled_from([0.0, 0.4]),
            "end": st.sampled_from([0.5, 1.0]),
        },
    )
    return st.lists(one, min_size=1, max_size=3)
