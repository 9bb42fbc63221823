"""job -> Request: a replayed picture's fields laid under the job's own, the table of fields applied, all problems told.

The table is in `fields.py`, what its fields mean for this model in `choices.py`. Nothing here knows torch.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr, ValidationError

from worker.api.nested_fields import S3Config
from worker.api.resolve import Resolver, resolve_output
from worker.api.schema import Fields, spellings
from worker.api.validation_errors import describe_problems, location, summarize
from worker.errors import InvalidInputError
from worker.http import host_of, is_listed
from worker.images.load import PictureRules, read_parameters
from worker.models.capabilities import Capabilities
from worker.output import metadata as recipe
from worker.output.options import Bucket, OutputOptions
from worker.request import Request

MAX_VALUES = 10_000  # fields, and what stands in them; each takes time to check, and to tell what is wrong with it
_CANONICAL = spellings()
_SHORT = {"high_noise_frac": "high_noise_frac", "refiner_inference_steps": "steps"}  # -> their names in `refiner`


def parse(
    job: Mapping[str, Any], model: Capabilities, bucket: Bucket | None = None, rules: PictureRules | None = None
) -> tuple[Request, OutputOptions]:
    """What this job asks of this model, with the pictures that it brings, and how it wants the result.

    Args:
        bucket: the endpoint's own, for jobs that bring none.
        rules: which pictures a job may bring.

    Raises:
        InvalidInputError: lists every bad field with what came and what is allowed.
    """
    given = job.get("input")
    if not isinstance(given, dict):
        raise InvalidInputError([f"input: got {summarize(given)}; should be an object of fields"])
    _check_value_count(given, job.get("s3Config"))
    rules = rules or PictureRules()
    warnings: list[str] = []
    if isinstance(given.get("replay"), str):
        given = _apply_replay(given, model, rules, warnings)
        _check_value_count(given)
    nulls = [name for name, value in given.items() if value is None and name in _CANONICAL]
    warnings += [f"{name}: null was read as left out" for name in nulls if name != "seed"]
    present = {name: value for name, value in given.items() if name not in nulls}
    problems: list[str] = []
    fields = None
    try:
        fields = Fields.model_validate(present, context=model)
    except ValidationError as error:
        problems += describe_problems(error, present)
    try:
        bucket = _bucket(job.get("s3Config"), rules) or bucket
    except ValidationError as error:
        problems += [f"s3Config.{location(detail)}: {detail['msg']}" for detail in error.errors()]
    except InvalidInputError as error:
        problems.append(str(error))
    if fields is not None and fields.delivery == "s3" and bucket is None:
        problems.append("delivery: got 's3', but neither the endpoint (BUCKET_*) nor the job (s3Config) names a bucket")
    if fields is None or problems:
        raise InvalidInputError(problems)
    return Resolver(fields, model, rules, warnings).request(), resolve_output(fields, bucket)


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
    given: Mapping[str, Any], model: Capabilities, rules: PictureRules, warnings: list[str]
) -> dict[str, Any]:
    """The fields of the picture that `replay` names, with what the job gives beside it on top."""
    again = recipe.read(read_parameters("replay", given["replay"], rules).get("parameters", ""))
    if again.model != model.name:
        warnings.append(f"replay: the picture was made by {summarize(again.model)}, this is {model.name}")
    own = {_CANONICAL.get(name, name) for name in given}
    missing = [name for name in again.needs if name not in own]
    if missing:
        raise InvalidInputError([f"replay: the picture was made from others; give {', '.join(missing)} beside it"])
    kept = {name: value for name, value in again.fields.items() if name not in own}
    beside = {name: value for name, value in given.items() if name != "replay"}
    if isinstance(kept.get("refiner"), dict):  # whose short forms cannot stand beside it
        short = {part: beside.pop(name) for name, part in _SHORT.items() if beside.get(name) is not None}
        kept["refiner"] = {**kept["refiner"], **short}
    return {**kept, **beside}


def _bucket(s3_config: object, rules: PictureRules) -> Bucket | None:
    if s3_config is None:
        return None
    given = S3Config.model_validate(s3_config)
    host = host_of(given.endpointUrl)
    listed = any(is_listed(host or "", one) for one in rules.bucket_hosts)
    if rules.bucket_hosts and not listed:
        raise InvalidInputError(
            [f"s3Config.endpointUrl: this endpoint sends pictures to {', '.join(rules.bucket_hosts)} only"]
        )
    keys = SecretStr(given.accessId), SecretStr(given.accessSecret)
    return Bucket(given.endpointUrl, given.bucketName, *keys, anywhere=listed, from_job=True)
