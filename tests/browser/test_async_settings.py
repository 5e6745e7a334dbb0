"""Asynchronous settings of a function in a browser."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.engine_process import PROJECT, EngineProcess, urn_of
from tests.browser.configured import CODE, HOSTILE, save

HERE = f"/console/projects/{PROJECT}/functions/{{}}/configuration/asynchronous"
FULL: dict[str, Any] = {
    "max_async_event_age_in_seconds": 60,
    "max_async_retry_attempts": 3,
    "enable_async_status_log": True,
    "log_group_name": "states",
    "destination_config": {
        "on_success": {"destination": "obs", "param": '{"bucket": "outcomes",  "prefix":"a/", "expires": 7, "x": 1}'},
        "on_failure": {"destination": "WEBHOOK", "param": '{"url": "http://127.0.0.1:9/hook"}'},
    },
    "retry_rules": [
        {"error_type": HOSTILE, "max_retries": 8, "base": 5.5, "factor": 2.0, "longest": 600.0, "jitter": 0.25},
        {"error_type": "ValueError", "message_prefix": f" {HOSTILE}", "max_retries": 0},
        {"code": 4010, "max_retries": 1, "base": 60.0},
    ],
}


@pytest.fixture(scope="module", autouse=True)
def functions(engine: EngineProcess) -> None:
    for name in ("full", "plain", "next"):
        engine.create(name, CODE)
    assert engine.ask("PUT", f"{of('full')}:latest/async-invoke-config", FULL).status == 200
    assert engine.ask("POST", f"{of('plain')}/versions", {"version": "one"}).status == 200
    assert engine.ask("POST", f"{of('plain')}/aliases", {"name": "prod", "version": "one"}).status == 200


def of(name: str) -> str:
    return f"/v2/{PROJECT}/fgs/functions/{urn_of(name).removesuffix(':latest')}"


def settings(engine: EngineProcess, name: str, version: str = "latest") -> dict[str, Any]:
    shown: dict[str, Any] = engine.ask("GET", f"{of(name)}:{version}/async-invoke-config").json
    return shown


def test_a_form_that_is_saved_unchanged_changes_nothing(engine: EngineProcess, page: Page) -> None:
    before = settings(engine, "full")
    page.goto(HERE.format("full"))
    save(page)

    expect(page.get_by_role("status")).to_contain_text("Nothing was changed")
    assert settings(engine, "full") == before

    page.get_by_label("Maximum age (s)").fill("61")
    save(page)

    expect(page.get_by_role("status")).to_contain_text("Saved")
    after = settings(engine, "full")
    assert {**after, "last_modified": ""} == {**before, "max_async_event_age_in_seconds": 61, "last_modified": ""}


def test_settings_are_made_changed_and_removed(engine: EngineProcess, page: Page) -> None:
    page.goto(HERE.format("plain"))
    expect(page.get_by_role("main")).to_contain_text("has no asynchronous settings")
    save(page)
    expect(page.get_by_role("status")).to_contain_text("Nothing was changed")

    page.get_by_label("Maximum retries").fill("2")
    failure = page.get_by_role("group", name="On failure")
    failure.get_by_label("FunctionGraph").check()
    failure.get_by_label("Function URN").fill(urn_of("next"))
    page.get_by_role("button", name="Add rule").click()
    rule = page.get_by_role("group", name="Rule 1")
    rule.get_by_label("Error type").fill("Busy")
    rule.get_by_label("Then").select_option("Up to 5 retries")
    page.get_by_role("button", name="Add rule").click()
    second = page.get_by_role("group", name="Rule 2")
    second.get_by_label("Error code").select_option("4010 timeout")
    second.get_by_label("Then").select_option("Do not retry")
    second.get_by_role("button", name="Move up").click()
    save(page)

    expect(page.get_by_role("status")).to_contain_text("Saved")
    made = settings(engine, "plain")
    assert (made["max_async_retry_attempts"], made["max_async_event_age_in_seconds"]) == (2, 86_400)
    assert made["retry_rules"] == [{"code": 4010, "max_retries": 0}, {"error_type": "Busy", "max_retries": 5}]
    assert json.loads(made["destination_config"]["on_failure"]["param"]) == {"func_urn": urn_of("next")}

    page.get_by_role("group", name="Rule 1").get_by_role("button", name="Remove").click()
    page.get_by_role("group", name="On failure").get_by_label("None").check()
    save(page)

    expect(page.get_by_role("status")).to_contain_text("Saved")
    assert settings(engine, "plain")["retry_rules"] == [{"error_type": "Busy", "max_retries": 5}]
    assert settings(engine, "plain")["destination_config"] == {}

    page.get_by_role("button", name="Remove settings").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove settings").click()

    expect(page.get_by_role("status")).to_contain_text("removed")
    assert engine.ask("GET", f"{of('plain')}:latest/async-invoke-config").status == 404


def test_what_is_refused_stands_beside_its_field(page: Page) -> None:
    page.goto(HERE.format("full"))
    page.get_by_label("Maximum retries").fill("9")
    save(page)
    expect(page.locator(".field.wrong")).to_contain_text("from 0 to 3")
    page.get_by_label("Maximum retries").fill("3")

    hook = page.get_by_role("group", name="On failure")
    hook.get_by_label("URL").fill("ftp://x")
    save(page)
    expect(hook.locator(".field.wrong")).to_contain_text("begins with http://")
    expect(hook.get_by_label("URL")).to_have_value("ftp://x")
    hook.get_by_label("URL").fill("")
    save(page)
    expect(hook.locator(".field.wrong")).to_contain_text("Enter a value")
    hook.get_by_label("URL").fill("http://127.0.0.1:9/hook")

    rule = page.get_by_role("group", name="Rule 3")
    rule.get_by_label("First delay").fill("many")
    save(page)
    expect(rule.locator(".field.wrong")).to_contain_text("must be a number")


def test_settings_belong_to_versions_and_aliases_show_theirs(engine: EngineProcess, page: Page) -> None:
    page.goto(HERE.format("plain"))
    page.get_by_role("link", name="prod → one").click()
    expect(page.get_by_role("main")).to_contain_text("The alias prod selects version one")
    page.get_by_label("Write each state to the status log").check()
    save(page)

    expect(page.get_by_role("status")).to_contain_text("Saved")
    assert settings(engine, "plain", "one")["enable_async_status_log"] is True
    assert engine.ask("GET", f"{of('plain')}:latest/async-invoke-config").status == 404


def test_the_status_log_shows_the_states_of_the_version(engine: EngineProcess, page: Page) -> None:
    page.goto(f"{HERE.format('full')}/status-log")
    expect(page.get_by_role("main")).to_contain_text("No lines")

    assert engine.ask("PUT", f"{of('full')}:latest/async-invoke-config", FULL).status == 200
    request_id = engine.accepted("full")
    engine.record("full", request_id, wait=30)

    page.get_by_role("link", name="Settings of latest").click()
    page.get_by_role("link", name="Lines of the stream").click()
    row = page.get_by_role("row").filter(has_text=request_id)
    expect(row.filter(has_text="SUCCESS")).to_have_count(1)


def test_the_form_works_without_scripts(engine: EngineProcess, plain_page: Page) -> None:
    page = plain_page
    page.goto(HERE.format("next"))
    page.get_by_label("Maximum age (s)").fill("77")
    page.get_by_role("button", name="Add rule").click()
    page.get_by_role("group", name="Rule 1").get_by_label("Then").select_option("Retry once")
    page.get_by_role("button", name="Add rule").click()
    page.get_by_role("group", name="Rule 2").get_by_label("Error type").fill("Busy")
    page.get_by_role("group", name="Rule 2").get_by_label("Then").select_option("Do not retry")
    page.get_by_role("group", name="Rule 2").get_by_role("button", name="Move up").click()
    page.get_by_label("Maximum age (s)").press("Enter")

    expect(page.get_by_role("status")).to_contain_text("Saved")
    made = settings(engine, "next")
    assert made["retry_rules"] == [{"error_type": "Busy", "max_retries": 0}, {"max_retries": 1}]
    assert made["max_async_event_age_in_seconds"] == 77
