"""With a real worker and the embedded model: what people do with the playground from the first picture on."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import playwright
import pytest
from PIL import Image
from playwright.sync_api import expect

from local_endpoint import EndpointConfig, LocalEndpoint, LocalWorker
from tests.helpers.playground import SLOW_MS, Playground, make_png

ROOT = Path(__file__).parents[2]
SMALL = {"width": 64, "height": 64, "num_inference_steps": 3}
KEY = "local-CANARY"
NODE = Path(playwright.__file__).parent / "driver" / "node"  # which Playwright brings


@pytest.fixture(scope="module")
def endpoint(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEndpoint]:
    """One worker for all these tests."""
    log = tmp_path_factory.mktemp("worker") / "log"
    with (
        LocalEndpoint(EndpointConfig(hold_s=1.0, api_key=KEY)) as endpoint,
        LocalWorker(endpoint, ROOT / "handler.py", cwd=ROOT, log_path=log) as worker,
    ):
        worker.wait_ready()
        yield endpoint


@pytest.fixture
def playground(endpoint: LocalEndpoint, open_context: Callable[..., Any]) -> Playground:
    page = open_context(permissions=["clipboard-read", "clipboard-write"]).new_page()
    return Playground(page).open(f"{endpoint.base_url}/#{KEY}").wait_form()


def inputs(endpoint: LocalEndpoint) -> list[dict[str, Any]]:
    """What was asked of the endpoint, but for what the model can do."""
    jobs = [job.input for job in endpoint.queue.jobs.values()]
    return [job for job in jobs if "capabilities" not in job]


def test_a_prompt_becomes_a_picture_that_survives_a_reload(playground: Playground, endpoint: LocalEndpoint) -> None:
    page = playground.page
    expect(page.locator("#model")).to_contain_text("shapes")
    playground.fill(prompt="a red circle", num_inference_steps=40, width=64, height=64).draw()

    expect(page.locator("#stage .preview img")).to_be_visible(timeout=SLOW_MS)
    expect(page.locator("#stage .state")).to_contain_text("of 40")
    playground.wait_pictures()
    expect(page.locator("#stage .facts")).to_contain_text("64 \u00d7 64 · 40 steps")

    page.reload()
    playground.wait_form()
    expect(playground.kept).to_have_count(1)
    playground.kept.locator(".thumb").click()
    expect(page.locator("#stage figcaption")).to_contain_text("a red circle")
    page.get_by_role("button", name="Use parameters").click()
    expect(playground.control("num_inference_steps")).to_have_value("40")
    assert KEY not in page.url


def test_a_locked_seed_draws_the_same_again(playground: Playground) -> None:
    page = playground.page
    playground.fill(prompt="a blue star", **SMALL).draw()
    first = playground.pixels(playground.wait_pictures())
    page.get_by_role("button", name="Use seed").click()
    seed = playground.control("seed").input_value()
    expect(page.get_by_role("button", name="Seed is locked")).to_have_attribute("aria-pressed", "true")
    playground.draw()
    expect(playground.kept).to_have_count(2, timeout=SLOW_MS)
    again = playground.pixels(playground.wait_pictures())

    assert seed.isdigit() and Image.open(io.BytesIO(first)).tobytes() == Image.open(io.BytesIO(again)).tobytes()
    page.get_by_role("button", name="Seed is locked").click()
    expect(playground.control("seed")).to_have_value("")


def test_a_dropped_picture_is_started_from_and_masked(playground: Playground, endpoint: LocalEndpoint) -> None:
    page = playground.page
    playground.fill(prompt="a green square", **SMALL, num_images=1)
    playground.drop(make_png())
    page.get_by_role("button", name="Start from it").click()
    expect(page.locator("#task")).to_have_text("image to image")
    page.get_by_role("button", name="Paint a mask").click()
    page.get_by_role("button", name="Add rectangle").click()
    page.get_by_role("button", name="Use this mask").click()
    expect(page.locator("#task")).to_have_text("inpainting")
    playground.fill(strength=1).draw()
    drawn = Image.open(io.BytesIO(playground.pixels(playground.wait_pictures()))).convert("RGB")

    job = inputs(endpoint)[-1]
    assert job["image"].startswith("data:image/png") and job["mask"].startswith("data:image/png")
    assert drawn.getpixel((2, 2)) == (255, 0, 0), "outside of the mask it is as it was"
    assert drawn.getpixel((32, 32)) != (255, 0, 0)


def test_a_picture_that_the_worker_made_brings_its_parameters_back(playground: Playground) -> None:
    page = playground.page
    playground.fill(prompt="ein großer Stern 🟥", negative_prompt="Nebel", seed=77, guidance_scale=3.5, **SMALL)
    playground.draw()
    playground.wait_pictures()
    with page.expect_download() as started:
        page.get_by_role("link", name="Save").click()
    made = Path(started.value.path()).read_bytes()
    page.reload()
    playground.wait_form()

    playground.drop(made)
    page.get_by_role("button", name="Use its parameters").click()
    expect(playground.control("prompt")).to_have_value("ein großer Stern 🟥")
    expect(playground.control("negative_prompt")).to_have_value("Nebel")
    expect(playground.control("seed")).to_have_value("77")
    expect(playground.control("guidance_scale")).to_have_value("3.5")
    expect(playground.control("num_inference_steps")).to_have_value("3")


def test_several_jobs_wait_in_a_queue_and_can_be_cancelled(playground: Playground, endpoint: LocalEndpoint) -> None:
    page = playground.page
    playground.fill(prompt="a long one", width=256, height=256, num_inference_steps=500).draw()
    playground.fill(prompt="a short one", **SMALL).draw()
    expect(page.locator("#queue li")).to_have_count(2)
    page.get_by_role("button", name="Show job 1").click()
    expect(page.locator("#stage .state")).to_contain_text("step", timeout=SLOW_MS)
    page.get_by_role("button", name="Cancel job 1").click()
    expect(page.locator("#stage .state")).to_have_text("Cancelled")
    expect(playground.kept).to_have_count(1, timeout=SLOW_MS)

    states = [job.state for job in endpoint.queue.jobs.values() if job.input.get("prompt") == "a long one"]
    assert states == ["CANCELLED"]


def test_a_batch_is_a_grid_of_prompts_and_seeds(playground: Playground, endpoint: LocalEndpoint) -> None:
    page = playground.page
    playground.fill(prompt="a red heart\na blue heart", **SMALL)
    page.get_by_label("Each line of the prompt is one").check()
    page.get_by_label("Seeds").fill("5-6")
    playground.draw()
    grid = page.get_by_role("table", name="2 prompts \u00d7 2 seeds")
    expect(grid.get_by_role("columnheader")).to_have_text(["seed 5", "seed 6"])
    expect(grid.get_by_role("rowheader")).to_have_text(["a red heart", "a blue heart"])
    expect(grid.locator("img")).to_have_count(4, timeout=SLOW_MS)

    asked = [(job["prompt"], job["seed"]) for job in inputs(endpoint)[-4:]]
    assert asked == [(prompt, seed) for prompt in ("a red heart", "a blue heart") for seed in (5, 6)]
    grid.get_by_role("button", name="a blue heart, seed 6").click()
    expect(page.locator("#stage .facts")).to_contain_text("seed 6")


def test_what_the_worker_refuses_is_told_at_its_field(playground: Playground) -> None:
    page = playground.page
    playground.fill(prompt="a star", width=64, height=64, num_inference_steps=501, guidance_scale=3).draw()

    expect(playground.field("num_inference_steps").locator(".problem")).to_contain_text("500", timeout=SLOW_MS)
    expect(playground.control("num_inference_steps")).to_have_attribute("aria-invalid", "true")
    expect(playground.control("num_inference_steps")).to_be_focused()
    expect(playground.control("guidance_scale")).not_to_have_attribute("aria-invalid", "true")
    playground.fill(num_inference_steps=2).draw()
    playground.wait_pictures()
    expect(page.locator("form [aria-invalid=true]")).to_have_count(0)


def test_copied_code_runs_as_it_is_with_a_key_in_the_environment(
    playground: Playground, endpoint: LocalEndpoint, tmp_path: Path
) -> None:
    page, prompt = playground.page, 'it\'s a "star" $HOME `x` \\n é'
    playground.fill(prompt=prompt, seed=3, **SMALL)
    page.get_by_role("button", name="Copy as code").click()
    for language, program in (("curl", "bash"), ("Python", sys.executable), ("JavaScript", NODE)):
        page.get_by_label("Language").select_option(language)
        page.get_by_role("button", name="Copy", exact=True).click()
        expect(page.locator("#snippet-told")).to_have_text(f"Copied as {language}")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert KEY not in copied

        script = tmp_path / "snippet.mjs"
        script.write_text(copied)
        environment = {"PATH": os.environ["PATH"], "RUNPOD_API_KEY": KEY}
        ran = subprocess.run([program, script], env=environment, capture_output=True, text=True, timeout=120)
        assert "COMPLETED" in ran.stdout, ran.stderr
        assert inputs(endpoint)[-1] == {"prompt": prompt, "seed": 3, **SMALL}
