"""A Chromium for tests: which one there is, and how it is started."""

import os
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser(playwright: Playwright) -> str | None:
    """The program: CHROMIUM, one on the PATH, or Playwright's own; None if there is none."""
    named = os.environ.get("CHROMIUM")
    found = [named, *map(shutil.which, NAMES), playwright.chromium.executable_path]
    return next((one for one in found if one and Path(one).exists()), None)


def start_browser(playwright: Playwright, program: str) -> Browser:
    """A browser without a window; root may only run it without its sandbox."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=program, args=arguments)
