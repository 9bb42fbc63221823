"""The gallery, two pictures beside each other, and the brush: what is kept, undone, and shown."""

import base64
import io
import itertools
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open
from tests.helpers.asking import SDXL, ask
from tests.helpers.deployed_endpoint import DeployedEndpoint, completed
from tests.helpers.playground import Playground, data_uri, make_png
from worker.output.encode import encode
from worker.output.metadata import format_metadata
from worker.plan import make_plan

RED, BLUE = (data_uri(make_png(colour=colour)) for colour in ("red", "blue"))


@pytest.fixture
def drawn(connected: Open, deployed: DeployedEndpoint) -> Playground:
    """One with a red picture of seed 1, and a blue one of seed 2."""
    playground = connected()
    for seed, picture in ((1, RED), (2, BLUE)):
        deployed.script = lambda job, seed=seed, picture=picture: completed({"images": [picture], "seeds": [seed]})  # type: ignore
        playground.fill(prompt="a star", num_inference_steps=10 * seed).draw()
        expect(playground.kept).to_have_count(seed)
    return playground


def test_pictures_are_removed_one_by_one_or_all_at_once(drawn: Playground) -> None:
    page = drawn.page
    drawn.kept.first.get_by_role("button", name="Remove").click()
    expect(drawn.kept).to_have_count(1)
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Keep them").click()
    expect(drawn.kept).to_have_count(1)
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Remove all").click()
    expect(drawn.kept).to_have_count(0)
    page.reload()
    drawn.wait_ready()
    expect(page.locator("#gallery-empty")).to_be_visible()
    expect(drawn.kept).to_have_count(0)


def test_the_oldest_go_first(connected: Open) -> None:
    script = """async () => {
        const { GalleryStore, MAX_PICTURES } = await import("/gallery_store.js");
        const store = await new GalleryStore().open();
        for (let number = 0; number < MAX_PICTURES + 3; number += 1) await store.add({ seed: number, prompt: "" });
        const seeds = (await store.list()).map((item) => item.seed);
        return [MAX_PICTURES, seeds.length, seeds[0], seeds.at(-1)];
    }"""
    most, kept, newest, oldest = connected().page.evaluate(script)
    assert (kept, newest, oldest) == (most, most + 2, 3)


def test_two_are_compared_by_a_border_that_moves_or_side_by_side(drawn: Playground) -> None:
    page = drawn.page
    expect(page.get_by_role("button", name="Compare two")).to_be_disabled()
    for entry in drawn.kept.all():
        entry.get_by_role("checkbox").check()
    page.get_by_role("button", name="Compare two").click()
    slider = page.get_by_role("slider", name="Border")
    expect(slider).to_have_attribute("aria-valuetext", "50 % of the first picture")

    def colours() -> tuple[Any, ...]:
        shot = Image.open(io.BytesIO(page.locator("#compare-place").screenshot())).convert("RGB")
        return tuple(shot.getpixel((int(shot.width * at), shot.height // 2)) for at in (0.45, 0.55))

    blue, red = (0, 0, 255), (255, 0, 0)
    assert colours() == (blue, red)
    slider.press("End")
    assert colours() == (blue, blue)
    slider.press("Home")
    assert colours() == (red, red)
    rows = page.locator("#compare-facts tr").all_inner_texts()
    assert rows == ["num_inference_steps\t20\t10", "seed\t2\t1"]
    page.get_by_label("Side by side").check()
    assert colours() == (blue, red)


def open_mask(playground: Playground) -> Page:
    playground.put(make_png(200, 100), '[data-field="image"]')
    playground.page.get_by_role("button", name="Paint a mask").click()
    expect(playground.page.locator("#mask-told")).to_have_text("0 % is drawn anew")
    return playground.page


def mask_of(playground: Playground, deployed: DeployedEndpoint) -> Image.Image:
    """The mask that a job brings."""
    playground.page.get_by_role("button", name="Use this mask").click()
    playground.fill(prompt="a star").draw()
    expect(playground.page.locator("#stage > .state")).to_contain_text("Done")
    sent = base64.b64decode(deployed.jobs[-1]["mask"].partition(",")[2])
    return Image.open(io.BytesIO(sent)).convert("L")


def test_a_mask_is_painted_with_undo_and_redo(connected: Open, deployed: DeployedEndpoint) -> None:
    playground = connected().fill()
    page = open_mask(playground)
    box = page.locator("#mask-dialog canvas").bounding_box()
    assert box
    for height in (0.3, 0.7):
        page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + height * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + height * box["height"], steps=4)
        page.mouse.up()
    told = page.locator("#mask-told").inner_text()
    page.keyboard.press("Control+z")
    assert page.locator("#mask-told").inner_text() != told
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#mask-told")).to_have_text("0 % is drawn anew")
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    expect(page.get_by_role("button", name="Use this mask")).to_be_disabled()
    page.get_by_role("button", name="Redo").click()
    page.keyboard.press("Control+Shift+Z")
    expect(page.locator("#mask-told")).to_have_text(told)
    page.keyboard.press("Control+z")
    mask = mask_of(playground, deployed)
    assert mask.size == (200, 100)
    assert [mask.getpixel(place) for place in ((100, 30), (100, 70), (5, 30))] == [255, 0, 0]


def test_a_mask_is_painted_by_touch(connected: Open, deployed: DeployedEndpoint) -> None:
    playground = connected(has_touch=True).fill()
    page = open_mask(playground)
    box = page.locator("#mask-dialog canvas").bounding_box()
    assert box
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#mask-told")).not_to_have_text("0 % is drawn anew")
    mask = mask_of(playground, deployed)
    assert [mask.getpixel(place) for place in ((100, 50), (5, 5))] == [255, 0]


def test_a_mask_is_made_by_keyboard_alone(connected: Open, deployed: DeployedEndpoint) -> None:
    playground = connected().fill()
    page = open_mask(playground)
    form = page.get_by_role("form", name="A rectangle by numbers")
    for name, value in (("Left", "0"), ("Top", "0"), ("Width", "50"), ("Height", "100")):
        form.get_by_label(name).fill(value)
    form.get_by_label("Height").press("Enter")
    expect(page.locator("#mask-told")).to_have_text("50 % is drawn anew")
    page.get_by_role("button", name="Invert").press("Enter")
    mask = mask_of(playground, deployed)
    assert [mask.getpixel(place) for place in ((20, 50), (180, 50))] == [0, 255]
    page.get_by_role("button", name="Paint a mask").press("Enter")
    expect(page.locator("#mask-told")).to_have_text("50 % is drawn anew")
    page.get_by_label("Take back").check()
    page.get_by_role("button", name="All").press("Space")
    expect(page.locator("#mask-told")).to_have_text("100 % is drawn anew")


PROMPTS = ["a star", "Größe für 5 €", "красный 🟥 👩‍🎨", "a, Recipe: b\nNegative prompt: c"]


def test_the_request_in_a_picture_is_read_to_the_letter(connected: Open) -> None:
    playground = connected()
    for extension, prompt in itertools.product(("png", "jpeg", "webp"), PROMPTS):
        fields = {"prompt": prompt, "negative_prompt": f"not {prompt}", "seed": 5, "steps": 9, "width": 832}
        request = ask(SDXL, **fields)
        text = format_metadata(request.pictures[0], make_plan(request), SDXL)
        data = encode(Image.new("RGB", (32, 32), "red"), text, extension, 90).data
        playground.fill(prompt="another")
        playground.drop(data, f"a.{extension}", f"image/{extension}")
        playground.page.get_by_role("button", name="Use its parameters").click()
        expect(playground.control("prompt")).to_have_value(prompt)
        expect(playground.control("negative_prompt")).to_have_value(f"not {prompt}")
        for name, value in (("seed", "5"), ("num_inference_steps", "9"), ("width", "832")):
            expect(playground.control(name)).to_have_value(value)
        expect(playground.page.locator("#form-error")).to_be_empty()
