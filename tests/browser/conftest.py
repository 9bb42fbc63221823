"""The playground in a real browser. Nothing leaves this machine: what asks for another host fails the test."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Playwright, Request, sync_playwright

from local_endpoint import EndpointConfig, LocalEndpoint
from tests.helpers.browser import find_browser, start_browser
from tests.helpers.deployed_endpoint import ID, KEY, DeployedEndpoint
from tests.helpers.playground import Playground

Open = Callable[..., Playground]
EXPECTED = ("http://127.0.0.1:", "data:", "blob:", "https://api.runpod.ai/", "https://pictures.example.com/")


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Until the file's end: its event loop runs in this thread, and would have workers answer by futures."""
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    program = find_browser(playwright)
    if program is None:
        pytest.skip("no Chromium: install one, name it in CHROMIUM, or run `playwright install chromium`")
    browser = start_browser(playwright, program)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def served() -> Iterator[LocalEndpoint]:
    """An endpoint without a worker, which serves the page."""
    with LocalEndpoint(EndpointConfig(hold_s=1.0)) as endpoint:
        yield endpoint


@pytest.fixture
def deployed() -> DeployedEndpoint:
    """What answers for RunPod's host."""
    return DeployedEndpoint()


@pytest.fixture
def open_context(browser: Browser, deployed: DeployedEndpoint) -> Iterator[Callable[..., BrowserContext]]:
    """A browser's context, wide open eyes on: no script may fail, and no request may go elsewhere."""
    contexts, wrong = [], list[str]()

    def opened(**options: Any) -> BrowserContext:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.on("weberror", lambda error: wrong.append(str(error.error)))
        context.on("request", lambda request: note(request))
        deployed.serve(context)
        contexts.append(context)
        return context

    def note(request: Request) -> None:
        if not request.url.startswith(EXPECTED):
            wrong.append(f"asked for {request.url}")

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def open_page(open_context: Callable[..., BrowserContext], served: LocalEndpoint) -> Open:
    """`open_page(color_scheme="dark")`: the page, at no endpoint yet; the options are those of a context."""
    return lambda **options: Playground(open_context(**options).new_page()).open(served.base_url)


@pytest.fixture
def connected(open_page: Open, served: LocalEndpoint, deployed: DeployedEndpoint) -> Open:
    """The same at the deployed endpoint, of which this browser knows from an earlier visit."""

    def opened(**options: Any) -> Playground:
        kept = [{"name": name, "value": json.dumps(value)} for name, value in deployed.known.items()]
        state = {"cookies": [], "origins": [{"origin": served.base_url, "localStorage": kept}]}
        return open_page(**{"storage_state": state, **options}).wait_form()

    return opened


def connect(playground: Playground, key: str = KEY, remember: bool = False) -> None:
    """Names the deployed endpoint and its key, as people do."""
    page = playground.page
    page.get_by_role("button", name="Endpoint", exact=True).click()
    page.get_by_label("Deployed on RunPod").check()
    page.get_by_label("Endpoint id").fill(ID)
    page.get_by_label("API key").fill(key)
    page.get_by_label("Remember both in this browser").set_checked(remember)
    page.get_by_role("button", name="Connect", exact=True).click()
