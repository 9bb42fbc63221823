"""Draws the screenshots of docs/playground.md: the page with a real worker and the embedded model.

python -m tools.screenshots
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from local_endpoint import EndpointConfig, LocalEndpoint, LocalWorker
from tests.helpers.browser import find_browser, start_browser
from tests.helpers.playground import SLOW_MS, Playground

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "images" / "playground"
HANDLER = ROOT / "handler.py"
LOG = Path(tempfile.gettempdir()) / "screenshots-worker.log"
MAX_BYTES = 200_000
PROMPTS = (
    "a big blue star on a yellow background",
    "a small red heart on a white background",
    "a green circle and a purple square",
    "a pink triangle on a black background",
    "an orange star on a blue background",
)
STEPS = 12


def main() -> None:
    """Write them all."""
    with sync_playwright() as playwright:
        program = find_browser(playwright)
        if program is None:
            raise SystemExit("no Chromium: install one, or name it in CHROMIUM")
        browser = start_browser(playwright, program)
        with (
            LocalEndpoint(EndpointConfig()) as endpoint,
            LocalWorker(endpoint, HANDLER, cwd=ROOT, log_path=LOG) as worker,
        ):
            worker.wait_ready()
            FOLDER.mkdir(parents=True, exist_ok=True)
            show_desktop(browser, endpoint)
            show_phone(browser, endpoint)
        browser.close()


def show_desktop(browser: Browser, endpoint: LocalEndpoint) -> None:
    """Light and dark: pictures, progress, a batch, two compared, a mask."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme="light")
    playground = Playground(context.new_page()).open(f"{endpoint.base_url}/#{endpoint.config.api_key}").wait_form()
    page = playground.page
    draw_some(playground)
    save(page, "light")
    show_progress(playground)
    page.emulate_media(color_scheme="dark")
    show_batch(playground)
    page.emulate_media(color_scheme="light")
    show_compared(playground)
    show_mask(playground)
    context.close()


def show_phone(browser: Browser, endpoint: LocalEndpoint) -> None:
    """The same on a phone."""
    options = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    context = browser.new_context(color_scheme="dark", **options)  # type: ignore[arg-type]
    playground = Playground(context.new_page()).open(f"{endpoint.base_url}/#{endpoint.config.api_key}").wait_form()
    playground.control("prompt").fill(PROMPTS[0])
    playground.draw()
    playground.wait_pictures()
    save(playground.page, "phone")
    context.close()


def draw_some(playground: Playground) -> None:
    """Fill the gallery."""
    for seed, prompt in enumerate(PROMPTS, 7):
        playground.control("prompt").fill(prompt)
        playground.control("num_inference_steps").fill(str(STEPS))
        playground.control("seed").fill(str(seed))
        playground.draw()
        playground.page.locator("#gallery li").nth(seed - 7).wait_for(timeout=SLOW_MS)
    playground.wait_pictures()
    playground.page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")


def show_progress(playground: Playground) -> None:
    """A picture that is being drawn, and one that waits."""
    page = playground.page
    playground.control("num_inference_steps").fill("60")
    playground.draw()
    playground.draw()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.locator("#queue .job-name").first.click()
    page.locator("#stage .preview img").wait_for(timeout=SLOW_MS)
    page.wait_for_function("() => document.querySelector('#stage progress')?.value > 70", timeout=SLOW_MS)
    save(page, "progress")
    page.locator("#queue").wait_for(state="hidden", timeout=SLOW_MS)
    playground.control("num_inference_steps").fill(str(STEPS))


def show_batch(playground: Playground) -> None:
    """Two prompts, three seeds."""
    page = playground.page
    playground.control("prompt").fill("\n".join(PROMPTS[:2]))
    playground.unfold("Batch")
    page.get_by_label("Each line of the prompt is one").check()
    page.get_by_label("Seeds").fill("1-3")
    playground.draw()
    page.locator("#stage td img").nth(5).wait_for(timeout=5 * SLOW_MS)
    page.evaluate("scrollTo(0, 0)")
    save(page, "batch-dark")
    page.get_by_label("Each line of the prompt is one").uncheck()
    page.get_by_label("Seeds").fill("")


def show_compared(playground: Playground) -> None:
    """Two of the gallery."""
    page = playground.page
    for number in (0, 1):
        playground.kept.nth(number).get_by_role("checkbox").check()
    page.get_by_role("button", name="Compare two").click()
    page.wait_for_timeout(300)
    save(page, "compare")
    page.get_by_role("button", name="Close").click()


def show_mask(playground: Playground) -> None:
    """Strokes over a picture."""
    page = playground.page
    playground.kept.last.locator(".thumb").click()
    page.get_by_role("button", name="Start from it").click()
    page.get_by_role("button", name="Paint a mask").click()
    box = page.locator("#mask-dialog canvas").bounding_box()
    assert box
    for height in (0.4, 0.55, 0.7):
        page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + height * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + height * box["height"], steps=8)
        page.mouse.up()
    save(page, "mask")
    page.get_by_role("button", name="Cancel", exact=True).click()


def save(page: Page, name: str) -> None:
    """A screenshot; one that is too large as it is, with a palette of 256 colours."""
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path = FOLDER / f"{name}.png"
    shot.save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        shot.quantize(method=Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {size:,} bytes")
    if size > MAX_BYTES:
        sys.exit(f"{path.name} is larger than {MAX_BYTES:,} bytes")


if __name__ == "__main__":
    main()
