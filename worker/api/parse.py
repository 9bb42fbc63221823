"""job -> Request: a replayed picture's fields laid under the job's own, the table of fields applied, all problems told.

The table is in `fields.py`, what its fields mean for this model in `choices.py`. Nothing here knows torch.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr, ValidationError

from worker.api.nested_fields import S3Config
from worker.api.resolve import Choices, resolve_output
from worker.api.schema import Fields, spellings
from worker.api.validation_errors import explain, shown, where
from worker.errors import InvalidInput
from worker.http import host_of, is_listed
from worker.images.load import InputRules, read_parameters
from worker.models.capabilities import Model
from worker.output import metadata as recipe
from worker.output.options import Bucket, OutputOptions
from worker.request import Request

MOST_VALUES = 10_000  # fields, and what stands in them; each takes time to check, and to tell what is wrong with it
_CANONICAL = spellings()
_SHORT = {"high_noise_frac": "high_noise_frac", "refiner_inference_steps": "steps"}  # -> their names in `refiner`


def parse(
    job: Mapping[str, Any], model: Model, bucket: Bucket | None = None, rules: InputRules | None = None
) -> tuple[Request, OutputOptions]:
    """What this job asks of this model, with the pictures that it brings, and how it wants the result.

    Args:
        bucket: the endpoint's own, for jobs that bring none.
        rules: which pictures a job may bring.

    Raises:
        InvalidInput: lists every bad field with what came and what is allowed.
    """
    given = job.get("input")
    if not isinstance(given, dict):
        raise InvalidInput([f"input: got {shown(given)}; should be an object of fields"])
    _insist_on_few_values(given, job.get("s3Config"))
    rules = rules or InputRules()
    warnings: list[str] = []
    if isinstance(given.get("replay"), str):
        given = _replayed(given, model, rules, warnings)
        _insist_on_few_values(given)
    nulls = [name for name, value in given.items() if value is None and name in _CANONICAL]
    warnings += [f"{name}: null was read as left out" for name in nulls if name != "seed"]
    present = {name: value for name, value in given.items() if name not in nulls}
    problems: list[str] = []
    fields = None
    try:
        fields = Fields.model_validate(present, context=model)
    except ValidationError as error:
        problems += explain(error, present)
    try:
        bucket = _bucket(job.get("s3Config"), rules) or bucket
    except ValidationError as error:
        problems += [f"s3Config.{where(detail)}: {detail['msg']}" for detail in error.errors()]
    except InvalidInput as error:
        problems.append(str(error))
    if fields is not None and fields.delivery == "s3" and bucket is None:
        problems.append("delivery: got 's3', but neither the endpoint (BUCKET_*) nor the job (s3Config) names a bucket")
    if fields is None or problems:
        raise InvalidInput(problems)
    return Choices(fields, model, rules, warnings).request(), resolve_output(fields, bucket)


def _insist_on_few_values(*given: object) -> None:
    """Count the values in these, however deep, without looking at all of them."""
    found, waiting = 0, list(given)
    while waiting:
        one = waiting.pop()
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        found += len(inner)
        if found > MOST_VALUES:
            raise InvalidInput([f"input: holds too much; at most {MOST_VALUES:,} values"])
        waiting.extend(inner)


def _replayed(given: Mapping[str, Any], model: Model, rules: InputRules, warnings: list[str]) -> dict[str, Any]:
    """The fields of the picture that `replay` names, with what the job gives beside it on top."""
    again = recipe.read(read_parameters("replay", given["replay"], rules).get("parameters", ""))
    if again.model != model.name:
        warnings.append(f"replay: the picture was made by {shown(again.model)}, this is {model.name}")
    own = {_CANONICAL.get(name, name) for name in given}
    missing = [name for name in again.needs if name not in own]
    if missing:
        raise InvalidInput([f"replay: the picture was made from others; give {', '.join(missing)} beside it"])
    kept = {name: value for name, value in again.fields.items() if name not in own}
    beside = {name: value for name, value in given.items() if name != "replay"}
    if isinstance(kept.get("refiner"), dict):  # whose short forms cannot stand beside it
        short = {part: beside.pop(name) for name, part in _SHORT.items() if beside.get(name) is not None}
        kept["refiner"] = {**kept["refiner"], **short}
    return {**kept, **beside}


def _bucket(s3_config: object, rules: InputRules) -> Bucket | None:
    if s3_config is None:
        return None
    given = S3Config.model_validate(s3_config)
    host = host_of(given.endpointUrl)
    listed = any(is_listed(host or "", one) for one in rules.bucket_hosts)
    if rules.bucket_hosts and not listed:
        raise InvalidInput(
            [f"s3Config.endpointUrl: this endpoint sends pictures to {', '.join(rules.bucket_hosts)} only"]
        )
    keys = SecretStr(given.accessId), SecretStr(given.accessSecret)
    return Bucket(given.endpointUrl, given.bucketName, *keys, anywhere=listed, from_job=True)
