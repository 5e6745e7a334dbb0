"""Invocations in a browser: lists with filters and pages, one invocation with its actions, actions on many."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on, to, to_function, urn_of
from tests.browser.axe import violations

HERE = f"/console/projects/{PROJECT}"
EVIL = "<script>alert(1)</script>\"'\u202e" + "x" * 300
GOOD = "def handler(event, context):\n    return {'got': event}\n"
BAD = """
def handler(event, context):
    print(event["text"])
    raise OSError("disk 7 is full: " + event["text"])
"""
SLOW = """
import time

def handler(event, context):
    print("begun")
    context.report_progress(0.4, "two of five")
    time.sleep(600)
"""
NOWHERE = to("SMN", topic_urn=f"urn:smn:local-1:{PROJECT}:gone")
IDS = "table.invocations tbody a.id"
CLOUD_EVENT = {"Content-Type": "application/cloudevents+json"}
EVENT = b'{"specversion": "1.0", "id": "1", "source": "shop", "type": "paid", "data": 1}'
CHAIN = to_function("good")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Run an engine with functions that succeed, fail, and take long."""
    with engine_on(tmp_path_factory.mktemp("invocations") / "data") as engine:
        for name, source in (("good", GOOD), ("bad", BAD), ("chained", BAD), ("slow", SLOW)):
            engine.create(name, source, timeout=600)
        engine.configure("bad", max_async_retry_attempts=1, destination_config={"on_failure": NOWHERE})
        engine.configure("chained", max_async_retry_attempts=0, destination_config={"on_failure": CHAIN})
        engine.configure("slow", max_async_retry_attempts=0)
        engine.ask("PUT", f"{BASE}/{urn_of('slow')}/config-max-instance", {"max_instance_num": 1})
        yield engine


@pytest.fixture(scope="module")
def failed(engine: EngineProcess) -> str:
    request_id = engine.accepted("bad", {"text": EVIL})
    assert engine.record("bad", request_id, wait=30)["status"] == "FAIL"
    return request_id


def test_a_list_is_filtered_and_hostile_texts_are_texts(page: Page, failed: str) -> None:
    page.goto(f"{HERE}/invocations")
    page.get_by_label("Text in the error").fill("DISK 7 is full: <script>")
    page.get_by_label("Accepted").select_option("1h")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(IDS)).to_have_text([failed])
    expect(page.locator("table.invocations .error")).to_contain_text("<script>alert(1)</script>")

    page.get_by_text("More filters").click()
    page.get_by_label("Error code").fill("4010")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("main")).to_contain_text("No invocation matches")

    page.get_by_role("link", name="Clear").click()
    page.get_by_label("Request id").fill(failed[:20].upper())
    page.get_by_label("Function").fill("bad")
    page.get_by_role("link", name="FAIL", exact=True).click()
    page.get_by_label("Request id").fill(failed[:20].upper())
    page.get_by_role("button", name="Search").click()
    expect(page.locator(IDS)).to_have_text([failed])
    assert "status=FAIL" in page.url

    page.get_by_label("Request id").fill(EVIL)
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#f-request-error")).to_contain_text("must be a request id")
    expect(page.get_by_label("Request id")).to_have_value(EVIL)
    assert violations(page) == []
    page.goto(f"{HERE}/invocations?function=nobody")
    expect(page.locator("#f-function-error")).to_contain_text("nobody")


def test_one_invocation_shows_what_happened_and_runs_again(engine: EngineProcess, page: Page, failed: str) -> None:
    page.goto(f"{HERE}/invocations/{failed}")
    expect(page.locator(".timeline > li")).to_have_count(2)
    expect(page.locator("#attempt-1")).to_contain_text("Retry in")
    [instance, *_] = [attempt["instance"] for attempt in engine.record("bad", failed)["attempts"]]
    expect(page.locator("#attempt-1")).to_contain_text(f"Instance {instance}")
    expect(page.locator("#attempt-2 .log")).to_contain_text("<script>alert(1)</script>")
    expect(page.locator(".traceback")).to_contain_text("OSError: disk 7 is full")
    assert json.loads(page.locator("#event-text").inner_text()) == {"text": EVIL}
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText('')")
    page.locator('[data-copy="event-text"]').click()
    while not (copied := page.evaluate("navigator.clipboard.readText()")):  # the page may be fetched again meanwhile
        page.wait_for_timeout(20)
    assert json.loads(copied) == {"text": EVIL}
    page.get_by_role("button", name="Deliver now").click()
    expect(page.get_by_role("status")).to_contain_text("tried again")

    page.get_by_role("link", name="Edit and run again").click()
    page.get_by_label("Event").fill('{"text": ')
    page.get_by_role("button", name="Run again").click()
    expect(page.locator("#f-event-error")).to_contain_text("is not JSON")
    expect(page.get_by_label("Event")).to_have_value('{"text": ')
    page.get_by_label("Event").fill('{"text": "edited"}')
    page.get_by_label("Delay in seconds").fill("-1")
    page.get_by_role("button", name="Run again").click()
    expect(page.locator("#f-delay-error")).to_contain_text("must be seconds")
    page.get_by_label("Delay in seconds").fill("600")
    page.get_by_label("Priority").select_option("5")
    page.get_by_role("button", name="Run again").click()
    expect(page.get_by_role("status")).to_contain_text(f"repeats {failed}")
    expect(page.locator("#event-text")).to_contain_text("edited")
    expect(page.locator(".why")).to_contain_text("due at")
    page.get_by_role("button", name="Cancel invocation").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel invocation").click()
    expect(page.locator("h1 .state")).to_have_text("FAIL")
    assert engine.record("bad", page.url.rpartition("/")[2])["error_code"] == 4208


def test_a_form_asks_before_the_other_scripts_have_arrived(engine: EngineProcess, page: Page) -> None:
    waiting = engine.accepted("bad", {}, **{"X-Functiond-Delay": "600"})
    page.route(re.compile(r"/(?!forms|selection)\w+\.js$"), lambda route: None)  # never arrive
    page.goto(f"{HERE}/invocations/{waiting}", wait_until="commit")
    page.get_by_role("button", name="Cancel invocation").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel", exact=True).click()
    assert engine.record("bad", waiting)["status"] == "WAIT"


def test_causes_and_what_they_caused_link_to_each_other(engine: EngineProcess, page: Page) -> None:
    cause = engine.accepted("chained", {"text": "cause"})
    engine.record("chained", cause, wait=30)
    page.goto(f"{HERE}/invocations/{cause}")
    page.get_by_role("button", name="Redrive").click()
    expect(page.get_by_role("status")).to_contain_text(f"repeats {cause}")
    new = page.locator("#request-id").inner_text()
    page.locator(".facts div", has_text="Repeats").get_by_role("link", name=cause).click()
    expect(page.locator(".facts div", has_text="Repeated by")).to_contain_text(new)
    child = page.locator(".facts div", has_text="Its outcome is the event of").get_by_role("link")
    expect(child).to_have_count(1)
    child.click()
    expect(page.locator(".facts")).to_contain_text("SourceFunctionGraph")
    page.locator(".facts div", has_text="Cause: its outcome is the event").get_by_role("link", name=cause).click()
    expect(page.locator("#request-id")).to_have_text(cause)


def test_invocations_of_one_trigger_are_found_also_after_its_deletion(engine: EngineProcess, page: Page) -> None:
    api, lists = f"/v2/{PROJECT}/fgs/triggers/{urn_of('good')}", f"{BASE}/{urn_of('good')}/async-invocations"
    engine.ask("POST", f"{BASE}/{urn_of('good')}/pause", {})
    triggers, sent = list[str](), list[str]()
    for name in ("one", "two"):
        made = engine.trigger("good", "EVENTGRID", {"channel_id": name, "trigger_name": name})
        triggers.append(made["trigger_id"])
        engine.ask("POST", f"/triggers/eventgrid/{name}", EVENT, headers=CLOUD_EVENT)
        [item] = engine.ask("GET", f"{lists}?trigger_id={triggers[-1]}").json["invocations"]
        sent.append(item["request_id"])
    (first, second), (request_id, other) = triggers, sent

    page.goto(f"{HERE}/triggers")
    page.get_by_role("link", name="one", exact=True).click()
    page.get_by_role("link", name="Invocations", exact=True).last.click()
    expect(page.locator(IDS)).to_have_text([request_id])
    page.get_by_role("link", name="Cancel these").click()
    expect(page.locator("main")).to_contain_text("1 waits")
    expect(page.locator("main")).to_contain_text(f"Trigger: {first}")
    page.get_by_role("button", name="Cancel them").click()
    expect(page.get_by_role("status")).to_have_text("1 invocation cancelled.")

    page.goto(f"{HERE}/invocations")
    page.get_by_text("More filters").click()
    page.get_by_label("Trigger").select_option("good: two (EVENTGRID)")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(IDS)).to_have_text([other])
    page.get_by_role("link", name=other).click()
    expect(page.locator(".facts").get_by_role("link", name="two")).to_be_visible()

    assert engine.ask("DELETE", f"{api}/EVENTGRID/{second}").status == 204
    page.reload()
    expect(page.locator(".facts")).to_contain_text(f"deleted trigger {second}")
    page.goto(f"{HERE}/functions/good/invocations?trigger={second}")
    expect(page.locator(IDS)).to_have_text([other])
    expect(page.get_by_label("Trigger")).to_have_value(second)
    expect(page.locator("table.invocations .state")).to_have_text("WAIT")
    assert violations(page) == []
    engine.ask("POST", f"{BASE}/{urn_of('good')}/resume")


def test_a_running_invocation_shows_progress_and_is_not_green(engine: EngineProcess, page: Page) -> None:
    first, second = [engine.accepted("slow", {}) for _ in range(2)]
    page.goto(f"{HERE}/invocations/{first}")
    expect(page.locator("main")).to_contain_text("two of five")
    expect(page.locator("#attempt-1 .log")).to_contain_text("begun")
    assert page.locator("h1 .state").get_attribute("class") == "state busy"
    page.goto(f"{HERE}/invocations/{second}")
    expect(page.locator(".why")).to_contain_text("raise max_instances")

    for request_id in (first, second):
        engine.cancel("slow", request_id)
    expect(page.locator("h1 .state")).to_have_text("FAIL")
