"""Jobs in OpenAI's words -> the same Request as from our own: RunPod's proxy puts them under `openai_route`.

RunPod's proxy hands a POST to `/openai/v1/images/generations` to the worker as `{"openai_route":
"/v1/images/generations", "openai_input": {...}}`, as its own worker-vllm has it. The fields pass through the one parse:
here stands only what OpenAI writes otherwise. What it answers stands in `openai_answers.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from worker.api.parse import parse
from worker.api.validation_errors import summarize
from worker.api.values import Neutral
from worker.errors import InvalidInputError
from worker.images.load import PictureRules
from worker.models.capabilities import Capabilities
from worker.models.editing import MAX_REFERENCES
from worker.output.options import OutputOptions, OutputRules
from worker.request import Request
from worker.text import escape

GENERATIONS, EDITS, MODELS = "/v1/images/generations", "/v1/images/edits", "/v1/models"
_ENVELOPE = ("openai_route", "openai_input")
# Clients have a list of these; a model of another service is another matter.
_MODELS_OF_OPENAI = re.compile(r"dall-e-[23]|(gpt|chatgpt)-image-[a-z0-9.-]{1,40}", re.IGNORECASE)
_EFFORTS = ("low", "medium", "high", "xhigh", "max", "hd")  # of `quality`, which is a file's quality in our own words
_UNUSED = ("user", "safety_identifier")
MAX_NAME, MAX_NAMES = 60, 20  # letters of a field without effect that are told, and fields
_STREAM = {"stream": Neutral(False), "partial_images": Neutral(0)}


def is_openai(job: Mapping[str, Any]) -> bool:
    """Whether a job is asked in OpenAI's words."""
    given = job.get("input")
    return isinstance(given, dict) and any(given.get(name) is not None for name in _ENVELOPE)


def read_route(job: Mapping[str, Any]) -> str:
    """What such a job asks for.

    Raises:
        InvalidInputError: there is no such route.
    """
    route = job["input"].get("openai_route")
    if route in (GENERATIONS, EDITS, MODELS) or (isinstance(route, str) and route.startswith(f"{MODELS}/")):
        return str(route)
    known = f"{GENERATIONS}, {EDITS}, {MODELS} and {MODELS}/NAME"
    raise InvalidInputError([f"openai_route: got {summarize(route)}; this endpoint has {known}"])


def parse_openai(
    job: Mapping[str, Any],
    capabilities: Capabilities,
    picture_rules: PictureRules | None = None,
    output_rules: OutputRules | None = None,
) -> tuple[Request, OutputOptions]:
    """What this job asks of this model, as `parse` says it of one in our own words.

    Raises:
        InvalidInputError: lists every bad field by OpenAI's name for it.
    """
    translation = _Translation(read_route(job), job["input"], capabilities)
    own = {**job, "input": translation.fields}
    try:
        request, output = parse(own, capabilities, picture_rules, output_rules)
    except InvalidInputError as error:
        raise InvalidInputError([translation.name_as_written(problem) for problem in error.problems]) from None
    return replace(request, warnings=(*translation.warnings, *request.warnings)), output


class _Translation:
    """The fields of `openai_input` in words that `parse` knows.

    Attributes:
        fields: in our own words, or OpenAI's where those are taken there.
        warnings: what has no effect.
    """

    def __init__(self, route: str, given: Mapping[str, Any], capabilities: Capabilities) -> None:
        """Translate them.

        Raises:
            InvalidInputError: some of them cannot be meant here.
        """
        beside = [escape(name[:MAX_NAME]) for name in given if name not in _ENVELOPE][:MAX_NAMES]
        self.warnings = [f"{name}: has no effect beside openai_input" for name in beside]
        self._problems: list[str] = []
        self.fields = self._unpack(given.get("openai_input"))
        self._images = "image" if "image" in self.fields else "images"
        self._read_pictures(route)
        self._read_model(capabilities)
        self._read_quality()
        self._read_response_format()
        self._refuse_stream()
        for name in _UNUSED:
            self.fields.pop(name, None)
        if self._problems:
            raise InvalidInputError(self._problems)

    def name_as_written(self, problem: str) -> str:
        """The sentence under the name that the caller wrote: pictures stand in one field there, in two of ours."""
        field, mark, rest = problem.partition(":")
        head, dot, part = field.partition(".")
        return f"{self._images if head in ('image', 'images') else head}{dot}{part}{mark}{rest}"

    def _refuse(self, name: str, value: object, allowed: str) -> None:
        self._problems.append(f"{name}: got {summarize(value)}; {allowed}")

    def _unpack(self, body: object) -> dict[str, Any]:
        """The fields, with those of `extra_body` on top, which clients put there that know OpenAI's alone."""
        if not isinstance(body, dict):
            raise InvalidInputError([f"openai_input: got {summarize(body)}; should be an object of fields"])
        extra = body.get("extra_body")
        if extra is not None and not isinstance(extra, dict):
            self._refuse("extra_body", extra, "should be an object of fields")
        rest = {name: value for name, value in body.items() if name != "extra_body"}
        return {**rest, **extra} if isinstance(extra, dict) else rest

    def _read_pictures(self, route: str) -> None:
        """One picture or several, in `image` or `images`, each as it is or as OpenAI's object of a reference."""
        given = [self.fields.pop(name, None) for name in ("image", "images")]
        listed = [one for value in given for one in _list(value)]
        listed = [] if all(one is None for one in listed) else listed
        if len(listed) > MAX_REFERENCES:
            return self._refuse(self._images, listed, f"at most {MAX_REFERENCES} pictures")
        names = [self._images] if len(listed) == 1 else [f"{self._images}.{i}" for i in range(len(listed))]
        pictures = [self._read_reference(name, one) for name, one in zip(names, listed, strict=True)]
        if pictures:
            self.fields |= {"images": pictures} if len(pictures) > 1 else {"image": pictures[0]}
        elif route == EDITS:
            self._problems.append("image: required, but missing")
        if self.fields.get("mask") is not None:
            self.fields["mask"] = self._read_reference("mask", self.fields["mask"])
            self.fields.setdefault("mask_transparency", "redraw")
        return None

    def _read_reference(self, name: str, value: object) -> object:
        if not isinstance(value, (dict, list)):
            return value
        found = value.get("image_url") if isinstance(value, dict) else None
        if not isinstance(found, str):
            self._refuse(name, value, 'write {"image_url": ...}, or the URL or data URI alone; no files are kept here')
        return found

    def _read_model(self, capabilities: Capabilities) -> None:
        model = self.fields.get("model")
        if isinstance(model, str) and _MODELS_OF_OPENAI.fullmatch(model):
            del self.fields["model"]
            self.warnings.append(f"model: {model} is not here; this endpoint draws with {capabilities.name}")

    def _read_quality(self) -> None:
        quality = self.fields.get("quality")
        if isinstance(quality, str) and quality.lower() in _EFFORTS:
            del self.fields["quality"]
            self.warnings.append(f"quality: {quality} has no effect; num_inference_steps says how long is drawn")

    def _read_response_format(self) -> None:
        """Base64 unless a URL is asked for, as OpenAI's own models of today answer."""
        wanted = self.fields.get("response_format")
        if wanted not in (None, "url", "b64_json"):
            self._refuse("response_format", wanted, "should be url or b64_json")
        elif wanted is None and self.fields.get("delivery") is None:
            self.fields["response_format"] = "b64_json"

    def _refuse_stream(self) -> None:
        for name, nothing in _STREAM.items():
            value = self.fields.pop(name, None)
            if not nothing.asks_nothing(value):
                self._refuse(name, value, "pictures come whole, at the end; leave it out")


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [] if value is None else [value]
