"""The form is the model's: what it takes and no more, and what is filled in is what the endpoint is asked."""

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open, connect
from tests.helpers.asking import model_of
from tests.helpers.deployed_endpoint import KEY, DeployedEndpoint
from tests.helpers.playground import Playground, data_uri, make_png

PNG = make_png()


@pytest.fixture
def playground(connected: Open) -> Playground:
    """One with everything that a model can have, all sections open."""
    return connected().fill(prompt="a star")


def asked(playground: Playground, deployed: DeployedEndpoint) -> dict[str, Any]:
    """What the endpoint is asked by what the form holds."""
    count = len(deployed.jobs)
    playground.draw()
    expect(playground.page.locator("#form-error, .problem").filter(visible=True)).to_have_count(0)
    playground.page.wait_for_function("() => document.querySelector('#stage .state')?.textContent.startsWith('Done')")
    assert len(deployed.jobs) == count + 1
    return deployed.jobs[-1]


def test_what_is_left_empty_is_left_out(playground: Playground, deployed: DeployedEndpoint) -> None:
    assert asked(playground, deployed) == {"prompt": "a star", "preview": True}


def test_ranges_defaults_and_choices_are_the_models(playground: Playground) -> None:
    steps = playground.control("num_inference_steps")
    assert [steps.get_attribute(name) for name in ("min", "max", "placeholder")] == ["2", "500", "50"]
    assert playground.control("width").get_attribute("placeholder") == "512"
    names = playground.control("scheduler").locator("option").all_inner_texts()
    assert names[0] == "Default (LMS)" and {"Euler", "DPM++ 2M Karras", "DDIM"} <= set(names)
    playground.control("scheduler").select_option("LCM")
    assert steps.get_attribute("max") == "50", "which is that scheduler's"


def test_sizes_are_bounded_by_the_pixels_that_the_model_draws(connected: Open, deployed: DeployedEndpoint) -> None:
    deployed.model = model_of("sd1", max_pixels=512 * 768)
    playground = connected()
    assert playground.control("width").get_attribute("max") == str(512 * 768 // 64)
    expect(playground.field("height").locator(".bounds")).to_have_text(f"64 – {512 * 768 // 64}")  # noqa: RUF001
    limit = playground.page.locator('[data-section="Size"] .limit')
    expect(limit).to_have_text("393,216 pixels at most, such as 624 × 624; sides in steps of 8")  # noqa: RUF001


def test_a_slider_stands_where_the_default_is_and_is_not_there_without_one(playground: Playground) -> None:
    playground.put(PNG, '[data-field="image"]')
    playground.put(PNG, '[data-field="mask"]')
    for name in ("strength", "num_inference_steps", "guidance_scale"):
        default = playground.control(name).get_attribute("placeholder")
        expect(playground.field(name).locator("input[type=range]")).to_have_js_property("value", default)
    expect(playground.field("clip_skip").locator("input[type=range]")).to_be_hidden()


def test_a_switch_in_numbers_is_a_switch(playground: Playground, deployed: DeployedEndpoint) -> None:
    playground.put(PNG, '[data-field="image"]')
    playground.put(PNG, '[data-field="mask"]')
    assert "inpainting_mask_invert" not in asked(playground, deployed)
    playground.page.get_by_role("checkbox", name="Invert mask").check()
    assert asked(playground, deployed)["inpainting_mask_invert"] == 1


def test_every_number_text_and_choice_is_sent(playground: Playground, deployed: DeployedEndpoint) -> None:
    numbers = {"num_inference_steps": 12, "guidance_scale": 3.5, "width": 640, "height": 384, "num_images": 2}
    numbers |= {"clip_skip": 1, "guidance_rescale": 0.5, "quality": 80, "seed": 9}
    playground.fill(negative_prompt="blur", **numbers)
    playground.control("scheduler").select_option("DDIM")
    playground.control("output_format").select_option("webp")
    beside = {"negative_prompt": "blur", "scheduler": "DDIM", "output_format": "webp", "preview": True}
    assert asked(playground, deployed) == {"prompt": "a star", **numbers, **beside}


def test_a_field_that_the_model_does_not_take_is_not_there(open_page: Open, deployed: DeployedEndpoint) -> None:
    deployed.model = model_of("flux-schnell", tasks={"text to image": {}})
    playground = open_page()
    connect(playground)
    playground.wait_form()
    for name in ("negative_prompt", "guidance_scale", "image", "mask", "loras", "controlnet", "clip_skip", "hires"):
        expect(playground.field(name)).to_have_count(0)
    expect(playground.field("seed")).to_have_count(1)


def test_fields_of_a_task_come_and_go_with_it(playground: Playground, deployed: DeployedEndpoint) -> None:
    page = playground.page
    expect(playground.field("strength")).to_be_hidden()
    expect(playground.field("guidance_rescale")).to_be_visible()
    playground.put(PNG, '[data-field="image"]')
    playground.put(PNG, '[data-field="mask"]')
    expect(page.locator("#task")).to_have_text("inpainting")
    expect(playground.field("strength")).to_be_visible()
    expect(playground.field("guidance_rescale")).to_be_hidden()
    playground.field("mask").get_by_role("button", name="Remove").click()
    playground.field("image").get_by_role("button", name="Remove").click()
    expect(page.locator("#task")).to_be_empty()
    assert "image" not in asked(playground, deployed)


def test_aspect_buttons_set_both_sides(playground: Playground, deployed: DeployedEndpoint) -> None:
    page = playground.page
    page.get_by_role("button", name="16:9").click()
    expect(page.get_by_role("button", name="16:9")).to_have_attribute("aria-pressed", "true")
    job = asked(playground, deployed)
    assert (job["width"], job["height"]) == (680, 384)
    assert job["width"] % 8 == job["height"] % 8 == 0


def test_loras_are_added_with_their_scale(playground: Playground, deployed: DeployedEndpoint) -> None:
    page = playground.page
    page.get_by_role("button", name="Add LoRA").click()
    entry = page.get_by_role("group", name="LoRAs 1")
    entry.get_by_label("Name").select_option("people/anna")
    entry.get_by_label("Scale").fill("0.8")
    assert asked(playground, deployed)["loras"] == [{"name": "people/anna", "scale": 0.8}]
    entry.get_by_role("button", name="Remove").click()
    assert "loras" not in asked(playground, deployed)


def test_controlnets_are_named_with_their_picture_and_mode(playground: Playground, deployed: DeployedEndpoint) -> None:
    page = playground.page
    page.get_by_role("button", name="Add ControlNet").click()
    entry = page.get_by_role("group", name="ControlNets 1")
    entry.get_by_label("Name").select_option("union")
    entry.get_by_label("Mode").select_option("pose")
    entry.get_by_label("End").fill("0.6")
    playground.put(PNG, '[data-field="controlnet"] .slot')
    (control,) = asked(playground, deployed)["controlnet"]
    assert control == {"name": "union", "mode": "pose", "end": 0.6, "image": data_uri(PNG)}


def test_reference_pictures_are_sent(playground: Playground, deployed: DeployedEndpoint) -> None:
    page = playground.page
    for number in (1, 2):
        page.get_by_role("button", name="Add Reference picture").click()
        playground.put(PNG, f'[data-field="images"] .entry:nth-child({number}) .slot')
    assert asked(playground, deployed)["images"] == [data_uri(PNG)] * 2


def test_a_picture_speaks_beside_the_prompt(playground: Playground, deployed: DeployedEndpoint) -> None:
    playground.page.get_by_role("checkbox", name="Reference picture (IP-Adapter)").check()
    slot = playground.field("ip_adapter").locator(".slot")
    slot.get_by_label("URL or path").fill("https://example.com/a.png")
    playground.field("ip_adapter").get_by_label("Scale").fill("0.7")
    assert asked(playground, deployed)["ip_adapter"] == {"image": "https://example.com/a.png", "scale": 0.7}


def test_a_dropped_picture_can_be_edited(playground: Playground, deployed: DeployedEndpoint) -> None:
    playground.drop(PNG)
    playground.page.get_by_role("button", name="Edit it").click()
    expect(playground.page.locator("#task")).to_have_text("editing")
    assert asked(playground, deployed)["images"] == [data_uri(PNG)]


def test_what_is_no_picture_is_refused_where_it_was_dropped(playground: Playground) -> None:
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
    playground.drop(svg, "a.svg", "image/svg+xml", on='[data-field="image"]')
    expect(playground.field("image").locator(".problem")).to_contain_text("a.svg is no picture that can be read")
    playground.drop(svg, "a.png", "image/png")
    expect(playground.page.locator("#form-error")).to_contain_text("a.png is no picture")


def test_problems_stand_at_their_fields_and_the_first_has_the_focus(
    playground: Playground, deployed: DeployedEndpoint
) -> None:
    page = playground.page
    page.get_by_role("button", name="Add LoRA").click()
    page.get_by_role("group", name="LoRAs 1").get_by_label("Name").select_option("neon")
    fields = [("height", "got 65; too much"), ("loras.0.scale", "got 99; at most 10"), ("unheard_of", "is unknown")]
    output = {"fields": [{"field": field, "problem": problem} for field, problem in fields]}
    deployed.script = lambda job: [{"status": "FAILED", "error": "INVALID_INPUT: height", "output": output}]
    playground.draw()
    expect(playground.field("height").locator(".problem")).to_have_text("got 65; too much")
    expect(page.get_by_role("group", name="LoRAs 1").get_by_label("Scale")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#form-error")).to_have_text("unheard_of: is unknown")
    expect(playground.control("height")).to_be_focused()
    expect(playground.control("height")).to_have_accessible_description(
        "in pixels; the image's own or the endpoint's default if left out got 65; too much"
    )


def test_code_holds_the_request_and_never_the_key(playground: Playground) -> None:
    page, large = playground.page, make_png(600, 600, "red")
    playground.put(large, '[data-field="image"]')
    playground.fill(seed=7)
    page.get_by_role("button", name="Copy as code").click()
    for language in ("curl", "Python", "JavaScript", "JSON"):
        page.get_by_label("Language").select_option(language)
        code = page.locator("#snippet").inner_text()
        assert KEY not in code and '"seed": 7' in code
        where = "RUNPOD_API_KEY" in code and "https://api.runpod.ai/v2/abc123def456/runsync" in code
        assert where or language == "JSON"
        assert ("preview" in code) == (language == "JSON"), "a call that waits shows none"
        assert (data_uri(large) in code) == (language == "JSON"), "no shell takes megabytes"


def test_a_batch_says_what_is_wrong_with_it(playground: Playground) -> None:
    page = playground.page
    for seeds, wrong in (("1, x", "“x” is no seed"), ("9-5", "“9-5” is no seed"), ("1-900", "64 at most")):
        page.get_by_label("Seeds").fill(seeds)
        playground.draw()
        expect(page.locator("#form-error")).to_contain_text(wrong)
    page.get_by_label("Seeds").fill("")
    page.get_by_label("Each line of the prompt is one").check()
    playground.fill(prompt=" \n ").draw()
    expect(page.locator("#form-error")).to_contain_text("no line with a prompt")
