"""Configuration of a function in a browser, except its versions, triggers and asynchronous settings."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, Route, expect

from tests.acceptance.engine_process import EngineProcess
from tests.browser.axe import violations
from tests.browser.configured import (
    CODE,
    CONTROLS,
    HERE,
    HOSTILE,
    config,
    controls,
    create_full,
    everything,
    of,
    save,
    tags,
)

#: Pages with the number of their forms that are saved.
FORMS = {
    "configuration": 1,
    "configuration/environment": 1,
    "configuration/concurrency": 2,
    "configuration/tags": 1,
    "configuration/aliases/prod": 1,
    "configuration/reserved/!prod": 1,
}


@pytest.fixture(scope="module", autouse=True)
def functions(engine: EngineProcess) -> None:
    create_full(engine)


def test_a_page_that_is_saved_unchanged_changes_nothing(engine: EngineProcess, page: Page) -> None:
    before = everything(engine, "full")
    for path, buttons in FORMS.items():
        for number in range(buttons):
            page.goto(f"{HERE}/full/{path}")
            page.get_by_role("button", name="Save", exact=True).nth(number).click()

            expect(page.get_by_role("status")).to_contain_text("Nothing was changed")

    assert everything(engine, "full") == before
    assert controls(engine, "full") == CONTROLS


def test_basic_settings_are_saved(engine: EngineProcess, page: Page) -> None:
    before = config(engine, "full")
    page.goto(f"{HERE}/full/configuration")
    page.get_by_label("Timeout (seconds)", exact=True).fill("20")
    page.get_by_label("Memory", exact=True).select_option("512")
    page.get_by_label("Callers may choose the memory").uncheck()
    page.get_by_label("Log stream").fill("returns")
    save(page)

    expect(page.get_by_role("status")).to_contain_text("Saved")
    after = config(engine, "full")
    wanted: dict[str, object] = {"timeout": 20, "memory_size": 512, "enable_dynamic_memory": False}
    wanted["log_config"] = {**before["log_config"], "stream_name": "returns"}
    changed = {name for name in after if after[name] != before[name]}
    assert {name: after[name] for name in wanted} == wanted
    assert changed - {"last_modified", "image_name", "cpu"} == set(wanted)


def test_an_invalid_value_is_explained_beside_its_field(engine: EngineProcess, page: Page) -> None:
    before = config(engine, "plain")
    page.goto(f"{HERE}/plain/configuration")
    page.get_by_label("Handler", exact=True).fill(HOSTILE * 2)
    save(page)

    expect(page.get_by_label("Handler", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Handler", exact=True)).to_have_value(HOSTILE * 2)
    expect(page.locator("#s-handler-error")).to_contain_text("needs the form file.function")
    assert violations(page) == []

    page.get_by_label("Handler", exact=True).fill("index.other")
    page.get_by_label("Timeout (seconds)", exact=True).fill("soon")
    save(page)

    expect(page.locator("#s-timeout-error")).to_contain_text("must be a whole number from 3 to 259200")
    assert config(engine, "plain") == before


def test_variables_are_added_renamed_and_removed(engine: EngineProcess, page: Page) -> None:
    page.goto(f"{HERE}/plain/configuration/environment")
    page.get_by_label("Name, row 1").first.fill("PEM")
    page.get_by_label("Value, row 1").first.fill(f"{HOSTILE}\n two ")
    page.get_by_label("Name, row 1").nth(1).fill("SECRET")
    page.get_by_label("Value, row 1").nth(1).fill("hunter2")
    save(page)

    expect(page.get_by_role("status")).to_contain_text("Saved")
    shown = config(engine, "plain")
    assert json.loads(shown["user_data"]) == {"PEM": f"{HOSTILE}\n two "}
    assert json.loads(shown["encrypted_user_data"]) == {"SECRET": "hunter2"}
    assert "hunter2" not in page.content()

    page.get_by_label("Name, row 1").nth(1).fill("RENAMED")
    page.get_by_role("button", name="Remove row 1").first.click()
    page.get_by_role("button", name="Add variable").click()
    page.keyboard.type("SHOP")
    save(page)

    expect(page.get_by_role("status")).to_contain_text("Saved")
    shown = config(engine, "plain")
    assert json.loads(shown["user_data"]) == {"SHOP": ""}
    assert json.loads(shown["encrypted_user_data"]) == {"RENAMED": "hunter2"}


def test_a_variable_that_is_typed_before_the_scripts_have_arrived_is_kept(page: Page) -> None:
    name = page.get_by_label("Name, row 3").first

    def type_first(script: Route) -> None:
        name.fill("EARLY")
        script.continue_()

    page.route("**/rows.js", type_first)
    page.goto(f"{HERE}/full/configuration/environment")

    expect(page.get_by_role("button", name="Add variable")).to_be_visible()
    expect(name).to_have_value("EARLY")


def test_an_invalid_variable_is_explained_in_its_row(engine: EngineProcess, page: Page) -> None:
    before = config(engine, "full")
    page.goto(f"{HERE}/full/configuration/environment")
    page.get_by_label("Name, row 1").first.fill("1 2")
    save(page)

    expect(page.locator("#row-1-error")).to_contain_text("needs a letter or _")
    page.get_by_label("Name, row 1").first.fill("PEM")
    save(page)

    expect(page.locator("#row-2-error")).to_contain_text("PEM is given twice")
    assert config(engine, "full") == before


def test_concurrency_and_controls_are_saved(engine: EngineProcess, page: Page) -> None:
    page.goto(f"{HERE}/plain/configuration/concurrency")
    page.get_by_label("Instances", exact=True).select_option("limited")
    for number in ("", "0", "1001", "two"):
        page.get_by_label("Most instances").fill(number)
        with page.expect_navigation():
            page.get_by_role("button", name="Save", exact=True).first.click()

        expect(page.locator("#s-concurrency-error")).to_contain_text("enter a whole number from 1 to 1,000")
    page.get_by_label("Most instances").fill("7")
    page.get_by_label("Requests per instance").fill("2")
    page.get_by_label("Weight").fill("0.5")
    page.get_by_role("button", name="Save", exact=True).first.click()

    expect(page.get_by_role("status")).to_contain_text("Saved")
    shown = config(engine, "plain")
    assert shown["strategy_config"] == {"concurrency": 7, "concurrent_num": 2}
    assert shown["functiond"] == {"weight": 0.5}

    page.get_by_label("Instances", exact=True).select_option("unlimited")
    expect(page.get_by_label("Most instances")).to_be_hidden()
    page.get_by_role("button", name="Save", exact=True).first.click()

    expect(page.get_by_role("status")).to_contain_text("Saved")
    assert config(engine, "plain")["strategy_config"] == {"concurrency": -1, "concurrent_num": 2}

    page.get_by_label("Start rate").fill("2.5")
    page.get_by_label("Memory of an instance").fill("101")
    page.get_by_role("button", name="Save", exact=True).nth(1).click()

    expect(page.locator("#s-recycle_memory-error")).to_contain_text("from 0 to 100")
    page.get_by_label("Memory of an instance").fill("90")
    page.get_by_role("button", name="Save", exact=True).nth(1).click()

    expect(page.get_by_role("status")).to_contain_text("Saved")
    shown = controls(engine, "plain")
    assert (shown["rate"], shown["recycle_memory"], shown["burst"]) == (2.5, 90, 1)


def test_a_pause_has_a_reason_that_can_be_changed(engine: EngineProcess, page: Page) -> None:
    page.goto(f"{HERE}/plain/configuration/concurrency")
    for reason, button in (("moving", "Pause the function"), (HOSTILE, "Change the reason")):
        page.get_by_label("Reason for the pause").fill(reason)
        save(page, button)

        expect(page.get_by_role("status")).to_contain_text("Paused")
        assert controls(engine, "plain")["pause_reason"] == reason

    save(page, "Resume the function")

    expect(page.get_by_role("status")).to_contain_text("Resumed")
    assert controls(engine, "plain")["paused"] is False


def test_tags_are_replaced(engine: EngineProcess, page: Page) -> None:
    engine.ask("POST", tags("plain", "/create"), {"tags": [{"key": "old", "value": "1"}, {"key": "kept"}]})
    page.goto(f"{HERE}/plain/configuration/tags")
    page.get_by_label("Name, row 2").fill("<b>")
    save(page)

    expect(page.locator("#row-2-error")).to_contain_text("needs 1 to 128 letters")
    page.get_by_label("Name, row 2").fill("new")
    save(page)

    expect(page.get_by_role("status")).to_contain_text("Saved")
    shown = engine.ask("GET", tags("plain")).json
    assert shown["tags"] == [{"key": "kept", "value": ""}, {"key": "new", "value": "1"}]


def test_forms_work_without_scripts(engine: EngineProcess, plain_page: Page) -> None:
    page = plain_page
    engine.create("quiet", CODE, user_data='{"OLD": "1"}')
    page.goto(f"{HERE}/quiet/configuration/environment")
    page.get_by_label("Name, row 1").first.fill("")
    page.get_by_label("Name, row 2").first.fill("NEW")
    page.get_by_label("Value, row 2").first.fill("two")
    save(page)
    expect(page.get_by_text("needs a name; remove the row to delete OLD")).to_be_visible()
    assert json.loads(config(engine, "quiet")["user_data"]) == {"OLD": "1"}
    page.get_by_label("Remove OLD").check()
    save(page)

    expect(page.get_by_role("status")).to_contain_text("Saved")
    assert json.loads(config(engine, "quiet")["user_data"]) == {"NEW": "two"}


def test_a_change_by_somebody_else_is_not_replaced_unseen(engine: EngineProcess, page: Page) -> None:
    page.goto(f"{HERE}/plain/configuration")
    engine.ask("PATCH", of("plain", "/config"), {"timeout": 33})
    page.get_by_label("Description").fill("mine")
    save(page)

    expect(page.get_by_role("alert")).to_contain_text("changed after you opened the page")
    assert config(engine, "plain")["description"] == ""

    save(page)

    expect(page.get_by_role("status")).to_contain_text("Saved")
    assert config(engine, "plain")["description"] == "mine"


def test_the_settings_of_a_version_are_shown_and_accessible(page: Page) -> None:
    page.goto(f"{HERE}/full/configuration?qualifier=v1")

    expect(page.get_by_label("Handler", exact=True)).to_be_disabled()
    assert violations(page) == []
