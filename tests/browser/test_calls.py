"""Calls and groups in a browser: the page of an invocation that has queued others, and of a member of a group."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on, until
from tests.browser.axe import violations
from tests.support.functions_that_call import CALLING

HERE = f"/console/projects/{PROJECT}/invocations"
FGS = BASE.removesuffix("/functions")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_on(tmp_path_factory.mktemp("calls") / "data") as engine:
        engine.create("calling", CALLING)
        yield engine


def fact(page: Page, name: str) -> str:
    return page.locator(".facts div", has=page.get_by_text(name, exact=True)).locator("dd").inner_text()


def test_a_page_shows_the_calls_of_an_invocation_and_links_to_their_list(engine: EngineProcess, page: Page) -> None:
    root = engine.accepted("calling", {"levels": [25]})
    until(lambda: engine.record("calling", root).get("children") == 25)
    page.goto(f"{HERE}/{root}")
    expect(page.get_by_role("heading", name="Calls")).to_contain_text("25")
    calls = page.locator("section", has=page.locator("#calls"))
    expect(calls.locator("tbody tr")).to_have_count(20)
    assert not violations(page)

    page.get_by_role("link", name="All calls").click()
    expect(page.locator("table.invocations tbody tr")).to_have_count(25)
    expect(page.get_by_label("Queued by")).to_have_value(root)
    page.locator("table.invocations tbody a.id").first.click()
    assert fact(page, "Queued by").startswith(root)

    page.goto(f"{HERE}?parent=nobody")
    expect(page.get_by_role("main")).to_contain_text("must be a request id of this engine")


def test_a_page_shows_the_progress_of_a_group_and_the_place_in_it(engine: EngineProcess, page: Page) -> None:
    made = engine.ask("POST", f"{FGS}/groups", {"then": [{"function": "calling"}], "require": "ended"}).json
    calls = [{"function": "calling", "event": {"levels": []}, "delay": 3600 * n} for n in range(3)]
    group = {"id": made["group_id"], "first": 0}
    sent = engine.ask("POST", f"{FGS}/calls", {"calls": calls, "group": group}).json["results"]
    engine.ask("POST", f"{FGS}/groups/{made['group_id']}/seal", {"total": 3})
    engine.record("calling", sent[0]["request_id"], wait=30)

    page.goto(f"{HERE}/{made['request_id']}")
    assert fact(page, "Waits for its group").startswith("1 / 3 ended")
    assert not violations(page)
    page.goto(f"{HERE}/{sent[2]['request_id']}")
    assert fact(page, "Member of a group").startswith(f"place 2 in the group of {made['group_id']}: 1 / 3 ended")


def test_a_page_links_to_the_call_before_it_in_a_chain(engine: EngineProcess, page: Page) -> None:
    chain = {"function": "calling", "event": {"levels": []}, "delay": 3600, "then": [{"function": "calling"}]}
    [last] = engine.ask("POST", f"{FGS}/calls", {"calls": [chain]}).json["results"]
    page.goto(f"{HERE}/{last['request_id']}")
    page.locator(".facts div", has=page.get_by_text("Gets the result of")).get_by_role("link").click()
    expect(page.locator("#request-id")).not_to_have_text(last["request_id"])
    expect(page.locator(".facts")).to_contain_text("CALL")
