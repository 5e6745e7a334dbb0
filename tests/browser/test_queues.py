"""Page of queues in a browser: what waits and why, pause, resume, purge."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, until, urn_of
from tests.browser.axe import violations

QUEUES = f"/console/projects/{PROJECT}/queues"
SLOW = "import time\n\ndef handler(event, context):\n    time.sleep(600)\n"
WHY = "<i>the bucket moves</i>"


@pytest.fixture(scope="module", autouse=True)
def functions(engine: EngineProcess) -> None:
    """Run an engine whose functions wait for different reasons."""
    for name in ("busy", "still", "later"):
        engine.create(name, SLOW, timeout=600)
    engine.create("idle", SLOW)
    keep_busy(engine, "busy")
    pause(engine, "still")
    engine.accepted("later", X_Functiond_Delay="90000")


def keep_busy(engine: EngineProcess, name: str) -> str:
    """Have a function run one of 12 invocations, and return its request id once it runs."""
    engine.ask("PUT", f"{BASE}/{urn_of(name)}/config-max-instance", {"max_instance_num": 1})
    running, *_ = [engine.accepted(name) for _ in range(12)]
    until(lambda: engine.record(name, running)["status"] == "RUNNING")
    return running


def pause(engine: EngineProcess, name: str) -> None:
    """Pause a function, which then gets three invocations with the same ordering key."""
    engine.ask("POST", f"{BASE}/{urn_of(name)}/pause", {"reason": WHY})
    for _ in range(3):
        engine.accepted(name, X_Functiond_Ordering_Key="customer")


def row_of(page: Page, name: str) -> str:
    return page.get_by_role("row").filter(has_text=name).inner_text()


def test_each_queue_says_what_waits_and_why(page: Page) -> None:
    page.goto(QUEUES)
    busy, still, later = [row_of(page, name) for name in ("busy", "still", "later")]

    assert ("11 ready" in busy, "its limit is 1" in busy, "1 at a time" in busy) == (True, True, True)
    assert ("1 ready" in still, "2 held" in still, WHY in still) == (True, True, True)
    assert ("1 delayed" in later, "due in 1 d" in later, "none is ready" in later) == (True, True, True)
    assert page.get_by_role("link", name="idle").count() == 0
    page.get_by_role("link", name="All", exact=True).click()
    assert "Nothing waits" in row_of(page, "idle")
    assert page.locator(".tile").filter(has_text="Slots in use").inner_text().split()[3:6] == ["1", "of", "16"]


def test_a_queue_is_paused_with_a_reason_and_resumed(engine: EngineProcess, page: Page) -> None:
    page.goto(QUEUES)
    page.get_by_label("Pause later…").click()
    page.get_by_label("Reason").locator("visible=true").fill('a "reason" & more')
    page.get_by_role("button", name="Pause", exact=True).click()

    expect(page.get_by_role("row").filter(has_text="later")).to_contain_text('a "reason" & more')
    page.get_by_role("button", name="Resume later").click()
    expect(page.get_by_role("status")).to_contain_text("Resumed")
    assert engine.ask("GET", f"{BASE}/{urn_of('later')}/controls").json["paused"] is False


def test_what_waits_is_purged_after_a_count_and_a_sample(engine: EngineProcess, page: Page) -> None:
    engine.create("purged", SLOW, timeout=600)
    running = keep_busy(engine, "purged")
    page.goto(QUEUES)
    page.get_by_label("Cancel what waits of purged…").click()
    expect(page.get_by_role("main")).to_contain_text("11 wait, 1 runs")
    expect(page.locator("tbody tr")).to_have_count(10)
    assert violations(page) == []
    page.get_by_role("button", name="Cancel them").click()

    expect(page.get_by_role("status")).to_contain_text("11 invocations cancelled")
    states = engine.ask("GET", f"{BASE}/{urn_of('purged')}/async-invocations?limit=50").json["invocations"]
    assert sorted(state["status"] for state in states) == ["FAIL"] * 11 + ["RUNNING"]
    engine.cancel("purged", running)
    assert engine.record("purged", running, wait=30)["status"] == "FAIL"


def test_a_purge_works_without_scripts(engine: EngineProcess, plain_page: Page) -> None:
    engine.create("plain", SLOW)
    pause(engine, "plain")
    page = plain_page
    page.goto(QUEUES)
    page.get_by_label("Cancel what waits of plain…").click()
    page.get_by_role("button", name="Cancel them").click()
    expect(page.get_by_role("status")).to_contain_text("3 of 3 cancelled")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("status")).to_contain_text("3 invocations cancelled")
    page.goto(QUEUES)
    expect(page.get_by_role("row").filter(has_text="plain")).to_contain_text("Nothing waits")
