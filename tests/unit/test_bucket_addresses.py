"""Every documented way to write a bucket leads to that bucket, signed as boto3 signs with the provider's own settings.

What boto3 is given here is what the providers' documents say: endpoint, region, addressing, and the bucket's bare name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from pydantic import SecretStr
from urllib3 import HTTPResponse

from worker.http import Response
from worker.output.address import AddressError, BucketAddress, read_address
from worker.output.bucket import upload
from worker.output.encode import File
from worker.output.options import Bucket

R2 = "0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com"
R2_EU = "0123456789abcdef0123456789abcdef.eu.r2.cloudflarestorage.com"
B2, WASABI = "s3.us-west-004.backblazeb2.com", "s3.eu-central-1.wasabisys.com"
GOOGLE, SPACES = "storage.googleapis.com", "nyc3.digitaloceanspaces.com"
SUPABASE = "abcdefghijklmnopqrst.supabase.co/storage/v1/s3"
SUPABASE_2 = "abcdefghijklmnopqrst.storage.supabase.co/storage/v1/s3"
RUNPOD, OWN = "s3api-eu-ro-1.runpod.io", "files.example.com"


@dataclass(frozen=True)
class Form:
    """A way to write a bucket.

    Attributes:
        url: as BUCKET_ENDPOINT_URL or endpointUrl.
        where: the URL of all that is in the bucket's folder, without a slash at the end.
        region: that is signed for.
        server: the endpoint that boto3 is given; None for Amazon's, which it knows.
        options: of boto3's `s3` configuration.
        name: as BUCKET_NAME or bucketName.
        bucket: the bucket's name.
        folder: in the bucket.
    """

    url: str
    where: str
    region: str
    server: str | None
    options: Mapping[str, str | bool]
    name: str | None = None
    bucket: str = "pictures"
    folder: str = ""


VIRTUAL, PATH = {"addressing_style": "virtual"}, {"addressing_style": "path"}
FAST: Mapping[str, str | bool] = {**VIRTUAL, "use_accelerate_endpoint": True}


def _amazon(url: str, where: str, region: str, options: Mapping[str, str | bool], **more: str) -> Form:
    return Form(f"https://{url}", f"https://{where}", region, None, options, **more)


def _in_path(url: str, where: str, region: str, server: str, scheme: str = "https", **more: str) -> Form:
    return Form(*(f"{scheme}://{one}" for one in (url, where)), region, f"{scheme}://{server}", PATH, **more)


def _in_host(url: str, where: str, region: str, server: str, scheme: str = "https", **more: str) -> Form:
    return Form(*(f"{scheme}://{one}" for one in (url, where)), region, f"{scheme}://{server}", VIRTUAL, **more)


IRELAND, IN_IRELAND = "s3.eu-west-1.amazonaws.com", "pictures.s3.eu-west-1.amazonaws.com"
SYDNEY, IN_CHINA = "pictures.s3.dualstack.ap-southeast-2.amazonaws.com", "pictures.s3.cn-north-1.amazonaws.com.cn"
ACCELERATED = "s3-accelerate.amazonaws.com"
OREGON, FIPS = "s3-us-west-2.amazonaws.com", "s3-fips.us-gov-west-1.amazonaws.com"
GLOBAL = {"us_east_1_regional_endpoint": "legacy"}
# A certificate's star stands for one label, so that boto3 writes names with dots into the path, too.
DOTTED = {"bucket": "my.own.pictures"}
NAMED, VOLUME = {"name": "pictures"}, {"bucket": "x9y8z7w6v5"}
FORMS = [
    _amazon(IN_IRELAND, IN_IRELAND, "eu-west-1", VIRTUAL),
    _amazon(f"{IN_IRELAND}/", IN_IRELAND, "eu-west-1", VIRTUAL, name="pictures"),
    _amazon(f"{IN_IRELAND}/a/b/", f"{IN_IRELAND}/a/b", "eu-west-1", VIRTUAL, folder="a/b"),
    _amazon(f"{IRELAND}/pictures", f"{IRELAND}/pictures", "eu-west-1", PATH),
    _amazon(IRELAND, f"{IRELAND}/pictures", "eu-west-1", PATH, name="pictures"),
    _amazon(f"{IRELAND}/pictures/a", f"{IRELAND}/pictures/a", "eu-west-1", PATH, name="pictures", folder="a"),
    _amazon(f"my.own.pictures.{IRELAND}", f"{IRELAND}/my.own.pictures", "eu-west-1", {}, **DOTTED),
    _amazon("pictures.s3.amazonaws.com", "pictures.s3.amazonaws.com", "us-east-1", {**VIRTUAL, **GLOBAL}),
    _amazon(SYDNEY, SYDNEY, "ap-southeast-2", {**VIRTUAL, "use_dualstack_endpoint": True}),
    _amazon(IN_CHINA, IN_CHINA, "cn-north-1", VIRTUAL),
    _amazon(f"pictures.{ACCELERATED}", f"pictures.{ACCELERATED}", "us-east-1", FAST),
    _amazon(ACCELERATED, f"pictures.{ACCELERATED}", "us-east-1", FAST, name="pictures"),
    _in_host(f"pictures.{OREGON}", f"pictures.{OREGON}", "us-west-2", OREGON),
    _in_host(f"pictures.{FIPS}", f"pictures.{FIPS}", "us-gov-west-1", FIPS),
    _in_path(f"{R2}/pictures", f"{R2}/pictures", "auto", R2),
    _in_path(R2, f"{R2}/pictures", "auto", R2, name="pictures"),
    _in_path(f"{R2_EU}/pictures", f"{R2_EU}/pictures", "auto", R2_EU),
    _in_path(R2_EU, f"{R2_EU}/pictures", "auto", R2_EU, name="pictures"),
    _in_host(f"pictures.{R2}", f"pictures.{R2}", "auto", R2),
    _in_host(f"pictures.{R2_EU}", f"pictures.{R2_EU}", "auto", R2_EU),
    _in_host(f"pictures.{B2}", f"pictures.{B2}", "us-west-004", B2),
    _in_path(f"{B2}/pictures", f"{B2}/pictures", "us-west-004", B2),
    _in_path(B2, f"{B2}/pictures", "us-west-004", B2, name="pictures"),
    _in_host(f"pictures.{WASABI}", f"pictures.{WASABI}", "eu-central-1", WASABI),
    _in_path(f"{WASABI}/pictures", f"{WASABI}/pictures", "eu-central-1", WASABI),
    _in_path("s3.wasabisys.com/pictures", "s3.wasabisys.com/pictures", "us-east-1", "s3.wasabisys.com"),
    _in_path(f"{GOOGLE}/pictures", f"{GOOGLE}/pictures", "auto", GOOGLE),
    _in_host(f"pictures.{GOOGLE}/a", f"pictures.{GOOGLE}/a", "auto", GOOGLE, folder="a"),
    _in_host(f"pictures.{SPACES}", f"pictures.{SPACES}", "nyc3", SPACES),
    _in_path(SPACES, f"{SPACES}/pictures", "nyc3", SPACES, name="pictures"),
    _in_path(SUPABASE, f"{SUPABASE}/pictures", "auto", SUPABASE, name="pictures"),
    _in_path(f"{SUPABASE_2}/pictures/a", f"{SUPABASE_2}/pictures/a", "auto", SUPABASE_2, folder="a"),
    _in_path(f"{RUNPOD}/x9y8z7w6v5", f"{RUNPOD}/x9y8z7w6v5", "EU-RO-1", RUNPOD, **VOLUME),
    _in_path("s3api-EU-RO-1.runpod.io/", f"{RUNPOD}/x9y8z7w6v5", "EU-RO-1", RUNPOD, name="x9y8z7w6v5", **VOLUME),
    _in_path("minio:9000/pictures", "minio:9000/pictures", "auto", "minio:9000", "http"),
    _in_path("203.0.113.7:9000", "203.0.113.7:9000/pictures", "auto", "203.0.113.7:9000", "http", name="pictures"),
    _in_path("[2001:db8::7]:90/pictures", "[2001:db8::7]:90/pictures", "auto", "[2001:db8::7]:90", "http"),
    _in_path(f"{OWN}/behind/a/proxy", f"{OWN}/behind/a/proxy/pictures", "auto", f"{OWN}/behind/a/proxy", **NAMED),
    _in_path(f"{OWN}/behind/pictures/a", f"{OWN}/behind/pictures/a", "auto", f"{OWN}/behind", folder="a", **NAMED),
    _in_path(f"pictures.{OWN}", f"pictures.{OWN}/pictures", "auto", f"pictures.{OWN}", **NAMED),
    _in_host("pictures.s3.local:9000", "pictures.s3.local:9000", "auto", "s3.local:9000", "http"),
    _in_host(f"pictures.s3.{OWN}/a", f"pictures.s3.{OWN}/a", "auto", f"s3.{OWN}", folder="a", **NAMED),
    _in_path(f"{IRELAND}.{OWN}/pictures", f"{IRELAND}.{OWN}/pictures", "auto", f"{IRELAND}.{OWN}"),
]


def _sign(form: Form, key: str) -> str:
    """What boto3 signs when it is set up by the provider's documents."""
    options = {**form.options}
    s3: Any = boto3.client(
        "s3",
        region_name=form.region,
        endpoint_url=form.server,
        aws_access_key_id="id",
        aws_secret_access_key="key",
        config=Config(
            signature_version="s3v4", use_dualstack_endpoint=options.pop("use_dualstack_endpoint", None), s3=options
        ),
    )
    named = {"Bucket": form.bucket, "Key": key}
    return str(s3.generate_presigned_url("get_object", Params=named, ExpiresIn=7 * 24 * 3600))


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs of all requests, by boto3 or by the worker itself; each is answered well. The clock stands still."""
    urls: list[str] = []
    taken = AWSResponse("", 200, {}, HTTPResponse(BytesIO(b""), preload_content=False))

    def send(session: object, request: Any) -> AWSResponse:
        urls.append(request.url)
        return taken

    def request(method: str, url: object, **_: object) -> Response:
        urls.append(str(url))
        return Response(200, {}, b"", True)

    monkeypatch.setattr("botocore.httpsession.URLLib3Session.send", send)
    monkeypatch.setattr("worker.http.request", request)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_, **__: datetime(2026, 8, 1, 12))
    return urls


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.url} {form.name or ''}".strip())
@pytest.mark.parametrize("from_job", [False, True], ids=["owner's", "job's"])
def test_it_is_the_bucket_that_the_providers_own_settings_lead_to(
    form: Form, from_job: bool, requested: list[str]
) -> None:
    address = read_address(form.url, form.name)
    assert (address.name, address.folder, address.region) == (form.bucket, form.folder, form.region)

    bucket = Bucket(address, SecretStr("id"), SecretStr("key"), from_job=from_job)
    (url,) = upload([File(b"", "png")], bucket, "job")

    key = f"{form.folder}/job/0.png".lstrip("/")
    assert url.partition("?")[0] == f"{form.where}/job/0.png"
    assert url == _sign(form, key)
    assert [one.partition("?")[0] for one in requested] == [f"{form.where}/job/0.png"]
    assert parse_qs(urlsplit(url).query)["X-Amz-Credential"] == [f"id/20260801/{form.region}/s3/aws4_request"]
    assert urlsplit(address.origin)[:2] == urlsplit(url)[:2]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.url} {form.name or ''}".strip())
def test_the_region_that_the_owner_names_counts(form: Form) -> None:
    assert read_address(form.url, form.name, "elsewhere-1").region == "elsewhere-1"


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.eu-west-1.amazonaws.com",
        "https://s3.amazonaws.com/",
        "https://s3-accelerate.amazonaws.com",
        f"https://{R2}",
        f"https://{R2_EU}/",
        f"https://{B2}",
        f"https://{WASABI}",
        "https://s3.wasabisys.com",
        f"https://{GOOGLE}",
        f"https://{SPACES}",
        f"https://{SUPABASE}",
        f"https://{SUPABASE}/",
        "https://s3api-eu-ro-1.runpod.io/",
        "http://minio:9000",
        "https://s3.example.com",
        "https://pictures.example.com",
    ],
)
def test_a_server_alone_is_no_bucket(url: str) -> None:
    with pytest.raises(AddressError, match="names no bucket") as caught:
        read_address(url)
    assert caught.value.part == "name"


@pytest.mark.parametrize(
    "url",
    ["https://other.s3.eu-west-1.amazonaws.com", f"https://{R2}/other", f"https://{SUPABASE}/other/pictures"],
)
def test_two_names_are_one_too_many(url: str) -> None:
    with pytest.raises(AddressError, match="is not the bucket") as caught:
        read_address(url, "pictures")
    assert caught.value.part == "name"


def test_a_folder_is_kept_as_it_is_written() -> None:
    address = read_address("https://s3.example.com/pictures/a%20b/%C3%A9//c/")
    assert address == BucketAddress("https://s3.example.com", "pictures", folder="a b/é/c")


def test_the_urls_in_the_documentation_are_read_as_it_says() -> None:
    text = (Path(__file__).parents[2] / "docs" / "requests.md").read_text()
    lines = text.partition("## Pictures in a bucket")[2].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]
    read = [(read_address(url), signed) for _, urls, signed in rows for url in re.findall("`(http[^`]+)`", urls)]
    assert {address.name for address, _ in read} == {"pictures", "VOLUME_ID"} and len(read) > 9
    for address, signed in read:
        assert (address.region == "auto") == signed.startswith("auto"), address
