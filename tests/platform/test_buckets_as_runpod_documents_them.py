"""A URL with the bucket in its host or path, and two keys, are a bucket; an unclear one does not stop the worker."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, lead_here, serve

WORKER = Path(__file__).with_name("loopback_worker.py")
JOB = {"prompt": "a star", "steps": 2}


def _variables(url: str) -> dict[str, str]:
    """The three that RunPod's own image workers take."""
    keys = {"BUCKET_ACCESS_KEY_ID": ACCESS_KEY, "BUCKET_SECRET_ACCESS_KEY": SECRET_KEY}
    return {"BUCKET_ENDPOINT_URL": url, **keys}


def _s3_config(url: str) -> dict[str, str]:
    """A job's own, without a name beside the URL."""
    return {"accessId": ACCESS_KEY, "accessSecret": SECRET_KEY, "endpointUrl": url}


@dataclass(frozen=True)
class Scene:
    """A worker whose endpoint's bucket is named in the host, and another server that takes names in the path."""

    platform: Any
    in_host: S3Server
    in_path: S3Server


@pytest.fixture(scope="module")
def scene(
    open_platform: Any, open_worker: Any, tiny_sd1: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("buckets")
    with lead_here(), serve(folder / "a", in_host=True) as in_host, serve(folder / "b") as in_path:
        hosts = {"ALLOWED_BUCKET_HOSTS": "127.0.0.1, *.loopback.test", "MODEL_NAME": tiny_sd1}
        env = {**_variables(f"{in_host.url_of()}/daily"), **hosts}
        with open_platform() as platform, open_worker(platform, WORKER, env=env):
            yield Scene(platform, in_host, in_path)


def _check_delivered(output: dict[str, Any], server: S3Server, folder: str) -> None:
    """Check that the one picture is there, in this folder, and behind the URL."""
    (key,) = server.objects()
    assert key.startswith(folder) and key.endswith("/0.png") and key.count("/") == folder.count("/") + 1
    assert httpx.get(output["image_url"], trust_env=False).content == server.objects()[key]
    assert output["warnings"] == []
    (server.folder / key).unlink()


def test_the_endpoints_bucket_is_the_one_in_the_urls_host(scene: Scene) -> None:
    answer = scene.platform.ask({**JOB, "delivery": "s3"})
    _check_delivered(answer["output"], scene.in_host, "pictures/daily/")


def test_a_jobs_bucket_is_the_one_in_the_urls_path_or_host(scene: Scene) -> None:
    in_path = scene.platform.ask(JOB, s3Config=_s3_config(f"{scene.in_path.url}/pictures/a/b"))
    _check_delivered(in_path["output"], scene.in_path, "pictures/a/b/")
    in_host = scene.platform.ask(JOB, s3Config={**_s3_config(scene.in_host.url_of()), "bucketName": "pictures"})
    _check_delivered(in_host["output"], scene.in_host, "pictures/")


def test_a_bucket_that_cannot_be_found_is_told_once_and_pictures_are_in_the_answer(
    platform: Any, start_worker: Any, tiny_sd1: str
) -> None:
    env = {**_variables("https://s3.eu-west-1.amazonaws.com"), "MODEL_NAME": tiny_sd1, "MAX_PIXEL": "canary"}
    worker = start_worker(env=env)

    answers = [platform.ask(JOB)["output"] for _ in range(2)]
    insisting = platform.ask({**JOB, "delivery": "s3"})

    assert all(answer["image_url"].startswith("data:image/png;base64,") for answer in answers)
    (field,) = insisting["output"]["fields"]
    assert (insisting["output"]["code"], field["field"]) == ("INVALID_INPUT", "delivery")
    log = worker.log()
    (said,) = [line for line in log.splitlines() if "BUCKET_" in line and '"WARN"' in line]
    assert "BUCKET_NAME: is missing" in said
    assert log.count("MAX_PIXEL is not a setting; did you mean MAX_PIXELS?") == 1
    assert "canary" not in log and ACCESS_KEY not in log and SECRET_KEY not in log
