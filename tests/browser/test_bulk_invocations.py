"""Actions on many invocations of all functions of a project, in a browser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, urn_of
from tests.browser.axe import violations

HERE = f"/console/projects/{PROJECT}"
GOOD = "def handler(event, context):\n    return {'got': event}\n"


@pytest.fixture(autouse=True)
def functions(engine: EngineProcess) -> Iterator[None]:
    """Create the functions of the project for one test, then delete them with their invocations."""
    names = ("first", "second", "third")
    for name in names:
        engine.create(name, GOOD)
    yield
    for name in names:
        engine.delete(name)


@pytest.fixture
def waiting(engine: EngineProcess) -> Mapping[str, list[str]]:
    """Request ids of invocations that wait, by function."""
    return {name: [engine.accepted(name, {}, X_Functiond_Delay="600") for _ in range(4)] for name in ("first", "third")}


def test_many_are_cancelled_then_redriven_function_by_function(
    engine: EngineProcess, page: Page, waiting: Mapping[str, list[str]]
) -> None:
    page.goto(f"{HERE}/invocations?status=WAIT")
    page.get_by_role("link", name="Cancel these").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cancel invocations")
    expect(page.locator("main")).to_contain_text("8 wait. Cancelled ones end as FAIL")
    expect(page.locator("main")).to_contain_text(f"All functions of the project {PROJECT}")
    expect(page.locator("td[data-label=Function]")).to_have_text(["third"] * 4 + ["first"] * 4)
    assert violations(page) == []
    page.get_by_role("button", name="Cancel them").click()
    expect(page.get_by_role("status")).to_have_text("8 invocations cancelled.")
    assert {engine.record(name, sent)["error_code"] for name, ids in waiting.items() for sent in ids} == {4208}

    page.goto(f"{HERE}/invocations?code=4208")
    page.get_by_role("link", name="Run failed again").click()
    engine.ask("PUT", f"{BASE}/{urn_of('first')}/config-max-instance", {"max_instance_num": 0})
    page.get_by_role("button", name="Run them again").click()
    expect(page.get_by_role("alert")).to_contain_text("first: ")
    assert violations(page) == []
    page.get_by_role("button", name="Leave out first").click()
    expect(page.get_by_role("status")).to_have_text("4 invocations accepted again.")
    page.get_by_role("link", name="Show the new invocations").click()
    expect(page.get_by_role("link", name="third")).to_have_count(4)
    expect(page.get_by_role("link", name="first")).to_have_count(0)


def test_other_filters_hold_and_later_ones_stay(
    engine: EngineProcess, plain_page: Page, waiting: Mapping[str, list[str]]
) -> None:
    page = plain_page
    page.goto(f"{HERE}/invocations?source=API")
    page.get_by_role("link", name="Cancel these").click()
    later = engine.accepted("second", {}, X_Functiond_Delay="600")
    with page.expect_navigation():
        page.get_by_role("button", name="Cancel them").click()
    while (button := page.get_by_role("button", name="Continue")).count():
        with page.expect_navigation():
            button.click()
    expect(page.get_by_role("status")).to_have_text("8 invocations cancelled.")
    assert engine.record("second", later)["status"] == "WAIT"
    page.goto(f"{HERE}/cancel-invocations?source=TIMER")
    expect(page.get_by_role("main")).to_contain_text("Nothing that matches waits or runs")
    page.goto(f"{HERE}/invocations?request={later[:18]}")
    expect(page.get_by_role("main")).to_contain_text("remove these filters")
    expect(page.get_by_role("link", name="Cancel these")).to_have_count(0)
