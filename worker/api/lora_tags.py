"""LoRAs named in a prompt, as AUTOMATIC1111's web UI has it: `<lora:name:0.8>` is no text, but one more of `loras`.

A name is one of the endpoint's, or the last part of one. The prompts of a job share its LoRAs. What names none that
is offered is left out of the text too, and said.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from worker.api.schema import MAX_JOB_LORAS, MAX_LORA_SCALE, Fields
from worker.models.capabilities import Capabilities
from worker.request import PROMPT_TAG, Lora

MAX_NAMED = 5  # tags in one warning
_KINDS = ("lora", "lyco")
# Where the hub has a file, as Replicate and RunPod's public endpoints name LoRAs.
_HUB_FILE = re.compile(r"(?:https?://)?huggingface\.co/([^/]+/[^/]+)(?:/(?:resolve|blob)/main/(.+?))?(?:\?.*)?/?")


@dataclass(frozen=True)
class PromptLora:
    """What a tag asks for.

    Attributes:
        text: the tag as it is written.
        scale: None where it names none; not a number where it names something else.
        ignored: whether it says more than a name and one scale.
    """

    text: str
    name: str
    scale: float | None
    ignored: bool


def find_lora(name: str, capabilities: Capabilities) -> str:
    """The name that the endpoint has for a LoRA that is named by it, or by where the hub has it; or what was given."""
    place = _HUB_FILE.fullmatch(name)
    names = [f"{place[1]}/{place[2]}", place[1]] if place and place[2] else [place[1]] if place else [name]
    plain = [one.removesuffix(".safetensors") for one in names]
    return next((one for one in plain if one in capabilities.loras), name if place else plain[0])


def merge_loras(fields: Fields, capabilities: Capabilities) -> tuple[Lora, ...]:
    """All LoRAs of the job, those of the field first, each once."""
    named = _list_field(fields, capabilities)
    tagged = {one.name: _choose_scale(one.scale, fields) for one in _list_offered(fields.prompt[0], capabilities)}
    new = {name: scale for name, scale in tagged.items() if name not in named}
    return tuple(Lora(name, scale, name not in named) for name, scale in (named | new).items())


def list_tag_problems(fields: Fields, capabilities: Capabilities) -> Iterator[str]:
    """What is wrong with the tags of the prompts that name a LoRA of this endpoint."""
    prompts = [_list_offered(prompt, capabilities) for prompt in fields.prompt]
    named = _list_field(fields, capabilities)
    for one in [one for tags in prompts for one in tags]:
        scale = _choose_scale(one.scale, fields)
        if not abs(scale) <= MAX_LORA_SCALE:
            yield f"in {one.text[:80]} the scale should be a number from -{MAX_LORA_SCALE} to {MAX_LORA_SCALE}"
        elif named.setdefault(one.name, scale) != scale:
            yield f"{one.text[:80]} and another place give {one.name} different scales; give one"
    if len({tuple(sorted({one.name for one in tags})) for tags in prompts}) > 1:
        yield "the prompts of a job share their LoRAs; each should name the same"
    if len(named) > MAX_JOB_LORAS and any(prompts):
        yield f"a job may name {MAX_JOB_LORAS} LoRAs at most, {len(named)} are named here and in loras"


def list_tag_notes(fields: Fields, capabilities: Capabilities) -> Iterator[str]:
    """What of the prompts' tags has no effect."""
    if capabilities.plain_prompts:
        return
    prompts = list(dict.fromkeys(fields.prompt))
    tags = [tag for prompt in prompts for tag in PROMPT_TAG.finditer(prompt)]
    unknown = [tag[0] for tag in tags if _find_name(tag, capabilities.loras) is None]
    if unknown:
        yield f"prompt: {_enumerate(unknown)} had no effect; this endpoint has no LoRA of such a name"
    offered = [one for prompt in prompts for one in _list_offered(prompt, capabilities)]
    if several := [one.text for one in offered if one.ignored]:
        yield f"prompt: {_enumerate(several)}: a LoRA has one scale here, that of the denoiser; the rest had no effect"
    if negative := [tag[0] for tag in PROMPT_TAG.finditer(fields.negative_prompt or "")]:
        yield f"negative_prompt: {_enumerate(negative)} had no effect; LoRAs are named in the prompt or in loras"


def uses_default_scale(fields: Fields, capabilities: Capabilities) -> bool:
    """Whether any LoRA of the job brings no scale of its own."""
    given = [one.scale for one in fields.loras or []]
    return None in [*given, *(one.scale for prompt in fields.prompt for one in _list_offered(prompt, capabilities))]


def _list_offered(prompt: str, capabilities: Capabilities) -> list[PromptLora]:
    """The tags of this prompt that name one of the endpoint's LoRAs."""
    if capabilities.plain_prompts:
        return []
    tags = ((tag, _find_name(tag, capabilities.loras)) for tag in PROMPT_TAG.finditer(prompt))
    return [_read(tag, name) for tag, name in tags if name is not None]


def _find_name(tag: re.Match[str], offered: Sequence[str]) -> str | None:
    name = tag["rest"].partition(":")[0].strip().removesuffix(".safetensors")
    if tag["kind"].lower() not in _KINDS:
        return None
    if name in offered:
        return name
    ends = _list_ends(tuple(offered)).get(name, ())
    return ends[0] if len(ends) == 1 else None


@lru_cache(maxsize=1)
def _list_ends(offered: tuple[str, ...]) -> Mapping[str, Sequence[str]]:
    """The last parts of these names -> the names that have them."""
    ends: dict[str, list[str]] = {}
    for one in offered:
        ends.setdefault(one.removesuffix(".safetensors").rpartition("/")[2], []).append(one)
    return ends


def _read(tag: re.Match[str], name: str) -> PromptLora:
    """The tag's scales are the text encoders', the denoiser's if there is a second, and others by name."""
    parts = [part.strip() for part in tag["rest"].split(":")[1:]]
    named: Mapping[str, str] = dict(part.split("=", 1) for part in parts if "=" in part)
    numbers = [part for part in parts if "=" not in part]
    scale = named.get("unet") or (numbers[:2] or [named.get("te")])[-1]
    return PromptLora(tag[0], name, None if scale is None else _to_number(scale), len({*numbers, *named.values()}) > 1)


def _to_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _list_field(fields: Fields, capabilities: Capabilities) -> dict[str, float]:
    """The LoRAs that the field names, and their scales."""
    given = getattr(fields, "loras", None) or []
    return {find_lora(one.name, capabilities): _choose_scale(one.scale, fields) for one in given}


def _choose_scale(scale: float | None, fields: Fields) -> float:
    default: float | None = getattr(fields, "lora_scale", None)
    return scale if scale is not None else 1.0 if default is None else default


def _enumerate(tags: Iterable[str]) -> str:
    texts = list(dict.fromkeys(tag[:80] for tag in tags))
    more = len(texts) - MAX_NAMED
    return ", ".join(texts[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
