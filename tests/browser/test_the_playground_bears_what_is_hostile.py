"""A page that is told nonsense, or finds no room to keep things, goes on, and so it does when it is opened again."""

import io
import json
from functools import partial
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from playwright.sync_api import Route, expect

from local_endpoint import LocalEndpoint
from tests.browser.conftest import Open, connect
from tests.helpers.deployed_endpoint import ID, DeployedEndpoint, completed
from tests.helpers.playground import Playground, data_uri, make_png

PROMPT = {"name": "prompt", "type": "string"}
HOSTILE_FIELDS: dict[str, list[Any]] = {
    "parts that are nothing": [
        {"name": "hires", "type": "object", "parts": [{"name": "x", "type": "object", "parts": [None]}]}
    ],
    "names of every object": [{"name": name, "type": "object", "many": True} for name in ("constructor", "__proto__")],
    "a number for the picture": [
        {"name": name, "type": "integer", "default": 3} for name in ("image", "images", "mask")
    ],
    "a switch for the picture": [
        {"name": name, "type": "boolean", "default": True} for name in ("image", "images", "mask", "strength", "seed")
    ],
    "an object for the size": [
        {"name": name, "type": "object"} for name in ("width", "height", "num_inference_steps", "scheduler", "prompt")
    ],
}


def tell(deployed: DeployedEndpoint, capabilities: Any) -> None:
    """From now on the worker says that its model can do this."""
    deployed._statuses["told"] = completed({"capabilities": capabilities})
    take = deployed._take
    deployed._take = lambda job: {"id": "told", "status": "IN_QUEUE"} if "capabilities" in job else take(job)  # type: ignore[method-assign]


def answer_all(playground: Playground, body: str) -> None:
    """From now on every call of RunPod's host is answered this text."""
    headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}
    fulfill = partial(Route.fulfill, headers=headers, content_type="application/json", body=body)
    playground.page.context.route("https://api.runpod.ai/**", lambda route: fulfill(route))


@pytest.mark.parametrize("name", HOSTILE_FIELDS)
def test_hostile_capabilities_leave_a_form_now_and_after_a_reload(
    name: str, open_page: Open, deployed: DeployedEndpoint
) -> None:
    tell(deployed, {"model": "m", "fields": [PROMPT, *HOSTILE_FIELDS[name]]})
    playground = open_page()
    connect(playground, remember=True)
    for _ in range(2):
        playground.wait_form()
        playground.page.evaluate("document.querySelectorAll('dialog').forEach((one) => one.close())")
        playground.fill(prompt="a star").draw()
        playground.page.locator("#stage > .state").wait_for()
        playground.page.reload()
        playground.wait_ready()
    assert [job["prompt"] for job in deployed.jobs] == ["a star"] * 2


def test_an_answer_nested_without_end_is_shown_as_far_as_it_can_be(connected: Open, deployed: DeployedEndpoint) -> None:
    playground = connected()
    nested = "[" * 50_000 + "]" * 50_000
    for output in ({"images": [data_uri(make_png())], "warnings": ["NESTED"], "more": "NESTED"}, "NESTED"):
        body = json.dumps({"id": "deep", "status": "COMPLETED", "output": output, "error": "NESTED"})
        answer_all(playground, body.replace('"NESTED"', nested))
        playground.fill(prompt="a star").draw()
        playground.page.locator("#stage > .state").wait_for()
        playground.page.evaluate("document.querySelector('#stage').replaceChildren()")
    expect(playground.kept).to_have_count(1)


NO_ROOM = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };"
NO_STORAGE = """
    const deny = () => { throw new DOMException("denied", "SecurityError"); };
    for (const name of ["localStorage", "sessionStorage", "indexedDB"])
        Object.defineProperty(window, name, { get: deny });
"""


@pytest.mark.parametrize("script", [NO_ROOM, NO_STORAGE], ids=["full", "forbidden"])
def test_a_browser_that_keeps_nothing_draws(
    script: str, deployed: DeployedEndpoint, open_context: Any, served: LocalEndpoint
) -> None:
    context = open_context()
    context.add_init_script(script)
    playground = Playground(context.new_page()).open(served.base_url)
    playground.page.locator("#theme").click()
    expect(playground.page.locator("html")).to_have_attribute("data-theme", "light")
    connect(playground)
    deployed.script = lambda job: completed({"images": [data_uri(make_png())]})
    playground.wait_form().fill(prompt="a star").draw()
    playground.wait_pictures()
    expect(playground.kept).to_have_count(1)


def test_pictures_for_which_there_is_no_room_are_kept_until_the_page_is_left(
    connected: Open, deployed: DeployedEndpoint, served: LocalEndpoint
) -> None:
    playground = connected()
    devtools = playground.page.context.new_cdp_session(playground.page)
    devtools.send("Storage.overrideQuotaForOrigin", {"origin": served.base_url, "quotaSize": 1})
    deployed.script = lambda job: completed({"images": [data_uri(make_png())]})
    for number in (1, 2, 3):
        playground.fill(prompt=f"star {number}").draw()
        expect(playground.page.locator("#stage figcaption .prompt")).to_have_text(f"star {number}")
    expect(playground.kept).to_have_count(3)
    playground.kept.nth(2).locator("button.thumb").click()
    expect(playground.page.locator("#stage figcaption .prompt")).to_have_text("star 1")


def test_endless_parameters_of_a_dropped_picture_are_cut(connected: Open) -> None:
    playground = connected()
    many = {f"field{number}": number for number in range(20_000)}
    for prompt, fields in (("p" * 2_000_000, {}), ("p", many)):
        recipe = json.dumps(json.dumps({"prompt": len(prompt), "model": "m", "fields": fields}))
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("parameters", f"{prompt}, Recipe: {recipe}")
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=chunks)
        playground.drop(buffer.getvalue())
        dialog = playground.page.locator("#dropped-dialog")
        expect(dialog).to_be_visible()
        assert len(dialog.inner_text()) < 5_000
        replay = playground.page.locator("#dropped-replay")
        if replay.is_visible():
            replay.click()
            assert len(playground.page.locator("#form-error").inner_text()) < 5_000
        else:
            playground.page.locator("#dropped-leave").click()


def test_a_visit_to_the_local_endpoint_forgets_no_deployed_one(open_page: Open, served: LocalEndpoint) -> None:
    playground = open_page()
    connect(playground, remember=True)
    playground.wait_form()
    context = playground.page.context
    other = Playground(context.new_page()).open(f"{served.base_url}/#local")
    other.page.close()
    later = Playground(context.new_page()).open(served.base_url).wait_form()
    later.page.get_by_role("button", name="Endpoint", exact=True).click()
    expect(later.page.get_by_label("Endpoint id")).to_have_value(ID)


def test_a_key_that_is_held_down_asks_once(connected: Open, deployed: DeployedEndpoint) -> None:
    playground = connected().fill(prompt="a star")
    playground.page.keyboard.down("Control")
    for _ in range(5):
        playground.page.keyboard.down("Enter")
    playground.page.keyboard.up("Enter")
    playground.page.keyboard.up("Control")
    playground.page.locator("#stage > .state").wait_for()
    playground.fill(prompt="another").draw()
    expect(playground.page.locator("#queue")).to_be_hidden()
    assert [job["prompt"] for job in deployed.jobs] == ["a star", "another"]
