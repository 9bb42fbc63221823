"""Jobs whose pictures go to a bucket: the endpoint's own, or the one a job brings; one in trouble costs no picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.helpers.faulty_proxy import Fault, FaultyProxy, in_front_of
from tests.helpers.s3_server import ACCESS_KEY, SECRET_KEY, S3Server, serve

JOB = {"prompt": "a star", "steps": 2, "num_images": 3}


@dataclass
class Scene:
    """A worker whose endpoint has a bucket, behind a proxy, and the bucket that jobs bring."""

    platform: Any
    worker: Any
    ours: S3Server
    proxy: FaultyProxy
    theirs: S3Server

    def told(self, *more: object) -> list[str]:
        """What the log or this holds of a key, a presigned URL or the address of the bucket.

        Not for pictures: four letters of their base64 may spell anything.
        """
        text = self.worker.log() + str(more)
        secrets = (ACCESS_KEY, SECRET_KEY, "Signature=", "AWS4", self.proxy.url)
        return [secret for secret in secrets if secret in text]


@pytest.fixture(scope="module")
def scene(
    open_platform: Any, open_worker: Any, tiny_sd1: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("buckets")
    with serve(folder / "ours") as ours, serve(folder / "theirs") as theirs, in_front_of(ours.url) as proxy:
        owners = {**ours.environment(), "BUCKET_ENDPOINT_URL": proxy.url, "ALLOWED_BUCKET_HOSTS": "127.0.0.1"}
        # With several at once, the SDK does not rest for a second after each.
        env = {"MODEL_NAME": tiny_sd1, "JOBS_AT_ONCE": "4", **owners}
        with open_platform() as platform, open_worker(platform, env=env) as worker:
            yield Scene(platform, worker, ours, proxy, theirs)


@pytest.fixture(autouse=True)
def empty(scene: Scene) -> None:
    """Each test finds both buckets empty."""
    for server in (scene.ours, scene.theirs):
        for path in server.folder.rglob("*.png"):
            path.unlink()


def test_the_endpoints_bucket_and_a_jobs_own(scene: Scene) -> None:
    to_ours = scene.platform.ask(JOB)["output"]
    to_theirs = scene.platform.ask(JOB, s3Config=scene.theirs.s3_config())["output"]
    inline = scene.platform.ask({**JOB, "delivery": "base64"})["output"]

    assert len(scene.ours.objects()) == len(scene.theirs.objects()) == 3
    for output, server in ((to_ours, scene.ours), (to_theirs, scene.theirs)):
        fetched = {httpx.get(url, trust_env=False).content for url in output["images"]}
        assert fetched == set(server.objects().values())
        assert output["image_url"] == output["images"][0]
    assert inline["images"][0].startswith("data:image/png;base64,")
    assert scene.told() == []


def test_a_bucket_that_refuses_costs_no_picture(scene: Scene) -> None:
    wrong = {**scene.theirs.s3_config(), "accessSecret": "wrong-canary"}

    answer = scene.platform.ask(JOB, s3Config=wrong)["output"]
    insisting = scene.platform.ask({**JOB, "delivery": "s3"}, s3Config=wrong)

    assert answer["images"][0].startswith("data:")
    assert "bucket" in answer["warnings"][0]
    assert insisting["error"].startswith("DELIVERY_FAILED: ")
    assert scene.theirs.objects() == {}
    assert "wrong-canary" not in scene.worker.log()


def test_a_bucket_in_trouble_costs_no_picture_and_gets_the_next_jobs(scene: Scene) -> None:
    scene.proxy.faults.append(Fault("/1.png", reset_within=0.5, times=3))
    inline = scene.platform.ask(JOB)
    left = scene.ours.objects()
    scene.proxy.faults.append(Fault("/1.png", status=403, times=1))
    insisting = scene.platform.ask({**JOB, "delivery": "s3"})
    left |= scene.ours.objects()
    stored = scene.platform.ask(JOB)

    assert [image.partition(",")[0] for image in inline["output"]["images"]] == ["data:image/png;base64"] * 3
    assert "in the answer instead" in inline["output"]["warnings"][0]
    assert insisting["error"].startswith("DELIVERY_FAILED: ")
    assert left == {}
    assert stored["output"]["warnings"] == []
    assert [image.partition("?")[0].rpartition("/")[2] for image in stored["output"]["images"]] == [
        "0.png",
        "1.png",
        "2.png",
    ]
    assert {answer["workerId"] for answer in (inline, insisting, stored)} == {scene.worker.id}
    assert scene.told(inline["output"]["warnings"], insisting) == []
