"""A job may bring its own bucket, in RunPod's shape; what is wrong with it is told without its secrets."""

import pytest
from pydantic import SecretStr

from tests.helpers.asking import ask_output, refusal
from worker.errors import InvalidInputError
from worker.output.address import BucketAddress
from worker.output.options import Bucket, OutputRules

S3 = {
    "accessId": "AKIDCANARY",
    "accessSecret": "secretcanary",
    "bucketName": "pictures",
    "endpointUrl": "https://s3.example.com",
}


def test_the_jobs_own_bucket_stands_beside_the_input_and_wins() -> None:
    mine = Bucket(BucketAddress("https://mine.example.com", "mine"), SecretStr("a"), SecretStr("b"))
    assert ask_output(mine).bucket == mine
    bucket = ask_output(mine, S3).bucket
    assert bucket is not None and (bucket.name, bucket.address.endpoint_url) == ("pictures", "https://s3.example.com")
    assert "canary" not in repr(ask_output(s3=S3)).lower()


@pytest.mark.parametrize("field", S3)
@pytest.mark.parametrize("value", [None, "", 5, ["secretcanary"], {"a": "secretcanary"}])
def test_a_wrong_bucket_is_refused_by_field_without_its_secrets(field: str, value: object) -> None:
    told = refusal(s3={**S3, field: value})
    assert f"s3Config.{field}: " in told
    assert "canary" not in told.lower()


def test_a_missing_field_or_another_shape_of_the_bucket_is_named() -> None:
    for field in S3:
        told = refusal(s3={name: value for name, value in S3.items() if name != field})
        assert f"s3Config.{field}: " in told and "canary" not in told.lower()
    for shape in ("secretcanary", ["secretcanary"], 5, True):
        told = refusal(s3=shape)
        assert told == "s3Config: should be an object with accessId, accessSecret and endpointUrl"
    for address in ("s3.example.com", "file:///secretcanary", "ftp://secretcanary.example.com"):
        told = refusal(s3={**S3, "endpointUrl": address})
        assert "s3Config.endpointUrl: " in told and "canary" not in told.lower()


@pytest.mark.parametrize("beside", [{"bucketName": ""}, {"bucketName": None}, {"bucketName": "pictures"}, {}])
@pytest.mark.parametrize(
    "url", ["https://s3.example.com/pictures", "https://s3.example.com/pictures/", "https://pictures.s3.example.com"]
)
def test_the_url_may_hold_the_bucket(url: str, beside: dict[str, object]) -> None:
    without = {name: value for name, value in S3.items() if name != "bucketName"}
    bucket = ask_output(s3={**without, **beside, "endpointUrl": url}).bucket
    assert bucket is not None and (bucket.name, bucket.address.endpoint_url) == ("pictures", "https://s3.example.com")
    assert bucket.from_job


@pytest.mark.parametrize(
    "url",
    [
        "https://name--usw2-az1--x-s3.s3.us-west-2.amazonaws.com",
        "https://s3.example.com/name--ol-s3",
        "https://s3.example.com/name-s3alias/folder",
        "https://s3.example.com/arn:aws:s3:us-west-2:123456789012:accesspoint:x",
        "https://s3.example.com/a",
        "https://s3.example.com/two%0Alines",
        "https://s3.example.com/pictures/a%0Ab",
        "https://key:secretcanary@s3.example.com/pictures",
        "https://s3.example.com/pictures?secretcanary",
        "https://s3.example.com/pictures#secretcanary",
        "https://s3.example.com:port/pictures",
        "https://[::1/pictures",
        "https:///pictures",
        "https://a@b@s3.example.com/pictures",
        "https://s3.example.com\\@evil.test/pictures",
    ],
)
def test_a_url_that_holds_anything_but_host_and_plain_bucket_is_refused(url: str) -> None:
    told = refusal(s3={**{name: S3[name] for name in S3 if name != "bucketName"}, "endpointUrl": url})
    assert told.startswith("s3Config.endpointUrl: ") and "canary" not in told.lower()


@pytest.mark.parametrize("url", ["https://s3.eu-west-1.amazonaws.com/other", "https://other.s3.amazonaws.com"])
def test_two_names_for_one_bucket_are_refused(url: str) -> None:
    rules = OutputRules()
    with pytest.raises(InvalidInputError, match=r"^s3Config.bucketName: is not the bucket that the URL"):
        rules.admit_bucket(url, "pictures", "id", "key")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://pictures.s3.eu-west-1.amazonaws.com", "pictures.s3.eu-west-1.amazonaws.com"),
        ("https://s3.eu-west-1.amazonaws.com/pictures", "s3.eu-west-1.amazonaws.com"),
        ("https://my.pictures.s3.eu-west-1.amazonaws.com", "s3.eu-west-1.amazonaws.com"),
    ],
)
def test_the_listed_host_is_the_one_that_is_asked(url: str, allowed: str) -> None:
    """Which is not always the one that the job writes: a bucket with a dot in its name is moved to the path."""
    assert OutputRules(bucket_hosts=(allowed,)).admit_bucket(url, None, "id", "key").anywhere
    others = {"pictures.s3.eu-west-1.amazonaws.com", "s3.eu-west-1.amazonaws.com"} - {allowed}
    with pytest.raises(InvalidInputError, match=r"^s3Config.endpointUrl: this endpoint sends pictures to"):
        OutputRules(bucket_hosts=tuple(others)).admit_bucket(url, None, "id", "key")


def test_bad_fields_and_a_bad_bucket_are_told_in_one_answer() -> None:
    told = refusal(s3={}, quality=0)
    assert "quality: got 0; " in told and "s3Config.endpointUrl: " in told


def test_a_host_that_is_not_listed_is_told_beside_the_other_problems() -> None:
    told = refusal(s3={**S3, "endpointUrl": "https://evil.test"}, quality=0)
    assert "quality: got 0; " in told
    assert "s3Config.endpointUrl: this endpoint sends pictures to 127.0.0.1, *.example.com only" in told


def test_a_host_is_compared_with_the_list_in_full() -> None:
    evil = f"{'a' * 60}.{'b' * 7}.example.com.evil.test"
    assert evil[:80].endswith(".example.com")
    assert "s3Config.endpointUrl: " in refusal(s3={**S3, "endpointUrl": f"https://{evil}"})


@pytest.mark.parametrize(
    "name",
    [
        "arn:aws:s3:us-west-2:123456789012:accesspoint:x",
        "arn:aws:s3::123456789012:accesspoint:mfzwi23gnjvgw.mrap",
        "arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-01234567890123456/accesspoint/x",
        "arn:aws:s3-object-lambda:us-west-2:123456789012:accesspoint/x",
        "name--usw2-az1--x-s3",
        "name--ol-s3",
        "name-s3alias",
        "two\nlines",
        "line\n",
        "a/b",
        "..",
        "x" * 64,
    ],
)
def test_only_the_name_of_a_plain_bucket_is_one(name: str) -> None:
    told = refusal(s3={**S3, "bucketName": name})
    assert told.startswith("s3Config.bucketName: ") and name not in told


@pytest.mark.parametrize("field", ["accessId", "accessSecret", "endpointUrl"])
@pytest.mark.parametrize("more", ["x" * 1_000, "\n", "\x00", "\x1b", "\u2028"])
def test_texts_of_a_bucket_are_short_and_without_control_characters(field: str, more: str) -> None:
    assert refusal(s3={**S3, field: S3[field] + more}).startswith(f"s3Config.{field}: ")


def test_s3_without_a_bucket_is_refused() -> None:
    told = refusal(delivery="s3")
    assert told.startswith("delivery: got 's3'; ") or told.startswith("delivery: got 's3', ")
    assert "BUCKET_" in told and "s3Config" in told
    assert ask_output(delivery="s3", s3=S3).delivery == "s3"
