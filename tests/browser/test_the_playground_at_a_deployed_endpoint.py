"""At a deployed endpoint: the key stays in the browser, a slow start is told, what passes is tried again."""

import itertools
import json
from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

from tests.browser.conftest import Open, connect
from tests.helpers.deployed_endpoint import ID, KEY, DeployedEndpoint, completed
from tests.helpers.playground import Playground, data_uri, make_png

PICTURE = data_uri(make_png())


def progress(step: int, total: int = 10) -> dict[str, Any]:
    """The status of a job that is being drawn."""
    update = {"step": step, "total": total, "percent": 100.0 * step / total, "seconds_left": 1.5, "preview": PICTURE}
    return {"status": "IN_PROGRESS", "output": update}


def test_the_key_goes_to_the_endpoint_in_a_header_and_nowhere_else(
    open_context: Callable[..., Any], served: Any, deployed: DeployedEndpoint
) -> None:
    context, everything = open_context(), []
    context.on("request", lambda request: everything.append(request))
    playground = Playground(context.new_page()).open(served.base_url)
    deployed.script = lambda job: completed({"images": [PICTURE], "seed": 4})
    connect(playground)
    playground.wait_form().fill(prompt="a star").draw()
    playground.wait_pictures()

    assert len(deployed.requests) >= 4 and ID in deployed.requests[0].url
    for request in everything:
        headers = json.dumps(request.all_headers())
        assert KEY not in request.url and KEY not in (request.post_data or "")
        assert (KEY in headers) == request.url.startswith("https://api.runpod.ai/")
    assert KEY not in playground.page.url and KEY not in playground.page.locator("body").inner_text()


def test_id_and_key_are_kept_only_where_that_is_wished_and_can_be_forgotten(open_page: Open) -> None:
    playground = open_page()
    page = playground.page
    connect(playground)
    playground.wait_form()
    assert KEY not in page.evaluate("JSON.stringify(localStorage)")
    page.reload()
    playground.wait_form()

    connect(playground, remember=True)
    assert KEY in page.evaluate("JSON.stringify(localStorage)")
    assert KEY not in page.evaluate("JSON.stringify(sessionStorage)")
    expect(page.locator("#connection-dialog")).to_be_hidden()
    page.get_by_role("button", name="Endpoint", exact=True).click()
    page.get_by_role("button", name="Forget").click()
    assert KEY not in page.evaluate("JSON.stringify([{ ...localStorage }, { ...sessionStorage }])")


def test_a_key_of_one_endpoint_is_not_offered_to_the_other(open_page: Open) -> None:
    page = open_page().page
    page.get_by_role("button", name="Endpoint", exact=True).click()
    key = page.get_by_label("API key")
    key.fill("local")
    page.get_by_label("Deployed on RunPod").check()
    expect(key).to_be_empty()
    key.fill(KEY)
    page.get_by_label("On this machine").check()
    expect(key).to_have_value("local")
    page.get_by_label("Deployed on RunPod").check()
    expect(key).to_have_value(KEY)


def test_a_slow_start_is_told_in_the_dialog(open_page: Open, deployed: DeployedEndpoint) -> None:
    playground, waiting = open_page(), [{"status": "IN_QUEUE"}] * 3
    tell = deployed._tell
    deployed._take = lambda job: (  # type: ignore[method-assign, assignment, func-returns-value]
        deployed._statuses.update({"j": [*waiting, *completed(tell())]}) or {"id": "j", "status": "IN_QUEUE"}
    )
    connect(playground)
    expect(playground.page.locator("#connection-told")).to_have_text("Waiting for a worker to start…")
    playground.wait_form()
    expect(playground.page.locator("#connection-dialog")).to_be_hidden()


def test_a_form_that_is_known_is_there_at_once_and_starts_no_worker(open_page: Open, deployed: Any) -> None:
    playground = open_page()
    connect(playground, remember=True)
    playground.wait_form()
    expect(playground.page.locator("#connection-dialog")).to_be_hidden()
    asked = len(deployed.requests)
    playground.page.reload()
    playground.wait_form()
    expect(playground.page.locator("#model")).to_contain_text("as it was told the last time")
    assert len(deployed.requests) == asked


def test_a_wrong_key_and_a_wrong_id_are_told_at_their_field(open_page: Open) -> None:
    playground = open_page()
    page = playground.page
    connect(playground, key="rpa_WRONG")
    expect(page.locator("#connection-problem")).to_contain_text("The key is not accepted")
    expect(page.get_by_label("API key")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Endpoint id").fill("https://evil.example/x")
    page.get_by_role("button", name="Connect", exact=True).click()
    expect(page.locator("#connection-problem")).to_contain_text("letters, digits and hyphens")
    expect(page.get_by_label("Endpoint id")).to_be_focused()


def test_live_progress_shows_steps_and_previews(connected: Open, deployed: DeployedEndpoint) -> None:
    deployed.script = lambda job: [{"status": "IN_QUEUE"}, *map(progress, (2, 7)), *completed({"images": [PICTURE]})]
    playground = connected()
    page = playground.page
    playground.fill(prompt="a star").draw()
    expect(page.locator("#stage .state")).to_have_text("In the queue")
    expect(page.locator("#stage .state")).to_have_text("Drawing, step 2 of 10, 2 s left")
    expect(page.locator("#stage .preview img")).to_be_visible()
    expect(page.get_by_role("progressbar", name="Progress", exact=True)).to_have_attribute("value", "70")
    expect(page.get_by_role("progressbar", name="Progress of job 1")).to_have_attribute("value", "70")
    playground.wait_pictures()


def test_it_is_told_to_screen_readers_once_a_second_at_most(connected: Open, deployed: DeployedEndpoint) -> None:
    deployed.script = lambda job: [*map(progress, range(1, 4)), *completed({"images": [PICTURE]})]
    playground = connected()
    playground.watch_news()
    playground.fill(prompt="a star")
    for _ in range(12):  # jobs, each with news of its own, four at a time
        playground.draw()
    expect(playground.kept).to_have_count(12, timeout=20_000)
    playground.page.wait_for_timeout(1200)

    times = [time for time, _ in playground.told]
    assert len(times) >= 3 and "Done" in playground.told[-1][1]
    assert min(after - before for before, after in itertools.pairwise(times)) >= 950


def test_faults_that_pass_are_waited_for(connected: Open, deployed: DeployedEndpoint) -> None:
    playground = connected()
    statuses = [progress(1)]  # the last one stays until another comes
    deployed.script = lambda job: statuses
    playground.fill(prompt="a star").draw()
    expect(playground.page.locator("#stage .state")).to_contain_text("step 1")
    deployed.refusals += [429, 500]
    statuses += completed({"images": [PICTURE]})
    playground.wait_pictures()
    assert deployed.refusals == []


def test_a_job_that_is_cancelled_is_cancelled_there(connected: Open, deployed: DeployedEndpoint) -> None:
    deployed.script = lambda job: [{"status": "IN_QUEUE"}]
    playground = connected()
    playground.fill(prompt="a star").draw()
    expect(playground.page.locator("#stage .state")).to_have_text("In the queue")
    with playground.page.expect_response("**/cancel/*"):
        playground.page.get_by_role("button", name="Cancel job 1").click()
    expect(playground.page.locator("#stage .state")).to_have_text("Cancelled")
    expect(playground.page.locator("#draw")).to_be_focused()
    assert deployed.cancelled == ["job-0-u1"]


def test_jobs_that_are_not_over_are_followed_after_a_reload(connected: Open, deployed: DeployedEndpoint) -> None:
    """Also one that waited in the page; what was over is not asked for again."""
    playground = connected()
    page, queue = playground.page, playground.page.locator("#queue li")
    deployed.script = lambda job: completed({"images": [PICTURE], "seeds": [1]})
    playground.fill(prompt="over").draw()
    expect(playground.kept).to_have_count(1)
    deployed.script = lambda job: [{"status": "IN_PROGRESS"}]
    for number in range(5):  # one more than are sent at a time
        playground.fill(prompt=f"long {number}").draw()
    expect(queue).to_have_count(5)
    expect(queue.filter(has_text="Drawing")).to_have_count(4)
    page.reload()
    playground.wait_ready()
    expect(queue).to_have_count(5)
    expect(queue.first).to_contain_text("long 0")
    deployed.end_all(completed({"images": [PICTURE], "seeds": [2]}))
    expect(playground.kept).to_have_count(6)
    assert [job["prompt"] for job in deployed.jobs] == ["over", *(f"long {number}" for number in range(5))]
    page.reload()
    playground.wait_ready()
    expect(playground.kept).to_have_count(6)
    expect(queue).to_have_count(0)


def test_pictures_in_a_bucket_are_shown_from_there(connected: Open, deployed: DeployedEndpoint) -> None:
    url = "https://pictures.example.com/1/0.png?X-Amz-Signature=abc"
    deployed.script = lambda job: completed({"images": [url], "seeds": [5]})
    playground = connected()
    fetched = []
    playground.page.route(
        "https://pictures.example.com/**", lambda route: (fetched.append(route.request), route.abort())
    )
    playground.fill(prompt="a star").draw()
    expect(playground.kept).to_have_count(1)

    assert fetched and all("referer" not in one.all_headers() for one in fetched)
    expect(playground.page.locator("#stage .broken")).to_contain_text("bucket")


def test_a_worker_that_does_not_say_what_it_can_do_has_a_plain_form(open_page: Open, deployed: Any) -> None:
    playground = open_page()
    refused = [{"status": "FAILED", "error": "INVALID_INPUT: prompt: required, but missing"}]
    deployed._take = lambda job: deployed._statuses.update({"j": refused}) or {"id": "j", "status": "IN_QUEUE"}
    connect(playground)
    playground.wait_form()
    expect(playground.page.locator("#model")).to_contain_text("required, but missing")
    expect(playground.field("seed")).to_have_count(1)
    expect(playground.field("loras")).to_have_count(0)
