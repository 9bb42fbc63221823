"""What docs/models.md says of the models that people run: what they take, where they fit, and how they are deployed.

Where they fit is what the worker's own plan says of their weights.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import diffusers
import torch

from benchmarks.prices import Prices
from benchmarks.results import Report
from benchmarks.scaling.measured import OURS, find_ours
from benchmarks.scenes import find_scene
from tools.markdown import table
from tools.performance import write_seconds
from tools.published import PUBLISHED, Checkpoint, Published
from worker.engine.load.fp8 import find_layers
from worker.engine.load.quantize import is_large
from worker.engine.memory_plan import MemoryPlan, Quantize, choose_memory_plan
from worker.engine.pipelines import starts_from_pictures, task_classes
from worker.engine.spread import choose_places
from worker.models.capabilities import CONTROLLED, EDIT, IMAGE, MASK, TEXT
from worker.models.editing import EDITORS
from worker.models.families import FAMILIES
from worker.models.family import Family

POOLS = (16, 24, 48, 80, 141)  # RunPod's, in gigabytes of the GPU's memory
PAIR = 48  # gigabytes of each of two GPUs
TAKEN = 1  # gigabyte of it that is not free before a model is there
ENOUGH = 48  # gigabytes; a larger GPU is asked for only where QUANTIZE=fp8 needs one, too
HALF = 2  # bytes of a weight as published

_BLOCK = 64  # weights of 4 bits that share a scale
_SCALE = 4  # bytes
_ON_THE_DEVICE = ("8bit", "4bit")  # are made there, all of them before any can leave
_WAYS: Sequence[Quantize] = ("none", "fp8", "4bit")  # that overviews show
_FROM = {TEXT: "prompts", IMAGE: "pictures", MASK: "masks", EDIT: "instructions"}

OFFLOADS = {"none": "whole", "model": "by component", "group": "by layer"}  # the first is the fastest

Row = tuple[str, ...]


@dataclass(frozen=True)
class Fit:
    """One model on one size of GPU."""

    plan: MemoryPlan
    loads: bool

    @property
    def works(self) -> bool:
        """Whether it can be loaded and drawn with there."""
        return self.loads and self.plan.fits

    @property
    def stays(self) -> bool:
        """Whether it works, and all of it stays there."""
        return self.works and self.plan.offload == "none"

    def describe(self) -> str:
        """In a word or two."""
        if not self.works:
            return "no"
        return f"{OFFLOADS[self.plan.offload]}, tiles" if self.plan.tiling else OFFLOADS[self.plan.offload]


def predict_sizes(parts: Mapping[str, torch.nn.Module], quantize: Quantize, width: int = HALF) -> dict[str, int]:
    """Bytes of each part's weights as QUANTIZE keeps them.

    Args:
        width: bytes of a weight that is not quantised.
    """
    sizes: dict[str, int] = {}
    for name, part in parts.items():
        sizes[name] = sum(weight.numel() for weight in part.parameters()) * width
        if is_large(name, type(part).__name__):
            sizes[name] += sum(
                _weigh(layer, quantize) - layer.weight.numel() * width for layer in _find(part, quantize)
            )
    return sizes


def _find(part: Any, quantize: Quantize) -> Iterator[torch.nn.Linear]:
    """The layers that are quantised; bitsandbytes takes all of a denoiser's, and leaves T5's sensitive ones."""
    if quantize == "none":
        return
    if quantize == "fp8" or hasattr(part, "get_input_embeddings"):
        kept = set() if quantize == "fp8" else set(part._keep_in_fp32_modules or ())
        names = {id(layer): name.rpartition(".")[2] for name, layer in part.named_modules()}
        yield from (layer for layer in find_layers(part) if names[id(layer)] not in kept)
    else:
        yield from (layer for layer in part.modules() if isinstance(layer, torch.nn.Linear))


def _weigh(layer: torch.nn.Linear, quantize: Quantize) -> int:
    numbers = layer.weight.numel()
    return numbers // 2 + numbers // _BLOCK * _SCALE if quantize == "4bit" else numbers + layer.out_features * _SCALE


@functools.cache
def _list_sizes(model: Published) -> dict[Quantize, dict[str, int]]:
    parts = model.build()
    kinds: Sequence[Quantize] = [one for one in get_args(Quantize) if one != "fp8" or "transformer" in parts]
    return {kind: predict_sizes(parts, kind) for kind in kinds}


def find_fit(sizes: Mapping[str, int], gigabytes: int, quantize: Quantize, pixels: int, seen: int = 0) -> Fit:
    """How these weights fit on a GPU of so many gigabytes.

    Args:
        seen: pixels of reference pictures.
    """
    free = (gigabytes - TAKEN) * 10**9
    plan = choose_memory_plan(sizes, pixels, free, None, quantize, seen=seen)
    return Fit(plan, quantize not in _ON_THE_DEVICE or sum(sizes.values()) < free)


def find_fits(model: Published, gigabytes: int) -> dict[Quantize, Fit]:
    """How a model fits on a GPU of so many gigabytes, with every QUANTIZE."""
    return {kind: find_fit(sizes, gigabytes, kind, *_pixels(model)) for kind, sizes in _list_sizes(model).items()}


def memory_rows() -> Iterator[Row]:
    """Every model with every QUANTIZE on every pool, and on two GPUs of one."""
    yield "model", "`QUANTIZE`", "weights", *(f"{pool} GB" for pool in POOLS), f"2 x {PAIR} GB"
    for model in PUBLISHED:
        for kind, sizes in _list_sizes(model).items():
            cells = (find_fit(sizes, pool, kind, *_pixels(model)).describe() for pool in POOLS)
            pair = _describe_pair(find_fit(sizes, PAIR, kind, *_pixels(model)), sizes, *_pixels(model))
            weights = f"{sum(sizes.values()) / 1e9:.1f} GB"
            yield model.title, f"`{kind}`", weights, *cells, pair


def _describe_pair(alone: Fit, sizes: Mapping[str, int], pixels: int, seen: int) -> str:
    """How weights that fit on one GPU like this fit on two."""
    free = [(PAIR - TAKEN) * 10**9] * 2
    whole = alone.plan.fits and alone.plan.offload == "none"
    return "spread" if alone.loads and not whole and choose_places(sizes, pixels, free, seen) else alone.describe()


def _pixels(model: Published) -> tuple[int, int]:
    """Of the picture that is drawn, and of an ordinary job's references, where its first checkpoint takes any."""
    editing = EDITORS.get(_find_family(model.checkpoints[0]).pipeline)
    return model.pixels, editing.count_seen(model.pixels) if editing else 0


def overview_rows(report: Report) -> Iterator[Row]:
    """Every model in a line.

    Args:
        report: the benchmark's results on a GPU.
    """
    yield "model", "draws from", *("whole on", "with `fp8`", "with `4bit`"), "licence", "seconds on an H200"
    for model in PUBLISHED:
        first, anchor = model.checkpoints[0], model.title.lower().replace(".", "").replace(" ", "-")
        pools = _find_pools(model)
        tasks = {*_list_tasks(getattr(diffusers, _find_family(first).pipeline))}
        scene = report.scenes.get(model.scene)
        yield (
            f"[{model.title}](#{anchor})",
            ", ".join(words for task, words in _FROM.items() if task in tasks),
            *(f"{pools[kind]} GB" if kind in pools else "" for kind in _WAYS),
            first.licence + ", gated" * first.gated,
            write_seconds(find_ours(scene).median) if scene and "H200" in (scene.machine.gpu or "") else "",
        )


def pool_rows(prices: Prices) -> Iterator[Row]:
    """Every size of memory, and the models of which all stays on it but not on a smaller one."""
    yield "memory", "cards", "models of which all stays on it", *(f"with `QUANTIZE={kind}`" for kind in _WAYS[1:])
    for size in sorted({pool.gigabytes for pool in prices.pools}):
        cards = "; ".join(pool.gpus for pool in prices.pools if pool.gigabytes == size)
        fitting = ([one.title for one in PUBLISHED if _find_pools(one).get(kind) == size] for kind in _WAYS)
        yield f"{size} GB", cards, *(", ".join(titles) for titles in fitting)


def write_models(report: Report) -> str:
    """A section for each model.

    Args:
        report: the benchmark's results on a GPU.
    """
    return "\n\n".join(part for model in PUBLISHED for part in _write(model, report))


def _write(model: Published, report: Report) -> Iterator[str]:
    sizes = _list_sizes(model)
    yield f"## {model.title}"
    numbers = {name: size / HALF / 1e9 for name, size in sizes["none"].items() if name != "vae"}
    large = ", ".join(f"{name} {number:.3g} B" for name, number in numbers.items() if number >= 1 or name == "unet")
    yield f"{large} weights; {sum(sizes['none'].values()) / 1e9:.1f} GB on disk in 16 bits. {_advise(model)}"
    yield from _tell_seconds(model, report)
    head = ("checkpoint", "licence", "steps", "guidance", "tasks")
    yield table(head, *(_describe(one) for one in model.checkpoints))
    yield _deploy(model)


def _tell_seconds(model: Published, report: Report) -> Iterator[str]:
    """What the benchmark has measured of it, if it has."""
    for name, what in ((model.scene, "a picture"), (model.start, "from the start of the process to the first picture")):
        if scene := report.scenes.get(name):
            ours = [case for case in scene.cases if case.name.startswith(OURS) and case.part_of is None]
            told = ", ".join(f"{write_seconds(one.median)} with {one.name.removeprefix(f'{OURS}, ')}" for one in ours)
            steps, gpu = find_scene(name).steps, scene.machine.gpu
            yield f"[Measured](performance.md#{name}) on one {gpu}, {what} in {steps} steps: {told}."


def _advise(model: Published) -> str:
    """From which pool on all weights stay on the GPU, as published and with fewer bits."""
    pools = _find_pools(model)
    told = ", ".join(f"{pool} GB with `{kind}`" for kind, pool in pools.items() if kind != "none")
    return f"All of it stays on a GPU of {pools['none']} GB{f'; `QUANTIZE`: {told}' if told else ''}."


@functools.cache
def _find_pools(model: Published) -> Mapping[Quantize, int]:
    """The smallest on which all weights stay on the GPU, as published, and with each QUANTIZE if that is a smaller."""
    found: dict[Quantize, int] = {}
    for kind, sizes in _list_sizes(model).items():  # as published first
        fits = (pool for pool in POOLS if find_fit(sizes, pool, kind, *_pixels(model)).stays)
        pool = next(fits, math.inf)
        if pool < found.get("none", math.inf):
            found[kind] = int(pool)
    return found


def _describe(checkpoint: Checkpoint) -> Row:
    family = _find_family(checkpoint)
    licence = checkpoint.licence + (", gated" if checkpoint.gated else "")
    link = f"[{checkpoint.repository}](https://huggingface.co/{checkpoint.repository})"
    return (
        link,
        licence,
        str(family.steps),
        write_guidance(family),
        ", ".join(_list_tasks(getattr(diffusers, family.pipeline))),
    )


def _find_family(checkpoint: Checkpoint) -> Family:
    return next(row for row in FAMILIES if row.name == checkpoint.family)


def write_guidance(family: Family) -> str:
    """What jobs get that name none."""
    return "fixed" if family.guidance is None else f"{family.guidance_scale:g}"


def _list_tasks(kind: type) -> Iterator[str]:
    """What a pipeline's model can do."""
    editing = EDITORS.get(kind.__name__)
    if editing.from_prompt if editing else not starts_from_pictures(kind):
        yield TEXT
    tasks = [task for task in task_classes(kind) if task != TEXT]
    yield from (task for task in tasks if not task.endswith(CONTROLLED))
    if any(task.endswith(CONTROLLED) for task in tasks):
        yield "ControlNets"
    if hasattr(kind, "load_lora_weights"):
        yield "LoRAs"


def _deploy(model: Published) -> str:
    """The environment of the first checkpoint."""
    lines = [f"{name}={value}" for name, value in _list_settings(model).items() if value not in ("", "none")]
    if model.checkpoints[0].gated:
        lines.insert(1, "HF_TOKEN={{ RUNPOD_SECRET_hf_token }}")
    return "\n".join((f"On a GPU of {_find_pools(model)[_choose_bits(model)]} GB:", "", "```sh", *lines, "```"))


def list_presets(disk_gigabytes: int) -> Iterator[dict[str, Any]]:
    """What RunPod's Hub offers, of the first checkpoint of each model that a container's disk can hold."""
    for model in reversed(PUBLISHED):  # the smallest, which need no token, come first in the form
        if sum(_list_sizes(model)["none"].values()) < disk_gigabytes * 10**9:
            token = ", needs a token" if model.checkpoints[0].gated else ""
            name = f"{model.title} ({_find_pools(model)[_choose_bits(model)]} GB{token})"
            yield {"name": name, "defaults": _list_settings(model)}


def _list_settings(model: Published) -> dict[str, str]:
    first = model.checkpoints[0].repository
    return {"MODEL_NAME": first, "MODEL_VARIANT": model.variant, "QUANTIZE": _choose_bits(model)}


def _choose_bits(model: Published) -> Quantize:
    """fp8 where it would else take a very large GPU."""
    pools = _find_pools(model)
    return "none" if pools.get("none", max(POOLS)) <= ENOUGH or "fp8" not in pools else "fp8"
