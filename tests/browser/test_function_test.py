"""Tests of a function in a browser: events, runs, results, saved events."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, urn_of
from tests.browser.axe import violations

HERE = f"/console/projects/{PROJECT}"
HOSTILE = "</textarea><script>alert(1)</script>"
SOURCE = """
import os
import time

def handler(event, context):
    print("line", str(event.get("text"))[:500])
    if event.get("slow"):
        time.sleep(event["slow"])
        print("later")
    if event.get("gate"):
        while not os.path.exists(event["gate"]):
            time.sleep(0.02)
        print("later" + chr(0x2028))  # ends a line in JavaScript
    if event.get("fails"):
        raise ValueError("no such order")
    return event
"""


@pytest.fixture(scope="module", autouse=True)
def functions(engine: EngineProcess) -> None:
    engine.create("hello", SOURCE)
    engine.ask("POST", f"{BASE}/{urn_of('hello')}/versions", {"version": "v1"})


def run(page: Page, event: object) -> None:
    page.goto(f"{HERE}/functions/hello/test")
    page.get_by_label("Event (JSON)").fill(event if isinstance(event, str) else json.dumps(event))
    page.get_by_role("button", name="Run").click()


def events(engine: EngineProcess) -> dict[str, str]:
    reply = engine.ask("GET", f"{BASE}/{urn_of('hello')}/events").json
    return {event["name"]: event["id"] for event in reply["events"]}


def test_a_synchronous_run_shows_result_log_and_duration(page: Page) -> None:
    run(page, {"text": HOSTILE + "x" * 10_000})

    outcome = page.get_by_role("region", name="succeeded")
    expect(outcome).to_contain_text(f'"text": "{HOSTILE}')
    expect(outcome).to_contain_text(f"line {HOSTILE}")
    expect(outcome.get_by_role("heading", level=2)).to_have_text(re.compile(r"succeeded in [\d.]+ ms"))
    expect(page.get_by_label("Event (JSON)")).to_have_value(re.compile("script"))
    assert violations(page) == []


def test_the_log_of_a_synchronous_run_appears_while_it_runs(engine: EngineProcess, page: Page, tmp_path: Path) -> None:
    gate, other = tmp_path / "gate", tmp_path / "other"
    other.touch()
    run(page, {"text": HOSTILE, "gate": str(gate)})
    log = page.get_by_role("log", name="Log of the run")
    expect(page.get_by_role("region", name="running")).to_be_visible()
    expect(log.locator("code")).to_have_text([f"line {HOSTILE}"])
    expect(page.get_by_role("button", name="Run")).to_be_disabled()
    engine.ask("POST", f"{BASE}/{urn_of('hello')}/invocations", {"text": "of another run", "gate": str(other)})
    assert violations(page) == []
    page.get_by_label("Event (JSON)").fill('{"text": "typed meanwhile"}')
    gate.touch()

    outcome = page.get_by_role("region", name="succeeded")
    expect(outcome).to_contain_text(f'"text": "{HOSTILE}"')
    expect(log.locator("code")).to_have_text([f"line {HOSTILE}", "later"])
    expect(page.get_by_label("Event (JSON)")).to_have_value('{"text": "typed meanwhile"}')
    page.get_by_role("button", name="Format").click()
    page.get_by_role("button", name="Run").click()
    expect(log.locator("code")).to_have_text(["line typed meanwhile"])
    assert violations(page) == []


def test_a_run_without_scripts_shows_the_end_of_its_log(plain_page: Page) -> None:
    run(plain_page, {"text": "plain"})
    expect(plain_page.get_by_role("region", name="succeeded").get_by_label("Log")).to_have_text("line plain")


def test_a_run_that_is_refused_says_why(engine: EngineProcess, page: Page) -> None:
    engine.ask("POST", f"{BASE}/{urn_of('hello')}/pause", {"reason": "a move"})
    run(page, {})
    expect(page.get_by_role("alert")).to_contain_text("a move")
    engine.ask("POST", f"{BASE}/{urn_of('hello')}/resume")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("region", name="succeeded")).to_be_visible()


def test_a_failed_run_shows_its_error_with_the_stack_trace(page: Page) -> None:
    run(page, {"fails": True})

    outcome = page.get_by_role("region", name="failed")
    expect(outcome).to_contain_text("ValueError: no such order")
    expect(page.get_by_label("Stack trace")).to_contain_text("in handler")
    expect(outcome).to_contain_text("line None")


def test_an_event_that_is_not_json_is_not_sent(page: Page) -> None:
    run(page, '{\n  "a": 1,\n  "b": \n}')

    expect(page.locator("#f-event-error")).to_contain_text("not valid JSON")
    expect(page.locator("#f-event-error")).to_contain_text("line 4")
    page.get_by_label("Event (JSON)").evaluate("one => { one.removeAttribute('data-json'); one.form.submit(); }")
    expect(page.locator("#f-event-error")).to_contain_text("not valid JSON at line 4, column 1")
    expect(page.get_by_label("Event (JSON)")).to_have_value('{\n  "a": 1,\n  "b": \n}')


def test_an_asynchronous_run_is_followed_on_its_page(engine: EngineProcess, page: Page) -> None:
    page.goto(f"{HERE}/functions/hello/test?from=sample:TIMER")
    expect(page.get_by_label("Event (JSON)")).to_have_value(re.compile('"trigger_type": "TIMER"'))
    page.get_by_label("Event (JSON)").fill('{"text": "first", "slow": 2}')
    page.get_by_label("Asynchronous").check()
    page.get_by_label("Priority").fill("12")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#f-X-Functiond-Priority-error")).to_contain_text("0 to 9")
    assert violations(page) == []
    page.get_by_label("Priority").fill("3")
    page.get_by_label("Version").select_option("v1")
    page.get_by_role("button", name="Run").click()

    expect(page).to_have_url(re.compile(r"/invocations/[0-9a-f-]{36}"))
    expect(page.get_by_role("main")).to_contain_text("line first")
    expect(page.get_by_role("main")).to_contain_text("later")
    record = engine.record("hello", page.url.rpartition("/")[2].partition("?")[0])
    assert (record["priority"], record["function_urn"].rpartition(":")[2]) == (3, "v1")


def test_each_kind_of_trigger_has_a_sample(engine: EngineProcess, page: Page) -> None:
    page.goto(f"{HERE}/functions/hello/test")
    samples = page.locator("#from optgroup[label='Samples of triggers'] option").all_inner_texts()
    page.get_by_label("Event", exact=True).select_option("sample:OBS")
    page.get_by_role("button", name="Load").click()

    expect(page.get_by_label("Event (JSON)")).to_have_value(re.compile("photos"))
    assert json.loads(page.get_by_label("Event (JSON)").input_value())["Records"][0]["s3"]["bucket"]["name"] == "photos"
    assert len(samples) == 16
    for kind in samples:
        shown = engine.ask("GET", f"{HERE}/functions/hello/test?from=sample:{kind}").body.decode()
        json.loads(unescape(re.findall("<textarea[^>]*>(.*?)</textarea>", shown, re.DOTALL)[0]))


def test_events_are_saved_replaced_and_deleted(engine: EngineProcess, page: Page) -> None:
    page.goto(f"{HERE}/functions/hello/test")
    page.get_by_label("Event (JSON)").fill('{"n":1}')
    page.get_by_text("Save this event").click()
    page.get_by_label("Name").fill("bad name!")
    page.get_by_role("button", name="Save event").click()
    expect(page.locator("#f-name-error")).to_contain_text("letters")
    page.get_by_label("Name").fill("order")
    page.get_by_role("button", name="Save event").click()
    expect(page.get_by_role("status")).to_contain_text("Saved the event order")
    page.get_by_role("button", name="Format").click()
    expect(page.get_by_label("Event (JSON)")).to_have_value('{\n  "n": 1\n}')
    page.get_by_label("Event (JSON)").fill('{"n": 2}')
    page.get_by_role("button", name="Save event").click()
    expect(page.get_by_label("Event (JSON)")).to_have_value('{"n": 2}')
    assert list(events(engine)) == ["order"]

    page.get_by_role("button", name="Delete the event order").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete the event order").click()

    expect(page.get_by_role("status")).to_contain_text("Deleted the event")
    assert events(engine) == {}
