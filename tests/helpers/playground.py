"""The playground as somebody who uses it: what it shows, and the few steps that most tests begin with."""

import base64
import io
from typing import Any

from PIL import Image
from playwright.sync_api import Locator, Page

SLOW_MS = 60_000  # for a drawing, on a machine with other work


class Playground:
    """One open page. `told` is every sentence of its live region, with the time in milliseconds."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, url: str) -> "Playground":
        """Goes there and waits until the page is wired."""
        self.page.goto(url)
        return self.wait_ready()

    def wait_ready(self) -> "Playground":
        """Waits until the page is wired."""
        self.page.wait_for_selector("html[data-ready]", state="attached")
        return self

    def wait_form(self) -> "Playground":
        """Waits until the form is there."""
        self.field("prompt").locator("textarea").wait_for(timeout=SLOW_MS)
        return self

    def field(self, name: str) -> Locator:
        """A field of the form with all that belongs to it."""
        return self.page.locator(f'form [data-field="{name}"]').first

    def control(self, name: str) -> Locator:
        """What is typed into."""
        return self.field(name).locator("input:not([type=range]):not([type=file]), textarea, select").first

    def unfold(self, section: str) -> None:
        """Opens a section of the form."""
        summary = self.page.locator(f'details[data-section="{section}"]')
        if summary.get_attribute("open") is None:
            summary.locator("summary").first.click()

    def fill(self, **fields: Any) -> "Playground":
        """Types into fields of the form, wherever they stand."""
        self.page.evaluate("document.querySelectorAll('#draw-form details').forEach((one) => (one.open = true))")
        for name, value in fields.items():
            self.control(name).fill(str(value))
        return self

    def draw(self) -> None:
        """As most do: with the keyboard."""
        self.page.keyboard.press("Control+Enter")

    def wait_pictures(self, count: int = 1) -> Locator:
        """The pictures on the stage, when they are there."""
        self.page.locator("#stage figure img").nth(count - 1).wait_for(timeout=SLOW_MS)
        return self.page.locator("#stage figure img")

    @property
    def kept(self) -> Locator:
        """The pictures in the gallery."""
        return self.page.locator("#gallery li")

    def drop(self, data: bytes, name: str = "picture.png", kind: str = "image/png", on: str = "main") -> None:
        """Drops a file on a part of the page."""
        script = """([data, name, kind]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: kind }));
            return transfer;
        }"""
        transfer = self.page.evaluate_handle(script, [base64.b64encode(data).decode(), name, kind])
        self.page.locator(on).first.dispatch_event("drop", {"dataTransfer": transfer})

    def put(self, data: bytes, slot: str) -> None:
        """Drops a picture on a field that takes one, and waits until it is there."""
        self.drop(data, on=slot)
        self.page.locator(slot).first.locator("img").first.wait_for(state="visible")

    def pixels(self, image: Locator) -> bytes:
        """What a picture on the page shows, as a PNG."""
        script = """async (image) => {
            await image.decode();
            const canvas = Object.assign(document.createElement("canvas"),
                { width: image.naturalWidth, height: image.naturalHeight });
            canvas.getContext("2d").drawImage(image, 0, 0);
            return canvas.toDataURL().split(",")[1];
        }"""
        return base64.b64decode(image.evaluate(script))

    def watch_news(self) -> None:
        """From now on the live region's sentences are noted."""
        self.page.evaluate(
            """() => {
            window.told = [];
            const note = () => window.told.push([performance.now(), document.querySelector("#news").textContent]);
            new MutationObserver(note).observe(document.querySelector("#news"), { childList: true });
        }"""
        )

    @property
    def told(self) -> list[tuple[float, str]]:
        """What was told since `watch_news`."""
        return [(time, text) for time, text in self.page.evaluate("window.told")]


def make_png(width: int = 64, height: int = 64, colour: str = "red") -> bytes:
    """A picture file."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(data: bytes, kind: str = "image/png") -> str:
    """A file as jobs carry it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
