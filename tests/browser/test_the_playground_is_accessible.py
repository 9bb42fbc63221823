"""For everybody: axe finds nothing, all works by keyboard, on a phone, in light and dark, without motion."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.helpers.deployed_endpoint import DeployedEndpoint, completed
from tests.helpers.playground import Playground, data_uri, make_png

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DIALOGS = ("connection", "mask", "compare", "snippet", "dropped", "clear")
RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}

TRANSITIONS = """() => Promise.allSettled(
    document.getAnimations().filter((one) => one instanceof CSSTransition).map((one) => one.finished))"""


def check(playground: Playground, where: str, part: str | None = None) -> None:
    """No violation of what axe knows, once no colour is on its way to another any more.

    Args:
        part: a selector of what is looked at, if not at the page.
    """
    playground.page.evaluate(TRANSITIONS)
    found = Axe().run(playground.page, context=part, options=RULES).response["violations"]
    assert [(where, one["id"], [node["html"][:150] for node in one["nodes"]]) for one in found] == []


def furnish(playground: Playground, deployed: DeployedEndpoint) -> None:
    """A page with all that it can show: pictures, a job, a problem, entries of lists."""
    page = playground.page
    deployed.script = lambda job: completed({"images": [data_uri(make_png(colour=job["prompt"]))], "seeds": [1]})
    for number, colour in enumerate(("red", "blue"), 1):
        playground.fill(prompt=colour).draw()
        expect(playground.kept).to_have_count(number)
    for name in ("LoRA", "ControlNet", "Reference picture"):
        page.get_by_role("button", name=f"Add {name}").click()
    for name in ("Second pass, enlarged", "Reference picture (IP-Adapter)"):
        page.get_by_role("checkbox", name=name).check()
    playground.put(make_png(), '[data-field="image"]')
    output = {"fields": [{"field": "prompt", "problem": "got 5; a text"}]}
    deployed.script = lambda job: [{"status": "FAILED", "error": "INVALID_INPUT", "output": output}]
    playground.draw()
    expect(playground.control("prompt")).to_have_attribute("aria-invalid", "true")


def test_axe_finds_nothing(connected: Open, deployed: DeployedEndpoint) -> None:
    playground = connected(color_scheme="light")
    page = playground.page
    check(playground, "a new page")
    furnish(playground, deployed)
    for entry in playground.kept.locator("input").all():
        entry.check()
    for scheme, width in (("light", 1280), ("dark", 1280), ("dark", 390)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 844})
        check(playground, f"{scheme}, {width} pixels")
    for name in DIALOGS:
        page.evaluate("(id) => document.getElementById(id).showModal()", f"{name}-dialog")
        check(playground, name, f"#{name}-dialog")  # behind it is what has been looked at
        page.keyboard.press("Escape")


def test_a_phone_is_never_scrolled_sideways(connected: Open, deployed: DeployedEndpoint) -> None:
    playground = connected(**PHONE)
    furnish(playground, deployed)
    playground.kept.locator(".thumb").first.click()
    for name in (None, *DIALOGS):
        if name:
            playground.page.evaluate("(id) => document.getElementById(id).showModal()", f"{name}-dialog")
        wide = playground.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, name
        playground.page.keyboard.press("Escape")


def test_light_and_dark_follow_the_system_and_the_switch(connected: Open) -> None:
    playground = connected(color_scheme="dark")
    page = playground.page

    def is_dark() -> bool:
        script = "getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).slice(0, 3).map(Number)"
        return sum(page.evaluate(script)) < 200

    assert is_dark()
    page.get_by_role("button", name="Theme: auto").click()
    page.get_by_role("button", name="Theme: light").wait_for()
    assert not is_dark()
    page.reload()
    playground.wait_ready()
    assert not is_dark(), "the choice stays"


def test_nothing_moves_where_that_is_not_wanted(connected: Open) -> None:
    moving = (
        "[...document.querySelectorAll('*')].filter((one) => parseFloat(getComputedStyle(one).transitionDuration) > 0)"
    )
    assert connected().page.evaluate(f"{moving}.length") > 0
    assert connected(reduced_motion="reduce").page.evaluate(f"{moving}.length") == 0


def test_everything_is_reached_by_keyboard_in_the_order_of_the_page(
    connected: Open, deployed: DeployedEndpoint
) -> None:
    playground = connected()
    page = playground.page
    deployed.script = lambda job: completed({"images": [data_uri(make_png())], "seeds": [1]})
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the picture")).to_be_focused()
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.closest('[data-field]')?.dataset.field ?? document.activeElement.id")
        )
        ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none", reached
    wanted = ["open", "connect", "theme", "prompt", "negative_prompt", "draw", "copy"]
    assert [name for name in reached if name in wanted] == wanted
    playground.fill(prompt="a star").draw()
    playground.wait_pictures()
    playground.kept.locator(".thumb").press("Enter")
    expect(page.locator("#stage")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Save")).to_be_focused()


def test_every_control_has_a_name(connected: Open, deployed: DeployedEndpoint) -> None:
    playground = connected()
    furnish(playground, deployed)
    nameless = """[...document.querySelectorAll("input:not([type=hidden]), select, textarea, button")].filter((one) =>
        !one.closest("[aria-hidden=true]") && one.ariaHidden !== "true" &&
        !(one.labels?.length || one.ariaLabel || one.textContent.trim())).map((one) => one.outerHTML)"""
    assert playground.page.evaluate(nameless) == []
