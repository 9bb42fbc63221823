"""Whatever a worker answers, nothing of it runs: it is shown as text, or as a picture that is one."""

import io
from typing import Any

from PIL import Image, PngImagePlugin
from playwright.sync_api import expect

from tests.browser.conftest import Open, connect
from tests.helpers.deployed_endpoint import DeployedEndpoint, completed
from tests.helpers.playground import Playground, data_uri, make_png

MARKUP = '<img src=x onerror="window.hacked = true"><script>window.hacked = true</script>'
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>window.hacked = true</script></svg>"
NO_PICTURES = {
    "a script's address": "javascript:window.hacked = true",
    "a page": "data:text/html;base64,PHNjcmlwdD53aW5kb3cuaGFja2VkID0gdHJ1ZTwvc2NyaXB0Pg==",
    "SVG": data_uri(SVG, "image/svg+xml"),
    "SVG that says it is PNG": data_uri(SVG, "image/png"),
    "what is no base64": "data:image/png;base64,%%%%",
    "a file of the machine": "file:///etc/passwd",
    "a blob": "blob:https://api.runpod.ai/1",
    "an address with no host": "https://",
    "a number": 5,
    "an object": {"toString": "x"},
    "a list": [[]],
    "nothing": None,
}


def draw(playground: Playground, deployed: DeployedEndpoint, *statuses: dict[str, Any]) -> None:
    """One job, to which the worker answers this."""
    deployed.script = lambda job: list(statuses)
    playground.fill(prompt=MARKUP)
    playground.page.evaluate("document.querySelector('#stage').replaceChildren()")
    playground.draw()
    playground.page.locator("#stage > .state").wait_for()


def not_hacked(playground: Playground) -> bool:
    """Nothing ran."""
    playground.page.wait_for_timeout(100)
    return bool(playground.page.evaluate("window.hacked === undefined"))


def test_what_is_no_picture_is_none(connected: Open, deployed: DeployedEndpoint) -> None:
    playground = connected()
    for name, source in NO_PICTURES.items():
        draw(playground, deployed, *completed({"images": [source]}))
        expect(playground.page.locator("#stage .error")).to_contain_text("no picture that can be shown")
        assert playground.page.locator("#stage img, #stage a").count() == 0, name
    assert not_hacked(playground)
    expect(playground.kept).to_have_count(0)


def test_markup_is_text_wherever_it_stands(connected: Open, deployed: DeployedEndpoint) -> None:
    playground = connected()
    output = {"images": [data_uri(make_png())], "seeds": [MARKUP], "model": MARKUP, "warnings": [MARKUP, {"a": MARKUP}]}
    draw(playground, deployed, *completed(output, error=MARKUP))
    expect(playground.page.locator("#stage .notes li").first).to_have_text(MARKUP)
    expect(playground.page.locator("#stage figcaption .prompt")).to_have_text(MARKUP)
    fields = [{"field": MARKUP, "problem": MARKUP}, {"field": "prompt", "problem": MARKUP}, MARKUP, None]
    draw(playground, deployed, {"status": "FAILED", "error": MARKUP, "output": {"fields": fields}})
    expect(playground.field("prompt").locator(".problem")).to_have_text(MARKUP)
    expect(playground.page.locator("#form-error")).to_contain_text(MARKUP)
    assert not_hacked(playground)


ANSWERS: list[dict[str, Any]] = [
    {"status": "COMPLETED"},
    {"status": "COMPLETED", "output": "a text"},
    {"status": "COMPLETED", "output": [1]},
    {"status": "COMPLETED", "output": {"images": {"length": 10**9}, "seeds": "x", "warnings": 3}},
    {"status": "COMPLETED", "output": {"images": ["x" * 1_000_000] * 5}, "executionTime": "soon"},
    {"status": "COMPLETED", "output": {"images": [], "warnings": ["w"] * 10_000}},
    {"status": MARKUP, "error": {"deep": [[[MARKUP]]]}},
    {"status": 7},
    {},
]


def test_an_answer_of_any_form_is_borne(connected: Open, deployed: DeployedEndpoint) -> None:
    playground = connected()
    for number, status in enumerate(ANSWERS, 1):
        draw(playground, deployed, status)
        assert len(playground.page.locator("#stage").inner_text()) < 60_000
        draw(playground, deployed, *completed({"images": [data_uri(make_png())]}))
        expect(playground.kept).to_have_count(number)
    assert not_hacked(playground)


def test_progress_of_any_form_is_borne(connected: Open, deployed: DeployedEndpoint) -> None:
    updates = [
        MARKUP,
        {"step": MARKUP, "percent": 1e308, "preview": NO_PICTURES["SVG"]},
        [1],
        {"percent": -5, "step": 1},
    ]
    running = [{"status": "IN_PROGRESS", "output": update} for update in updates]
    playground = connected()
    draw(playground, deployed, *running, *completed({"images": [data_uri(make_png())]}))
    playground.wait_pictures()
    assert not_hacked(playground)


def test_a_capabilities_answer_of_any_form_makes_no_form_of_it_or_a_harmless_one(
    open_page: Open, deployed: DeployedEndpoint
) -> None:
    fields = [MARKUP, None, {"name": MARKUP, "type": MARKUP}, {"name": "prompt", "type": "string", "meaning": MARKUP}]
    fields += [
        {"name": "steps", "type": "integer", "minimum": MARKUP, "choices": [MARKUP]},
        {"name": "x", "type": "object"},
    ]
    told = {
        "fields": fields,
        "model": MARKUP,
        "tasks": "x",
        "schedulers": [1],
        "controlnets": [None, MARKUP],
        "size": 3,
    }
    deployed._take = lambda job: (
        deployed._statuses.update({"j": completed({"capabilities": told})})
        or {  # type: ignore
            "id": "j",
            "status": "IN_QUEUE",
        }
    )
    playground = open_page()
    connect(playground)
    playground.wait_form()
    expect(playground.page.locator("#model")).to_contain_text("<img src=x")
    assert not_hacked(playground)


def test_a_changed_recipe_in_a_picture_is_no_recipe(connected: Open) -> None:
    playground = connected()
    for text in (
        "a, Recipe: {",
        'a, Recipe: "{}"',
        'a, Recipe: "[1]"',
        "x" * 100_000,
        ', Recipe: "{\\"prompt\\": -5}"',
    ):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("parameters", text)
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=chunks)
        playground.drop(buffer.getvalue())
        expect(playground.page.locator("#dropped-dialog")).to_be_visible()
        playground.page.locator("#dropped-leave").click()
    assert not_hacked(playground)
