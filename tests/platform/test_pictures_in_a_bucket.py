"""Jobs whose pictures go to a bucket: the endpoint's own, or the one a job brings."""

from pathlib import Path
from typing import Any

import httpx
from s3_server import serve

JOB = {"prompt": "a star", "steps": 2, "num_images": 2}


def test_the_endpoints_bucket_and_a_jobs_own(platform: Any, start_worker: Any, tiny_sd1: str, tmp_path: Path) -> None:
    with serve(tmp_path / "ours") as ours, serve(tmp_path / "theirs") as theirs:
        worker = start_worker(env={"MODEL_NAME": tiny_sd1, "ALLOWED_BUCKET_HOSTS": "127.0.0.1", **ours.environment()})

        to_ours = platform.ask(JOB)["output"]
        to_theirs = platform.ask(JOB, s3Config=theirs.s3_config())["output"]
        inline = platform.ask({**JOB, "delivery": "base64"})["output"]

        assert len(ours.objects()) == len(theirs.objects()) == 2
        for output, server in ((to_ours, ours), (to_theirs, theirs)):
            fetched = {httpx.get(url, trust_env=False).content for url in output["images"]}
            assert fetched == set(server.objects().values())
            assert output["image_url"] == output["images"][0]
        assert inline["images"][0].startswith("data:image/png;base64,")
        assert "Signature" not in worker.log()  # no presigned URL


def test_a_bucket_that_refuses_costs_no_picture(
    platform: Any, start_worker: Any, tiny_sd1: str, tmp_path: Path
) -> None:
    with serve(tmp_path) as server:
        wrong = {**server.environment(), "BUCKET_SECRET_ACCESS_KEY": "wrong-canary"}
        worker = start_worker(env={"MODEL_NAME": tiny_sd1, **wrong})

        answer = platform.ask(JOB)["output"]
        insisting = platform.ask({**JOB, "delivery": "s3"})

        assert answer["images"][0].startswith("data:")
        assert "bucket" in answer["warnings"][0]
        assert insisting["error"].startswith("DELIVERY_FAILED: ")
        assert server.objects() == {}
        assert "wrong-canary" not in worker.log()
