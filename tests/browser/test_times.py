"""Times in the zone of the browser, and the keyboard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.engine_process import PROJECT, EngineProcess

HERE = f"/console/projects/{PROJECT}"


@pytest.fixture(scope="module", autouse=True)
def hello(engine: EngineProcess) -> None:
    engine.create("hello", "def handler(event, context):\n    return event\n")


@pytest.fixture
def abroad(browser: Browser, engine: EngineProcess) -> Iterator[Page]:
    """Open a page in a browser whose clock is 5:45 hours ahead of UTC."""
    context = browser.new_context(base_url=engine.url, timezone_id="Asia/Kathmandu")
    yield context.new_page()
    context.close()


def test_times_are_local_with_utc_on_hover(engine: EngineProcess, abroad: Page) -> None:
    request_id = engine.accepted("hello")
    record = engine.record("hello", request_id, wait=30)
    utc = record["accept_time"].replace("T", " ").rstrip("Z")
    abroad.goto(f"{HERE}/invocations/{request_id}")
    accepted = abroad.locator(f"time[datetime='{record['accept_time']}']").first

    expect(abroad.get_by_role("contentinfo")).to_contain_text("Times are local (Asia/Katmandu)")
    expect(accepted).to_have_attribute("title", f"{utc} UTC")
    expect(accepted).not_to_have_text(utc)
    hours, minutes = map(int, accepted.inner_text().split(" ")[1].split(":")[:2])
    ahead = (hours * 60 + minutes - int(utc[11:13]) * 60 - int(utc[14:16])) % 1440
    assert ahead == 345
    abroad.get_by_role("button", name="Show UTC").click()
    expect(accepted).to_have_text(utc)
    abroad.reload()
    expect(accepted).to_have_text(utc)


def test_the_keyboard_reaches_the_content_and_closes_menus(page: Page) -> None:
    page.goto(f"{HERE}/queues?all=1")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()

    menu = page.get_by_label("Pause hello…")
    menu.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Reason")).to_be_focused()
    page.keyboard.press("Escape")
    expect(menu).to_be_focused()
    expect(page.get_by_label("Reason")).to_be_hidden()
    menu.click()
    page.get_by_role("heading", name="Queues").click()
    expect(page.get_by_label("Reason")).to_be_hidden()
