"""How a pipeline fits into the device's memory: the fastest plan, with its reason.

Pure arithmetic on sizes, so that it can be read and tested without a device.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Offload = Literal["none", "model", "group"]
Quantize = Literal["none", "8bit", "4bit", "fp8"]
Graphed = Literal["none", "denoiser", "all"]  # what may become graphs: all but the decoder's passes, or those too

# Working memory beyond the weights, in bytes for each pixel drawn: upper bounds of what was reserved on an H200 for
# full-size SDXL (9,270 undivided, in float32) and FLUX (4,820) at 1024x1024; SDXL by tiles in 8 GB stayed below. Other
# models are taken to need no more; what tensors alone take in theirs is in docs/models.md.
DENOISE = 1_600
LOOK = 1_000  # of a picture that a transformer looks at beside that: what tensors take in FLUX.2 dev, the largest
DECODE = 9_500
DECODE_TILED = 1_600
RESERVE = 300_000_000  # the CUDA context's workspaces and what the allocator cannot use


@dataclass(frozen=True)
class GraphNeeds:
    """What decides how much graphs of passes take, beside the pass of which there is one.

    Attributes:
        decoder: whether the VAE's decoder is of a kind that can become a graph.
        copies: bytes of the copies of a decoder that is cast for each picture.
    """

    decoder: bool = True
    copies: int = 0


@dataclass(frozen=True)
class MemoryPlan:
    """Where weights stay between uses, whether the VAE decodes by tiles, and whether passes may become graphs.

    Attributes:
        offload: none, all on the device; model, one component at a time; group, layer by layer, streamed.
        room: bytes of device memory beside the weights that are there while the denoiser works, for its pass; of a pass
            that becomes a graph, half of them.
        graphs: the passes that there is room for as graphs, which keep the memory of the largest for good.
        fits: whether what is needed is there.
        places: which of several devices keeps which component; empty where one keeps all.
    """

    offload: Offload
    tiling: bool
    reason: str
    room: int = 0
    graphs: Graphed = "none"
    fits: bool = True
    places: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Choice:
    offload: Offload
    tiling: bool
    need: int
    graphs: Graphed = "none"
    again: int = 0  # bytes of the need that are for graphs


def choose_memory_plan(
    sizes: Mapping[str, int],
    pixels: int,
    free: int,
    wanted: Offload | None,
    quantize: Quantize = "none",
    graphs: GraphNeeds | None = None,
    seen: int = 0,
    decodes: bool = True,
) -> MemoryPlan:
    """The fastest plan that fits.

    Args:
        sizes: bytes of each component's weights.
        pixels: of the native size.
        free: bytes of device memory before anything is placed there.
        wanted: the owner's choice; None to choose by memory.
        quantize: how the weights are kept; in 8 bits they cannot leave the device.
        graphs: None where passes run as they are written.
        seen: pixels of pictures that the denoiser looks at beside the one that it draws.
        decodes: whether pictures are decoded on this device.
    """
    kept = wanted or ("none" if quantize == "8bit" else None)
    usable = free - RESERVE
    total = sum(sizes.values())
    held = {"none": total, "model": _largest(sizes), "group": _resident(sizes, quantize)}
    choices = _list_choices(sizes, pixels, seen, held, graphs, decodes)
    possible = [one for one in choices if kept in (None, one.offload)]
    choice = next((one for one in possible if one.need <= usable), possible[-1])
    return MemoryPlan(
        choice.offload,
        choice.tiling,
        _explain(choice, choices, free, wanted, total, quantize),
        _find_room(choice, held[choice.offload], usable, graphs),
        choice.graphs,
        choice.need <= usable,
    )


def _find_room(choice: _Choice, held: int, usable: int, graphs: GraphNeeds | None) -> int:
    """For a pass of the denoiser; its graph takes as much once more, and keeps it while a picture is decoded."""
    beside = max(0, usable - held)
    if graphs is None or choice.graphs == "none":
        return beside
    if choice.graphs == "all":
        return max(0, beside - graphs.copies) // 2
    decoding = choice.need - choice.again - held
    return max(0, min(beside // 2, beside - decoding))


def _largest(sizes: Mapping[str, int]) -> int:
    """Of the components that come one at a time; the VAE's time is another."""
    return max((size for name, size in sizes.items() if name != "vae"), default=0)


def _resident(sizes: Mapping[str, int], quantize: Quantize) -> int:
    """What stays on the device where weights come layer by layer."""
    scales = sum(sizes.values()) // 8 if quantize == "4bit" else 0  # one 32-bit scale for 64 weights
    return scales + sizes.get("vae", 0)


def _list_choices(
    sizes: Mapping[str, int],
    pixels: int,
    seen: int,
    held: Mapping[str, int],
    graphs: GraphNeeds | None,
    decodes: bool,
) -> list[_Choice]:
    """What there is to choose from, the fastest first."""
    vae, denoise = sizes.get("vae", 0), pixels * DENOISE + seen * LOOK
    found: list[_Choice] = []
    for offload in ("none", "model", "group"):
        for tiling in (False, True):
            decode = decodes * pixels * (DECODE_TILED if tiling else DECODE)
            together = held[offload] + max(denoise, decode)
            apart = max(held[offload] + denoise, vae + decode)
            found.append(_Choice(offload, tiling, apart if offload == "model" else together))
    return [*_list_graphs(found[:2], pixels, denoise, graphs), *found]


def _list_graphs(plain: Sequence[_Choice], pixels: int, denoise: int, graphs: GraphNeeds | None) -> Iterator[_Choice]:
    """The same with graphs; tiles cost more than a graph of the decoder gains."""
    if graphs is None:
        return
    for one in plain:
        decode = pixels * (DECODE_TILED if one.tiling else DECODE)
        if graphs.decoder:
            again = graphs.copies + max(denoise, decode)
            yield replace(one, need=one.need + again, graphs="all", again=again)
        yield replace(one, need=one.need + denoise, graphs="denoiser", again=denoise)


def _explain(
    choice: _Choice, choices: Sequence[_Choice], free: int, wanted: Offload | None, total: int, quantize: Quantize
) -> str:
    how = {"none": "all on the device", "model": "one component at a time", "group": "layer by layer"}[choice.offload]
    why = "OFFLOAD says so" if wanted else f"about {choice.need / 1e9:.1f} GB needed of {free / 1e9:.1f} GB free"
    what = f"weights {total / 1e9:.1f} GB" + (f" with QUANTIZE={quantize}" if quantize != "none" else "")
    graphs = ""
    if choice.graphs != "none":
        whose = (
            "largest pass once more, and copies of a cast decoder"
            if choice.graphs == "all"
            else "denoiser's pass alone"
        )
        graphs = f"; {choice.again / 1e9:.1f} GB for graphs, the {whose}"
    elif least := min((one.need for one in choices if one.graphs != "none"), default=0):
        graphs = f"; no graphs of passes, for which it would be about {least / 1e9:.1f} GB"
    return f"{how}{', the VAE by tiles' if choice.tiling else ''}: {why}; {what}{graphs}"
