"""The layers of a LoRA file -> the model's own layers that they are for.

A name is looked up among the model's, as it stands and with underscores for its dots, as kohya's scripts write it.
What is named otherwise goes through diffusers' own conversion, with marks in place of the weights: they tell where
each row of a layer ends up, also where one layer of the original is several in diffusers.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from torch import Tensor, nn

from worker.engine.adapters.lora_file import PEFT_PREFIX, Parts, split_key

MAX_ROWS = 20_000_000  # in all, of the layers whose names need conversion; FLUX has some 3,000,000
MAX_FAILURES = 500  # of conversions of one file, under its own names and the usual ones; each halves what had none
MAX_WORK = 3_000_000  # layers times different numbers in their names, by which conversions take time; some 4 s

# How trainers begin the names of a component's layers. The first that fits counts; "" is the denoiser.
_PREFIXES = {
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
    "text_encoders.t5xxl.transformer.": "t5",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder_3.": "text_encoder_3",
    "text_encoder.": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
    "lora_te_": "text_encoder",
    "lora_unet_": "",
    "lora_transformer_": "",
    "lycoris_": "",
    "model.diffusion_model.": "",
    "diffusion_model.": "",
    "unet.": "",
    "transformer.": "",
}
_KOHYA = ("lora_unet_", "lora_transformer_", "lora_te")
_USUAL = "diffusion_model.", "lora_unet_"  # before the denoiser's layers, with dots and with underscores
_OLD_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}  # in text encoders

# How diffusers' conversions know the two factors, tried in turn; those of kohya's names know no others.
_SPELLINGS = (("lora_down", "lora_up"), ("lora_A", "lora_B"), ("down", "up"))


Read = Callable[[Mapping[str, int]], "dict[str, tuple[Target, ...]]"]


@dataclass(frozen=True)
class Target:
    """A layer of the model.

    Attributes:
        component: unet, transformer, text_encoder, ...
        rows: which of the file's rows it takes, in its order; None for all as they come.
    """

    component: str
    layer: str
    rows: Tensor | None = None


class Targets:
    """What of one pipeline LoRAs can act on."""

    def __init__(self, pipeline: Any) -> None:
        """Look the layers up."""
        self._pipeline = pipeline
        self.modules: dict[tuple[str, str], nn.Module] = {}  # component and layer -> the model's own module
        self._names: dict[tuple[str, str], str] = {}  # component and spelling -> layer
        for component in pipeline._lora_loadable_modules:
            model = getattr(pipeline, component, None)
            for name, module in _layers(model) if isinstance(model, nn.Module) else ():
                self.modules[component, name] = module
                for spelling in (name, name.replace(".", "_")):
                    self._names[component, _without_text_model(spelling)] = name
        self._failures = self._work = 0
        self._denoiser = next(iter(pipeline._lora_loadable_modules), "")

    def find(self, rows: Mapping[str, int]) -> dict[str, tuple[Target, ...]]:
        """The targets of each layer of a file that has any.

        Args:
            rows: the file's name of a layer -> how many outputs it has.
        """
        found: dict[str, tuple[Target, ...]] = {}
        for name in rows:
            if (target := self._look_up(name)) is not None:
                found[name] = (target,)
        if sum(count for name, count in rows.items() if name not in found) > MAX_ROWS:
            raise ValueError(f"its layers have more than {MAX_ROWS} outputs")
        for kohya in (True, False):
            for spelling in _SPELLINGS[: 1 if kohya else None]:
                rest = [name for name in rows if name not in found and name.startswith(_KOHYA) is kohya]
                found |= self._find_converted({name: rows[name] for name in rest}, partial(self._read_marks, spelling))
        self._failures = 0
        reads: list[Read] = [partial(self._read_marks, spelling) for spelling in _SPELLINGS[:2]]
        for read in (*reads, self._read_checkpoint):
            usual = {self._spell_usually(name): name for name in rows if name not in found}
            converted = self._find_converted({new: rows[name] for new, name in usual.items() if new}, read)
            found |= {usual[new]: targets for new, targets in converted.items()}
        return found

    def _spell_usually(self, name: str) -> str:
        """A layer of the denoiser as ComfyUI or kohya's scripts name it, which conversions know; empty for others."""
        rest = name.removeprefix(PEFT_PREFIX)
        prefix = next((prefix for prefix in _PREFIXES if rest.startswith(prefix)), "")
        kohya = prefix.startswith((*_KOHYA, "lycoris_"))
        return "" if _PREFIXES.get(prefix) else f"{_USUAL[kohya]}{rest.removeprefix(prefix)}"

    def _look_up(self, name: str) -> Target | None:
        rest = name.removeprefix(PEFT_PREFIX)
        prefix = next((prefix for prefix in _PREFIXES if rest.startswith(prefix)), "")
        component = _PREFIXES.get(prefix) or self._denoiser
        rest = rest.removeprefix(prefix).removeprefix(PEFT_PREFIX).replace(".processor.", ".")
        block, dot, last = _without_text_model(rest).rpartition(".")
        old = _OLD_NAMES.get(last, last) if component != self._denoiser else f"{last}.0"
        for spelling in (f"{block}{dot}{last}", f"{block}{dot}{old}"):
            if (layer := self._names.get((component, spelling))) is not None:
                return Target(component, layer)
        return None

    def _find_converted(self, rows: Mapping[str, int], read: Read) -> dict[str, tuple[Target, ...]]:
        """What diffusers' conversion makes of these; a layer at which it fails has none."""
        try:
            self._work += len(rows) * len(set(re.findall(r"\d+", " ".join(rows))))
            if not rows or self._failures > MAX_FAILURES or self._work > MAX_WORK:
                return {}
            return read(rows)
        except Exception:  # of names that it does not expect it raises whatever comes
            self._failures += 1
            if len(rows) == 1:
                return {}
            names = list(rows)
            halves = names[: len(names) // 2], names[len(names) // 2 :]
            return {
                name: targets
                for half in halves
                for name, targets in self._find_converted({one: rows[one] for one in half}, read).items()
            }

    def _read_checkpoint(self, rows: Mapping[str, int]) -> dict[str, tuple[Target, ...]]:
        """Where diffusers puts these layers' own weights when it reads a whole file in the original layout.

        Each row holds its number, and which layer it is of.
        """
        names = [name for name in rows if name.startswith(_USUAL[False])]
        marks = {
            f"{name.removeprefix(_USUAL[False])}.weight": torch.stack(
                (torch.arange(rows[name], dtype=torch.float64), torch.full((rows[name],), number).double()), dim=1
            )
            for number, name in enumerate(names)
        }
        kind = type(getattr(self._pipeline, self._denoiser)).__name__
        converted = SINGLE_FILE_LOADABLE_CLASSES[kind]["checkpoint_mapping_fn"](checkpoint=marks, config={})
        found: dict[str, tuple[Target, ...]] = {}
        for key, mark in converted.items():
            target = self._look_up(key.removesuffix(".weight"))
            if target is not None:
                name, taken = names[int(mark[0, 1])], mark[:, 0].long()
                whole = torch.equal(taken, torch.arange(rows[name]))
                placed = Target(target.component, target.layer, None if whole else taken)
                found[name] = (*found.get(name, ()), placed)
        return found

    def _read_marks(self, spelling: tuple[str, str], rows: Mapping[str, int]) -> dict[str, tuple[Target, ...]]:
        names = list(rows)
        converted = _convert(self._pipeline, _mark(names, rows, spelling))
        marks: dict[str, Parts] = {}
        for key, tensor in converted.items():
            name, part = split_key(key)
            if part in ("down", "up"):
                marks.setdefault(name, {})[part] = tensor
        found: dict[str, tuple[Target, ...]] = {}
        for converted_name, parts in marks.items():
            target = self._look_up(converted_name)
            if target is not None and len(parts) == 2:
                name = names[int(parts["down"].flatten()[0])]
                taken = parts["up"][:, 0].long()
                whole = torch.equal(taken, torch.arange(rows[name]))
                placed = Target(target.component, target.layer, None if whole else taken)
                found[name] = (*found.get(name, ()), placed)
        return found


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers that a LoRA can act on, without what peft has put around or into them."""
    from peft.tuners.tuners_utils import BaseTunerLayer  # hidden where no LoRA can be named

    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            continue
        if isinstance(module, BaseTunerLayer):
            inside = (f"{name}.",)
            module = module.get_base_layer()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            yield name, module


def _mark(names: Sequence[str], rows: Mapping[str, int], spelling: tuple[str, str]) -> dict[str, Tensor]:
    """Each layer as a LoRA of rank 1, whose factors say which layer and which row it is."""
    marked: dict[str, Tensor] = {}
    down, up = spelling
    for number, name in enumerate(names):
        marked[f"{name}.{down}.weight"] = torch.full((1, 1), float(number))
        marked[f"{name}.{up}.weight"] = torch.arange(rows[name], dtype=torch.float32).reshape(-1, 1)
        if down == "lora_down":
            marked[f"{name}.alpha"] = torch.tensor(1.0)
    return marked


def _convert(pipeline: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """These weights under the names of diffusers' own layers."""
    convert: Callable[..., Any] = type(pipeline).lora_state_dict
    options = {"unet_config": pipeline.unet.config} if hasattr(pipeline, "unet") else {}
    converted = convert(weights, **options)
    return dict(converted[0] if isinstance(converted, tuple) else converted)


def _without_text_model(name: str) -> str:
    """Published files have the text_model that transformers has taken out of the middle."""
    return name.removeprefix("text_model.").removeprefix("text_model_")
