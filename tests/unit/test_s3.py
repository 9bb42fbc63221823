"""Pictures in a bucket: a real S3 server takes them, and anyone with the presigned URLs gets the same bytes back.

When it does not take them nothing half-delivered stays, and nobody is told a secret.
"""

import logging
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from pydantic import SecretStr

from tests.helpers.asking import ask_output
from tests.helpers.delivering import deliver_files
from tests.helpers.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, lead_here, serve
from worker.api.response import write_failure
from worker.errors import DeliveryError, ResultTooLargeError
from worker.output import bucket as bucket_module
from worker.output.address import BucketAddress, read_address
from worker.output.bucket import upload
from worker.output.delivery import Delivery
from worker.output.encode import File
from worker.output.options import Bucket

FILES = [File(b"\x89PNG" + bytes(range(256)), "png"), File(b"jpeg" * 99, "jpeg"), File(b"webp" * 9, "webp")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server with the bucket "pictures", which the tests of this file share."""
    with serve(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between tries."""
    monkeypatch.setattr(bucket_module, "MAX_RETRY_PAUSE_S", 0)


@pytest.fixture
def refusing(free_port: int) -> Bucket:
    """A bucket at an address where nobody listens."""
    address = BucketAddress(f"http://127.0.0.1:{free_port}", "pictures")
    return Bucket(address, SecretStr(ACCESS_KEY), SecretStr(SECRET_KEY))


def _deliver(bucket: Bucket, delivery: str, limit: int = 10_000_000, files: Sequence[File] = FILES) -> dict[str, Any]:
    output = ask_output(bucket, delivery=delivery)
    return deliver_files(files, Delivery("job-2", False, output, limit, None))


def _get(url: str) -> httpx.Response:
    with httpx.Client(trust_env=False, verify=False) as http:  # no certificates are read for plain HTTP
        return http.get(url)


def _no_secret_in(*texts: str) -> None:
    for text in texts:
        assert ACCESS_KEY not in text and SECRET_KEY not in text and "wrong-canary" not in text


def test_the_presigned_urls_give_the_same_bytes_and_type(server: S3Server) -> None:
    urls = upload(FILES, server.bucket(), "job-1")
    for url, file in zip(urls, FILES, strict=True):
        answer = _get(url)
        assert (answer.status_code, answer.content) == (200, file.data)
        assert answer.headers["content-type"] == file.mime_type
        assert SECRET_KEY not in url
    assert [server.objects()[f"pictures/job-1/{index}.{file.extension}"] for index, file in enumerate(FILES)] == [
        file.data for file in FILES
    ]


def test_a_presigned_url_is_good_for_that_picture_only(server: S3Server) -> None:
    one, other, _ = upload(FILES, server.bucket(), "job-1")
    assert _get(one.partition("?")[0]).status_code in (400, 401, 403)
    assert _get(one.replace("0.png", "1.jpeg")).status_code == 403
    assert one != other


@pytest.mark.parametrize("job_id", ["../../escape", "a/b c", "日本", ".", "..", "x" * 2_000])
def test_any_job_id_stays_inside_the_bucket(server: S3Server, job_id: str) -> None:
    (url,) = upload(FILES[:1], server.bucket(), job_id)
    assert _get(url).content == FILES[0].data
    assert all(name.startswith("pictures/") for name in server.objects())
    assert {path.name for path in server.folder.iterdir()} == {"pictures"}


@pytest.mark.parametrize("delivery", ["auto", "s3"])
def test_a_job_with_a_bucket_is_answered_with_urls(server: S3Server, delivery: str) -> None:
    answer = _deliver(server.bucket(), delivery, limit=5_000)
    assert [_get(url).content for url in answer["images"]] == [file.data for file in FILES]
    assert answer["image_url"] == answer["images"][0]
    assert answer["warnings"] == [] and answer["seeds"] == [1, 2, 3]


def test_the_jobs_own_bucket_is_used(server: S3Server, refusing: Bucket) -> None:
    output = ask_output(refusing, server.s3_config())
    answer = deliver_files(FILES, Delivery("own", False, output, 10_000_000, None))
    assert _get(answer["images"][2]).content == FILES[2].data


def test_base64_stays_out_of_the_bucket_while_it_fits(server: S3Server) -> None:
    before = server.objects()
    answer = _deliver(server.bucket(), "base64")
    assert answer["images"][0].startswith("data:image/png;base64,") and answer["warnings"] == []
    assert server.objects() == before


def test_base64_over_the_limit_goes_to_the_bucket_with_a_warning(server: S3Server) -> None:
    answer = _deliver(server.bucket(), "base64", limit=1_000, files=[File(b"large" * 1_000, "png")])
    assert _get(answer["images"][0]).content == b"large" * 1_000
    (warning,) = answer["warnings"]
    assert "base64" in warning and "bucket" in warning


@pytest.fixture(params=["wrong secret", "missing bucket", "refused connection"])
def broken(request: pytest.FixtureRequest, server: S3Server, refusing: Bucket) -> Bucket:
    """A bucket that takes nothing."""
    return {
        "wrong secret": server.bucket(secret="wrong-canary"),
        "missing bucket": server.bucket("no-such-bucket"),
        "refused connection": refusing,
    }[request.param]


def test_a_job_that_insists_on_s3_fails_with_a_reason(
    server: S3Server, broken: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    before = server.objects()
    with caplog.at_level(logging.DEBUG, "worker"), pytest.raises(DeliveryError) as caught:
        _deliver(broken, "s3")
    answer = write_failure(caught.value)
    assert answer["code"] == "DELIVERY_FAILED" and broken.name in answer["error"]
    assert "refresh_worker" not in answer
    assert server.objects() == before
    _no_secret_in(str(answer), caplog.text)


def test_a_job_that_leaves_it_open_gets_base64_and_a_warning(
    server: S3Server, broken: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    before = server.objects()
    with caplog.at_level(logging.DEBUG, "worker"):
        answer = _deliver(broken, "auto")
    assert [image.partition(",")[0] for image in answer["images"]] == [
        f"data:{file.mime_type};base64" for file in FILES
    ]
    (warning,) = answer["warnings"]
    assert broken.name in warning
    assert server.objects() == before
    _no_secret_in(warning, caplog.text)


def test_a_broken_bucket_and_pictures_that_do_not_fit_are_a_clear_error(broken: Bucket) -> None:
    large = [File(b"large" * 1_000, "png")]
    for delivery in ("auto", "base64"):
        with pytest.raises((ResultTooLargeError, DeliveryError)) as caught:
            _deliver(broken, delivery, limit=1_000, files=large)
        _no_secret_in(str(caught.value))


def test_what_was_stored_before_a_failure_is_removed_again(server: S3Server) -> None:
    """A folder stands where the second picture would go, so the server takes only the first."""
    (server.folder / "pictures" / "half" / "1.jpeg").mkdir(parents=True)
    (server.folder / "pictures" / "half" / "1.jpeg" / "older").write_bytes(b"in the way")
    before = server.objects()
    with pytest.raises(DeliveryError):
        upload(FILES, server.bucket(), "half")
    assert server.objects() == before


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a b", "http://exa mple.com:x"])
def test_an_address_that_is_none_is_a_delivery_failure(url: str) -> None:
    bucket = Bucket(BucketAddress(url, "pictures"), SecretStr(ACCESS_KEY), SecretStr(SECRET_KEY))
    with pytest.raises(DeliveryError) as caught:
        upload(FILES, bucket, "job")
    _no_secret_in(str(caught.value))


@pytest.mark.parametrize("name", ["", "a b", "../up", "UPPER case", "x" * 300, "a/b"])
def test_a_bucket_name_that_cannot_be_one_is_a_delivery_failure(server: S3Server, name: str) -> None:
    before = server.objects()
    with pytest.raises(DeliveryError):
        upload(FILES, server.bucket(name), "job")
    assert server.objects() == before


def test_a_bucket_in_a_folder_of_the_test_can_be_looked_into(tmp_path: Path) -> None:
    """The helper itself: another server is another world."""
    with serve(tmp_path, "other") as mine:
        upload(FILES[:1], mine.bucket("other"), "job")
        assert mine.objects() == {"other/job/0.png": FILES[0].data}


@pytest.fixture(params=["path", "host"], scope="module")
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, str]]:
    """A server, and the URL of its bucket in the only way of writing it that this server takes."""
    in_host = request.param == "host"
    with lead_here(), serve(tmp_path_factory.mktemp("s3"), in_host=in_host) as server:
        yield server, server.url_of() if in_host else f"{server.url}/pictures"


@pytest.mark.parametrize("folder", ["", "/", "/a", "/a/b c/"])
@pytest.mark.parametrize("name", [None, "pictures"])
@pytest.mark.parametrize("from_job", [False, True], ids=["owner's", "job's"])
def test_a_url_with_the_bucket_in_it_is_enough(
    url: tuple[S3Server, str], folder: str, name: str | None, from_job: bool
) -> None:
    server, written = url
    for path in server.folder.glob("pictures/*"):
        shutil.rmtree(path)
    address = read_address(written + folder, name)
    urls = upload(FILES, Bucket(address, SecretStr(ACCESS_KEY), SecretStr(SECRET_KEY), from_job=from_job), "job")
    assert [_get(one).content for one in urls] == [file.data for file in FILES]
    prefix = "/".join(filter(None, ("pictures", folder.strip("/"), "job")))
    assert server.objects().keys() == {f"{prefix}/{index}.{file.extension}" for index, file in enumerate(FILES)}


class StrictServer(ThreadingHTTPServer):
    """Takes what is signed for one region, and names that region to all others, in one of the ways of Amazon's servers.

    Attributes:
        regions: that requests were signed for, in order.
    """

    def __init__(self, code: str, region: str) -> None:
        self.regions: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # it says that it waits for a body; else boto3 sends none for a second

            def log_message(self, *_: object) -> None:
                """To nobody."""

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                query = parse_qs(urlsplit(self.path).query).get("X-Amz-Credential", [""])
                signed = f"{self.headers['Authorization']} Credential={query[0]}"
                server.regions.append(re.findall(r"Credential=\w+/\d+/([^/]*)/s3", signed)[0])
                taken = server.regions[-1] == region
                body = b"" if taken else f"<Error><Code>{code}</Code><Region>{region}</Region></Error>".encode()
                self.send_response(200 if taken else 301 if code == "PermanentRedirect" else 400)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.mark.parametrize("code", ["AuthorizationHeaderMalformed", "PermanentRedirect"])
@pytest.mark.parametrize("from_job", [False, True], ids=["owner's", "job's"])
def test_a_server_that_names_its_region_is_signed_for_it_from_then_on(code: str, from_job: bool) -> None:
    with StrictServer(code, "eu-west-7") as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        address = read_address(f"http://127.0.0.1:{server.server_port}/pictures")
        urls = upload(FILES, Bucket(address, SecretStr(ACCESS_KEY), SecretStr(SECRET_KEY), from_job=from_job), "job")
        server.shutdown()
    assert server.regions == ["auto", *["eu-west-7"] * len(FILES)]
    assert all("%2Feu-west-7%2Fs3%2F" in one for one in urls)


@pytest.mark.parametrize("from_job", [False, True], ids=["owner's", "job's"])
def test_a_server_that_is_signed_for_its_region_is_asked_once_a_picture(from_job: bool) -> None:
    with StrictServer("SignatureDoesNotMatch", "eu-west-7") as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        address = read_address(f"http://127.0.0.1:{server.server_port}/pictures", region="eu-west-7")
        upload(FILES, Bucket(address, SecretStr(ACCESS_KEY), SecretStr(SECRET_KEY), from_job=from_job), "job")
        server.shutdown()
    assert server.regions == ["eu-west-7"] * len(FILES)
