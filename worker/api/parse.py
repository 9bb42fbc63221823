"""job -> Request, OutputOptions: a replayed picture's fields laid under the job's own; all checked, all problems told.

What a field may hold stands in `schema.py`, what it may hold here in `validators.py`, what it means in `resolve.py`.
Nothing here knows torch.
"""

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from worker.api.elsewhere import STANDS_FOR, list_ineffective
from worker.api.resolve import resolve, resolve_output
from worker.api.schema import Fields, S3Config, spellings
from worker.api.translate import drop_unasked, translate
from worker.api.validation_errors import (
    Problem,
    describe_errors,
    describe_problem,
    locate,
    name_as_written,
    spell_as_written,
    summarize,
)
from worker.api.validators import RULES
from worker.errors import InvalidInputError
from worker.images.load import PictureRules, read_parameters
from worker.models import schedulers
from worker.models.capabilities import Capabilities
from worker.output import metadata
from worker.output.options import Bucket, OutputOptions, OutputRules
from worker.request import Request, remove_tags

MAX_VALUES = 10_000  # fields, and what stands in them; each takes time to check, and to tell what is wrong with it
_CANONICAL = spellings()
_SHORT = {"high_noise_frac": "high_noise_frac", "refiner_inference_steps": "steps"}  # -> their names in `refiner`


def parse(
    job: Mapping[str, Any],
    capabilities: Capabilities,
    picture_rules: PictureRules | None = None,
    output_rules: OutputRules | None = None,
) -> tuple[Request, OutputOptions]:
    """What this job asks of this model, with the pictures that it brings, and how it wants the result.

    Args:
        picture_rules: which pictures a job may bring.
        output_rules: where its pictures may go.

    Raises:
        InvalidInputError: lists every bad field with what came and what is allowed.
    """
    picture_rules, output_rules = picture_rules or PictureRules(), output_rules or OutputRules()
    given, warnings = _read_input(job, capabilities, picture_rules)
    given, unjoined = _join_sampler(given)
    bucket, problems = _read_bucket(job.get("s3Config"), output_rules)
    fields = _check(given, capabilities, bucket, unjoined + problems, warnings)
    said = len(warnings)  # of these each bears the name that came
    try:
        request, output = resolve(fields, capabilities, picture_rules, warnings), resolve_output(fields, bucket)
    except InvalidInputError as error:
        raise InvalidInputError([name_as_written(problem, given) for problem in error.problems]) from None
    told = (*request.warnings[:said], *(spell_as_written(one, given) for one in request.warnings[said:]))
    return replace(request, warnings=told), output


def _read_input(
    job: Mapping[str, Any], capabilities: Capabilities, rules: PictureRules
) -> tuple[dict[str, Any], list[str]]:
    """The fields that are given, a replayed picture's among them, and what to warn of."""
    given = job.get("input")
    if not isinstance(given, dict):
        raise InvalidInputError([f"input: got {summarize(given)}; should be an object of fields"])
    _check_value_count(given, job.get("s3Config"))
    given = drop_unasked(given)
    nulls = [name for name, value in given.items() if value is None and name in _CANONICAL]
    warnings = [f"{name}: null was read as left out" for name in nulls if name != "seed"]
    if isinstance(given.get("replay"), str):
        given = _apply_replay(given, capabilities, rules, warnings)
        _check_value_count(given)
    return {name: value for name, value in given.items() if name not in nulls}, warnings


def _check_value_count(*given: object) -> None:
    """Count the values in these, however deep, without looking at all of them."""
    found, waiting = 0, list(given)
    while waiting:
        one = waiting.pop()
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        found += len(inner)
        if found > MAX_VALUES:
            raise InvalidInputError([f"input: holds too much; at most {MAX_VALUES:,} values"])
        waiting.extend(inner)


def _apply_replay(
    given: Mapping[str, Any], capabilities: Capabilities, rules: PictureRules, warnings: list[str]
) -> dict[str, Any]:
    """The fields of the picture that `replay` names, with what the job gives beside it on top."""
    made = metadata.parse_metadata(read_parameters("replay", given["replay"], rules).get("parameters", ""))
    if made.model != capabilities.name:
        warnings.append(f"replay: the picture was made by {summarize(made.model)}, this is {capabilities.name}")
    own = _list_meant(given)
    missing = [name for name in made.needs if name not in own and not _stands_in(name, own, made.needs)]
    if missing:
        raise InvalidInputError([f"replay: the picture was made from others; give {', '.join(missing)} beside it"])
    # What was drawn without a negative prompt is again, whatever the endpoint's own.
    fields = {"negative_prompt": None, **made.fields}
    kept = {name: value for name, value in fields.items() if name not in own}
    if "loras" in own and "prompt" in kept and not capabilities.plain_prompts:
        kept["prompt"] = remove_tags(kept["prompt"])  # the job's own LoRAs are in their place
    beside = {name: value for name, value in given.items() if name != "replay"}
    if isinstance(kept.get("refiner"), dict):  # whose short forms cannot stand beside it
        kept["refiner"], beside = _join_refiner(kept["refiner"], beside)
    return {**kept, **beside}


def _stands_in(name: str, own: Set[str], needs: Sequence[str]) -> bool:
    """Whether a picture is given by the other of two fields, either of which may hold a single one."""
    other = {"image": "images", "images": "image"}.get(name)
    return other in own and other not in needs


def _list_meant(given: Mapping[str, Any]) -> set[str]:
    """The fields of our own that these say something of, and these by their own names."""
    own = {_CANONICAL.get(name, name) for name in given}
    settings = given.get("override_settings")
    silent = isinstance(settings, dict) and settings.get("CLIP_stop_at_last_layers") is None
    speaking = own - {"override_settings"} if silent else own
    return own | {meant for name in speaking for meant in STANDS_FOR.get(name, ())}


def _join_refiner(made: dict[str, Any], given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A replayed picture's refiner with the short forms that the job gives, and the job's fields without them."""
    names = {_SHORT[_CANONICAL[name]]: name for name in given if _CANONICAL.get(name) in _SHORT}
    short = {part: given[name] for part, name in names.items() if given[name] is not None}
    kept = {part: value for part, value in made.items() if part != "strength" or "high_noise_frac" not in short}
    return {**kept, **short}, {name: value for name, value in given.items() if name not in names.values()}


def _join_sampler(given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The fields with one name for a sampler and its schedule type, which some clients send apart; what is wrong."""
    sampler, schedule = given.get("sampler_name"), given.get("scheduler")
    if not (isinstance(sampler, str) and isinstance(schedule, str)):
        return given, []
    rest = {name: value for name, value in given.items() if name != "scheduler"}
    joined = schedulers.join_names(sampler, schedule)
    if joined is not None:
        return {**rest, "sampler_name": joined}, []
    allowed = f"beside sampler_name {summarize(sampler)} it is one of {', '.join(schedulers.list_schedules(sampler))}"
    return rest, [f"scheduler: got {summarize(schedule)}; {allowed}"]


def _read_bucket(s3_config: object, rules: OutputRules) -> tuple[Bucket | None, list[str]]:
    """The job's own bucket or else the endpoint's, and what is wrong with the job's."""
    if s3_config is None:
        return rules.bucket, []
    try:
        config = S3Config.model_validate(s3_config)
        bucket = rules.admit_bucket(config.endpointUrl, config.bucketName, config.accessId, config.accessSecret)
    except ValidationError as error:
        return rules.bucket, [_describe_bucket(detail) for detail in error.errors()]
    except InvalidInputError as error:
        return rules.bucket, [str(error)]
    return bucket, []


def _describe_bucket(detail: ErrorDetails) -> str:
    """What is wrong with the job's bucket, without what came: it may be a secret."""
    if not detail["loc"]:
        return "s3Config: should be an object with accessId, accessSecret and endpointUrl"
    return f"s3Config.{locate(detail)}: {detail['msg']}"


def _check(
    given: Mapping[str, Any],
    capabilities: Capabilities,
    bucket: Bucket | None,
    found: list[str],
    warnings: list[str],
) -> Fields:
    """The fields by their own names, if nothing is wrong with any of them.

    Args:
        found: problems that are known already.
        warnings: what has no effect is added.
    """
    passed: dict[str, Any] = {}
    fields, problems = None, []
    try:
        fields = Fields.model_validate(given, context=passed)
    except ValidationError as error:
        problems += describe_errors(error, given)
    meant = translate(passed, capabilities)
    passed |= meant.values
    broken = [*meant.problems, *_apply_rules(passed, capabilities)]
    if passed.get("delivery") == "s3" and bucket is None:
        nowhere = "neither the endpoint (BUCKET_*) nor the job (s3Config) names a bucket"
        broken.append(Problem("delivery", nowhere))
    problems += [describe_problem(one, given) for one in broken] + found
    if fields is None or problems:
        raise InvalidInputError(problems)
    warnings += [*meant.warnings, *list_ineffective(fields)]
    return _replace(fields, meant.values)


def _replace(fields: Fields, values: Mapping[str, Any]) -> Fields:
    """The fields with these values; None counts as left out."""
    given = (fields.model_fields_set | values.keys()) - {name for name, value in values.items() if value is None}
    return Fields.model_construct(given, **{**dict(fields), **values})


class _FailedFieldError(AttributeError):
    """A rule reads a field that failed."""


class _PassedFields(SimpleNamespace):
    def __getattr__(self, name: str) -> Any:  # called for what is not there
        raise _FailedFieldError(name)


def _apply_rules(passed: Mapping[str, Any], capabilities: Capabilities) -> list[Problem]:
    """What the rules say of the fields that passed; of each field the first problem, as others may follow from it."""
    fields = cast(Fields, _PassedFields(**passed))
    first: dict[str, Problem] = {}
    for rule in RULES:
        with suppress(_FailedFieldError):
            for problem in rule(fields, capabilities):
                first.setdefault(problem.field, problem)
    return list(first.values())
