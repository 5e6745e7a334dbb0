"""Tab of a function's log in a browser."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on, urn_of
from tests.browser.axe import violations

LOGS = f"/console/projects/{PROJECT}/functions/noisy/logs"
NOISY = """
import sys

def handler(event, context):
    for number in range(event.get("lines", 1)):
        print(event["said"], number)
    if event.get("bad"):
        context.getLogger().error("no such customer: %s", event["said"])
        print("oh no", file=sys.stderr)
"""
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module", autouse=True)
def functions(engine: EngineProcess) -> None:
    engine.create("noisy", NOISY)
    engine.create("silent", NOISY)


def say(engine: EngineProcess, said: str, *, function: str = "noisy", **event: object) -> str:
    request_id = engine.accepted(function, {"said": said, **event})
    assert engine.record(function, request_id, wait=30)["status"] == "SUCCESS"
    return request_id


def lines(page: Page) -> Locator:
    return page.locator("#function-log li:visible code")


def show(page: Page, *, hidden: bool) -> None:
    """Tell the page that its tab is hidden or shown. Tabs of a headless browser are never hidden."""
    page.evaluate(
        """hidden => {
          Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_lines_appear_as_they_are_written(engine: EngineProcess, page: Page) -> None:
    engine.create("heard", NOISY)
    before = say(engine, EVIL, function="heard")
    page.goto(LOGS.replace("noisy", "heard"))
    expect(page.get_by_role("status")).to_have_text("Live")
    expect(lines(page)).to_have_text([f"{EVIL} 0"])
    after = say(engine, "second", function="heard", bad=True)

    expect(lines(page)).to_have_text([f"{EVIL} 0", "second 0", "ERROR no such customer: second", "oh no"])
    assert page.locator("li.wrong:visible").count() == 2
    assert page.get_by_role("link", name=before[:13]).first.get_attribute("href") == (
        f"/console/projects/{PROJECT}/invocations/{before}"
    )
    page.get_by_label("Errors only").check()
    expect(lines(page)).to_have_text(["ERROR no such customer: second", "oh no"])
    page.get_by_label("Errors only").uncheck()
    page.get_by_label("Text").fill("SECOND")
    expect(lines(page)).to_have_text(["second 0", "ERROR no such customer: second"])
    page.get_by_label("Text").fill("")
    page.get_by_label("Request id").fill(after)
    expect(lines(page)).to_have_count(3)
    page.get_by_label("Text").fill("nothing like it")
    expect(page.get_by_role("log")).to_contain_text("No line matches the filter")


def test_a_paused_log_keeps_the_new_lines_for_later(engine: EngineProcess, page: Page) -> None:
    request_id = say(engine, "one")
    page.goto(f"{LOGS}?request_id={request_id}")
    expect(lines(page)).to_have_text(["one 0"])
    page.goto(LOGS)
    expect(page.get_by_role("status")).to_have_text("Live")
    page.get_by_role("button", name="Pause", exact=True).click()
    before = lines(page).count()
    say(engine, "two", lines=3)
    expect(page.get_by_role("status")).to_have_text("Paused, 3 new lines")
    assert lines(page).count() == before
    page.get_by_role("button", name="Continue").click()
    expect(lines(page).last).to_have_text("two 2")


def test_a_long_log_is_bounded_and_ends_at_its_newest_line(engine: EngineProcess, page: Page) -> None:
    page.goto(LOGS)
    expect(page.get_by_role("status")).to_have_text("Live")
    say(engine, "x" * 200, lines=3000)
    expect(lines(page).last).to_have_text(f"{'x' * 200} 2999")

    assert page.locator("#function-log li").count() <= 2000
    box = page.get_by_role("log")
    assert box.evaluate("box => box.scrollHeight - box.scrollTop - box.clientHeight") < 5
    page.get_by_role("button", name="Clear").click()
    assert violations(page) == []


def test_a_hidden_log_has_no_stream_and_continues_where_it_was(
    engine: EngineProcess, context: BrowserContext, page: Page
) -> None:
    page.goto(LOGS)
    expect(page.get_by_role("status")).to_have_text("Live")
    page.get_by_role("button", name="Clear").click()
    say(engine, "seen", lines=2)
    expect(lines(page)).to_have_text(["seen 0", "seen 1"])
    with page.expect_event("requestfailed", lambda request: "/logs/stream" in request.url):
        show(page, hidden=True)
    engine.ask("POST", f"{BASE}/{urn_of('noisy')}/invocations", {"said": "meanwhile", "lines": 3})  # stored nowhere
    expect(lines(page)).to_have_count(2)
    with page.expect_response(lambda response: "/logs/stream" in response.url):
        show(page, hidden=False)
    say(engine, "after")

    expect(lines(page)).to_have_text(["seen 0", "seen 1", *(f"meanwhile {n}" for n in range(3)), "after 0"])
    expect(page.get_by_role("status")).to_have_text("Live")


def test_a_log_in_a_background_tab_begins_when_it_is_shown(context: BrowserContext) -> None:
    page = context.new_page()
    page.add_init_script("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(LOGS, wait_until="networkidle")
    assert not [url for url in asked if "/logs/stream" in url]
    show(page, hidden=False)
    expect(page.get_by_role("status")).to_have_text("Live")


def test_a_log_goes_on_after_a_restart_of_the_engine(tmp_path: Path, browser: Browser) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.asked_port = engine.port
        engine.create("noisy", NOISY)
        with closing(browser.new_context(base_url=engine.url)) as context:
            page = context.new_page()  # its console has the errors of requests while the engine is down
            say(engine, "before")
            page.goto(LOGS)
            expect(page.get_by_role("status")).to_have_text("Live")
            engine.stop()
            expect(page.get_by_role("status")).to_have_text("No connection; trying again")
            engine.start()
            expect(page.get_by_role("status")).to_have_text("Live")
            say(engine, "after")
            expect(lines(page)).to_have_text(["before 0", "after 0"])


def test_the_last_lines_are_there_without_scripts(engine: EngineProcess, plain_page: Page) -> None:
    request_id, page = say(engine, "plain", bad=True), plain_page
    page.goto(LOGS)
    page.get_by_label("Request id").fill(request_id)
    page.get_by_label("Errors only").check()
    page.get_by_role("button", name="Filter").click()
    expect(lines(page)).to_have_text(["ERROR no such customer: plain", "oh no"])
    page.get_by_label("Request id").fill("unknown")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#log-request-error")).to_contain_text("No invocation of this function")
    page.goto(LOGS.replace("noisy", "silent"))
    expect(page.get_by_role("log")).to_contain_text("No output yet")


def test_a_stream_needs_an_event_stream_and_a_known_invocation(engine: EngineProcess) -> None:
    stream = f"{LOGS}/stream"

    assert engine.ask("GET", stream).status == 400
    assert engine.ask("GET", f"{stream}?request_id=x", headers={"Accept": "text/event-stream"}).status == 404
    assert engine.ask("GET", f"{BASE}/{urn_of('noisy')}/logs").status == 200
