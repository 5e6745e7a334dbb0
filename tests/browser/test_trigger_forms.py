"""Forms of triggers in a browser: each kind is created, and changed, enabled, disabled and deleted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from engine.http.console.words import kind_name
from tests.acceptance.engine_process import PROJECT, EngineProcess, engine_on, urn_of
from tests.acceptance.triggering import GOOD
from tests.browser.axe import violations

HERE = f"/console/projects/{PROJECT}"
TRIGGERS = f"{HERE}/functions/hello/configuration/triggers"
API = f"/v2/{PROJECT}/fgs/triggers/{urn_of('hello')}"
HOSTILE = '"><script>alert(1)</script>\u202e' + "x" * 20
SECRET = "sixteen-characters-or-more"
FORMS = {**GOOD, "WEBHOOK": {"name": HOSTILE, "secret": SECRET, "scheme": "github"}}


DEFAULTS = {"polling_interval", "polling_unit", "is_serial", "batch_size"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    folder: Path = tmp_path_factory.mktemp("browser")
    settings = folder / "functiond.toml"
    settings.write_text("[plugins.apig]\nport = 0\n[plugins.apig.dedicated]\nport = 0\n")
    with engine_on(folder / "data", FUNCTIOND_CONFIG=str(settings)) as engine:
        engine.create("hello", "def handler(event, context):\n    return event\n")
        yield engine


def fill(page: Page, data: dict[str, Any], prefix: str = "event_data.") -> None:
    """Fill the fields of a form with the values of an ``event_data``."""
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    for key, value in data.items():
        field = page.locator(f'[name="{prefix}{key}"]')
        if isinstance(value, dict):
            fill(page, value, f"{prefix}{key}.")
        elif field.evaluate("one => one.tagName") == "SELECT":
            field.select_option(str(value))
        elif isinstance(value, bool):
            field.set_checked(value)
        else:
            field.fill("\n".join(value) if isinstance(value, list) else str(value))


def stored(engine: EngineProcess, kind: str) -> dict[str, Any]:
    [shown] = [trigger for trigger in engine.ask("GET", API).json if trigger["trigger_type_code"] == kind]
    trigger: dict[str, Any] = shown
    return trigger


def have(engine: EngineProcess, *kinds: str) -> None:
    """Replace the triggers of the function by one of each of these kinds."""
    assert engine.ask("DELETE", API).status == 204
    for kind in kinds:
        engine.trigger("hello", kind, FORMS[kind])


def test_each_kind_is_refused_when_empty_and_created_when_filled(engine: EngineProcess, page: Page) -> None:
    have(engine)
    page.goto(f"{TRIGGERS}/new")
    kinds = engine.ask("GET", f"/v2/{PROJECT}/fgs/triggertypes").json
    assert sorted(page.locator(".kinds b").all_text_contents()) == sorted(map(kind_name, FORMS))
    assert sorted(FORMS) == kinds

    for kind in kinds:
        page.goto(f"{TRIGGERS}/new?kind={kind}")
        page.get_by_role("button", name="Create").click()
        expect(page.get_by_role("alert")).to_contain_text("Correct the marked fields")
        expect(page.locator(".field.wrong .error").first).to_be_visible()
        assert set(page.locator(".field.wrong .error").all_text_contents()) == {"Enter a value."}
        fill(page, FORMS[kind])
        page.get_by_role("button", name="Create").click()

        expect(page.get_by_role("status"), kind).to_contain_text("is created")
        data = stored(engine, kind)["event_data"]
        given = {key for key in FORMS[kind] if "password" not in key and key not in ("secret", "func_info")}
        assert {key: FORMS[kind][key] for key in given & data.keys()} == {key: data[key] for key in given & data.keys()}
        assert given - data.keys() <= DEFAULTS  # values that equal their defaults are left out
        assert SECRET not in page.content()


def test_lists_show_modes_and_next_runs_and_hostile_names_as_text(engine: EngineProcess, page: Page) -> None:
    have(engine, "TIMER", "APIG", "WEBHOOK")
    page.goto(f"{HERE}/triggers")
    timer = page.get_by_role("row", name="nightly TIMER")

    expect(timer).to_contain_text("next run in")
    assert timer.locator("time").first.get_attribute("datetime").endswith("T03:00:00Z")  # type: ignore[union-attr]
    expect(timer).to_contain_text("Asynchronous (fixed)")
    expect(timer.locator(".mode")).to_have_attribute(
        "title", "TIMER triggers are invoked asynchronously by default, and the invocation mode cannot be changed."
    )
    expect(page.get_by_role("row", name="api APIG")).to_contain_text("Synchronous")
    expect(page.get_by_role("row", name="WEBHOOK")).to_contain_text("<script>alert(1)</script>")
    assert violations(page) == []


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("TIMER", {"schedule": "99m"}, "a Rate is 1m to 60m"),
        ("KAFKA", {"batch_size": 5000}, "from 1 to 1000"),
        ("WEBHOOK", {"secret": "short"}, "16 to 1024 characters"),
        ("OBS", {"events": ["s3:ObjectCreated:*", "Put"]}, "overlaps"),
        ("CTS", {"operations": ["one"]}, "needs Service:resource"),
        ("APIG", {"path": "/{a}/{a}"}, "different names"),
    ],
)
def test_bad_input_is_refused_beside_its_field(page: Page, kind: str, wrong: dict[str, Any], message: str) -> None:
    page.goto(f"{TRIGGERS}/new?kind={kind}")
    fill(page, {**FORMS[kind], "name": "x" * 20} if "name" in FORMS[kind] else FORMS[kind])
    if kind == "TIMER":
        fill(page, {"schedule_type": "Rate"})
    fill(page, wrong)
    page.get_by_role("button", name="Create").click()

    field = page.locator(".field.wrong")
    expect(field).to_have_count(1)
    expect(field.locator(".error")).to_contain_text(message)
    [key] = wrong
    assert field.locator("input, textarea").get_attribute("name") == f"event_data.{key}"
    assert field.locator("input, textarea").get_attribute("aria-invalid") == "true"


def test_a_timer_is_changed_disabled_enabled_and_deleted(engine: EngineProcess, page: Page) -> None:
    have(engine, "TIMER")
    before = stored(engine, "TIMER")
    page.goto(TRIGGERS)
    page.get_by_role("link", name="nightly", exact=True).click()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("Nothing was changed")
    assert stored(engine, "TIMER") == before

    page.get_by_label("Schedule").fill("0 0 4 * * *")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("Saved")
    assert stored(engine, "TIMER")["event_data"] == {**before["event_data"], "schedule": "0 0 4 * * *"}

    page.get_by_role("button", name="Disable").click()
    expect(page.get_by_role("status")).to_contain_text("disabled")
    assert stored(engine, "TIMER")["trigger_status"] == "DISABLED"
    page.get_by_role("button", name="Enable").click()
    expect(page.get_by_role("status")).to_contain_text("enabled")
    assert stored(engine, "TIMER")["trigger_status"] == "ACTIVE"
    assert violations(page) == []

    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status")).to_contain_text("deleted")
    assert [trigger for trigger in engine.ask("GET", API).json if trigger["trigger_type_code"] == "TIMER"] == []


def test_a_secret_is_kept_unless_another_is_typed(engine: EngineProcess, page: Page) -> None:
    have(engine, "RABBITMQ")
    page.goto(TRIGGERS)
    page.get_by_role("row", name="RABBITMQ").get_by_role("rowheader").get_by_role("link").click()
    expect(page.get_by_label("Password")).to_have_value("")
    page.get_by_label("Batch size").fill("7")
    page.get_by_role("button", name="Save").click()

    expect(page.get_by_role("status")).to_contain_text("Saved")
    data = stored(engine, "RABBITMQ")["event_data"]
    assert (data["batch_size"], data["access_password"]) == (7, "******")
    expect(page.get_by_text("A value is stored")).to_be_visible()


def test_the_project_page_leads_to_the_form_of_a_function(page: Page) -> None:
    page.goto(f"{HERE}/triggers")
    page.get_by_role("link", name="Create trigger").click()
    page.get_by_label("Function").fill("absent")
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".field.wrong")).to_contain_text("absent")
    page.get_by_label("Function").fill("hello")
    page.get_by_role("button", name="Next").click()

    expect(page.get_by_role("heading", name="Create trigger")).to_be_visible()
    assert violations(page) == []
