"""Configuration of a function in a browser, except its triggers and asynchronous settings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.engine_process import PROJECT, EngineProcess, urn_of
from tests.browser.axe import overflow, violations

pytestmark = pytest.mark.slow  # run on one Python version only; none differs here

HERE = f"/console/projects/{PROJECT}/functions"
CODE = "def handler(event, context):\n    return event\n"
HOSTILE = '<script>alert("1")</script> \u202e\'"&'
#: Every field that the API takes and no page shows, beside those that they show.
CONFIG = {
    "description": f"  first line\n\nsecond, {HOSTILE} ",
    "memory_size": 256,
    "timeout": 7,
    "initializer_handler": "index.begin",
    "initializer_timeout": 11,
    "pre_stop_handler": "index.end",
    "pre_stop_timeout": 12,
    "enable_dynamic_memory": True,
    "user_data": '{"LANGUAGE": "en", "PEM": "-----\\r\\nab c\\n-----\\n"}',
    "encrypted_user_data": '{ "PASSWORD":"hunter2\\n" }',
    "strategy_config": {"concurrency": 5, "concurrent_num": 3},
    "log_config": {"group_name": "shop", "group_id": "g-1", "stream_name": "orders", "stream_id": "s-1", "more": [1]},
    "functiond": {"priority_cap": 4, "weight": 2.5},
    "xrole": "agency",
    "func_vpc": {"vpc_id": "v-1"},
    "mount_config": {"mount_user": {"user_id": 1, "user_group_id": 2}, "func_mounts": [{"mount_type": "sfs"}]},
    "lts_custom_tag": {"one": "two"},
    "ephemeral_storage": 10240,
    "heartbeat_handler": "index.beat",
    "restore_hook_handler": "index.restore",
    "restore_hook_timeout": 3,
}
#: Pages with the number of their forms that are saved.
FORMS = {
    "configuration": 1,
    "configuration/environment": 1,
    "configuration/concurrency": 2,
    "configuration/tags": 1,
    "configuration/aliases/prod": 1,
    "configuration/reserved/!prod": 1,
}
#: Pages without such a form.
OTHERS = ("configuration?qualifier=v1", "configuration/versions", "configuration/reserved")
RULES = [{"rule_type": "Header", "param": "X-Tenant", "op": "in", "value": f"a, {HOSTILE}"}]
ALIAS = {
    "name": "prod",
    "version": "v1",
    "description": f"one\r\n{HOSTILE}",
    "additional_version_weights": {"v2": 10},
    "additional_version_strategy": {
        "v2": {"combine_type": "or", "rules": RULES},
        "latest": {"combine_type": "and", "rules": [{"rule_type": "cookie", "param": "c", "op": "=", "value": " x "}]},
    },
}
RESERVATION = {
    "count": 0,
    "idle_mode": True,
    "tactics_config": {
        "cron_configs": [
            {"name": HOSTILE, "cron": "0 0 8 * * MON-FRI", "count": 1, "start_time": 4102444801, "expired_time": 0}
        ],
        "metric_configs": [{"name": "load", "type": "Concurrency", "threshold": 40, "min": 2}],
    },
}
TAGS = {"tags": [{"key": "team", "value": "shop + co"}], "sys_tags": [{"key": "_sys", "value": "1"}]}
CONTROLS = {
    "paused": True,
    "pause_reason": HOSTILE,
    "rate": 0.25,
    "burst": 3,
    "recycle_requests": 1000,
    "recycle_memory": 80,
    "soft_timeout": 2.5,
}


@pytest.fixture(scope="module", autouse=True)
def functions(engine: EngineProcess) -> None:
    for name in ("full", "plain"):
        engine.create(name, CODE)
    assert engine.ask("PATCH", of("full", "/config"), CONFIG).status == 200
    assert engine.ask("PATCH", of("full", "/controls"), CONTROLS).status == 200
    for number in (1, 2):
        engine.ask("PATCH", of("full", "/config"), {"heartbeat_handler": f"index.beat{number}"})
        version = {"version": f"v{number}", "description": HOSTILE}
        assert engine.ask("POST", of("full", "/versions"), version).status == 200
    assert engine.ask("POST", of("full", "/aliases"), ALIAS).status == 200
    assert engine.ask("PUT", of("full", "/reservedinstances", "!prod"), RESERVATION).status == 200
    assert engine.ask("POST", tags("full", "/create"), TAGS).status == 204


def of(name: str, rest: str, qualifier: str = "latest") -> str:
    urn = urn_of(name).removesuffix("latest") + qualifier
    return f"/v2/{PROJECT}/fgs/functions/{urn}{rest}"


def tags(name: str, rest: str = "") -> str:
    return f"/v2/{PROJECT}/functions/{urn_of(name)}/tags{rest}"


def everything(engine: EngineProcess, name: str) -> list[Any]:
    """Return all that the API shows about the configuration of a function."""
    paths = ("/config", "/controls", "/aliases", "/versions")
    shown = [engine.ask("GET", path).json for path in (*(of(name, path) for path in paths), tags(name))]
    reserved = f"/v2/{PROJECT}/fgs/functions/reservedinstanceconfigs?function_urn={urn_of(name)}"
    return [*shown, engine.ask("GET", reserved).json]


def config(engine: EngineProcess, name: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.ask("GET", of(name, "/config")).json
    return found


def controls(engine: EngineProcess, name: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.ask("GET", of(name, "/controls")).json
    return found


def save(page: Page, button: str = "Save") -> None:
    page.get_by_role("button", name=button, exact=True).click()


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
    assert list(violations(page)) == []

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
    found = config(engine, "plain")
    assert json.loads(found["user_data"]) == {"PEM": f"{HOSTILE}\n two "}
    assert json.loads(found["encrypted_user_data"]) == {"SECRET": "hunter2"}
    assert "hunter2" not in page.content()

    page.get_by_label("Name, row 1").nth(1).fill("RENAMED")
    page.get_by_role("button", name="Remove row 1").first.click()
    page.get_by_role("button", name="Add variable").click()
    page.keyboard.type("SHOP")
    save(page)

    expect(page.get_by_role("status")).to_contain_text("Saved")
    found = config(engine, "plain")
    assert json.loads(found["user_data"]) == {"SHOP": ""}
    assert json.loads(found["encrypted_user_data"]) == {"RENAMED": "hunter2"}


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
    page.get_by_label("Most instances").fill("0")
    page.get_by_role("button", name="Save", exact=True).first.click()

    expect(page.locator("#s-concurrency-error")).to_contain_text("from 1 to 1,000")
    page.get_by_label("Most instances").fill("7")
    page.get_by_label("Requests per instance").fill("2")
    page.get_by_label("Weight").fill("0.5")
    page.get_by_role("button", name="Save", exact=True).first.click()

    expect(page.get_by_role("status")).to_contain_text("Saved")
    found = config(engine, "plain")
    assert found["strategy_config"] == {"concurrency": 7, "concurrent_num": 2}
    assert found["functiond"] == {"weight": 0.5}

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
    found = controls(engine, "plain")
    assert (found["rate"], found["recycle_memory"], found["burst"]) == (2.5, 90, 1)


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


def test_versions_are_published_shown_and_deleted(engine: EngineProcess, page: Page) -> None:
    engine.create("released", CODE, description="first")
    page.goto(f"{HERE}/released/configuration/versions")
    page.get_by_label("Name").fill("latest")
    save(page, "Publish")

    expect(page.locator("#s-version-error")).to_contain_text("not latest")
    page.get_by_label("Name").fill("1.0")
    page.get_by_label("Description").fill(HOSTILE)
    save(page, "Publish")

    expect(page.get_by_role("status")).to_contain_text("Published version 1.0")
    save(page, "Publish")

    expect(page.get_by_role("alert")).to_contain_text("nothing has changed since version 1.0")
    engine.ask("PATCH", of("released", "/config"), {"description": "second"})
    page.get_by_role("link", name="1.0", exact=True).click()

    expect(page.get_by_label("Description")).to_have_value("first")
    expect(page.get_by_label("Description")).to_be_disabled()
    page.get_by_role("link", name="Versions and aliases").click()
    save(page, "Delete version 1.0")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    expect(page.get_by_role("status")).to_contain_text("Deleted version 1.0")
    assert engine.ask("GET", of("released", "/versions")).json["count"] == 1


def test_an_alias_is_created_changed_and_deleted(engine: EngineProcess, page: Page) -> None:
    engine.create("aliased", CODE)
    for number in (1, 2):
        engine.ask("PATCH", of("aliased", "/config"), {"description": str(number)})
        engine.ask("POST", of("aliased", "/versions"), {"version": f"v{number}"})
    page.goto(f"{HERE}/aliased/configuration/versions")
    page.get_by_role("link", name="Create alias").click()
    page.get_by_label("Name", exact=True).fill("prod")
    page.get_by_label("Version", exact=True).select_option("v1")
    page.get_by_label("Version, row 1").first.select_option("v2")
    page.get_by_label("Percent, row 1").fill("200")
    save(page, "Create alias")

    expect(page.get_by_role("main")).to_contain_text("from 0 to 100")
    page.get_by_label("Percent, row 1").fill("20")
    save(page, "Create alias")

    expect(page.get_by_role("status")).to_contain_text("Created alias prod")
    page.get_by_role("link", name="prod", exact=True).first.click()
    page.get_by_label("Version, row 1").nth(1).select_option("v2")
    page.get_by_label("Name, row 1").fill("X-Tenant")
    page.get_by_label("Value, row 1").fill(HOSTILE)
    save(page)

    expect(page.get_by_role("status")).to_contain_text("Saved alias prod")
    found = engine.ask("GET", of("aliased", "/aliases/prod")).json
    rule = {"rule_type": "header", "param": "X-Tenant", "op": "=", "value": HOSTILE}
    assert (found["version"], found["additional_version_weights"]) == ("v1", {"v2": 20})
    assert found["additional_version_strategy"] == {"v2": {"combine_type": "and", "rules": [rule]}}

    save(page, "Delete alias prod")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    expect(page.get_by_role("status")).to_contain_text("Deleted alias prod")
    assert engine.ask("GET", of("aliased", "/aliases")).json == []


def test_tags_are_replaced(engine: EngineProcess, page: Page) -> None:
    engine.ask("POST", tags("plain", "/create"), {"tags": [{"key": "old", "value": "1"}, {"key": "kept"}]})
    page.goto(f"{HERE}/plain/configuration/tags")
    page.get_by_label("Name, row 2").fill("<b>")
    save(page)

    expect(page.locator("#row-2-error")).to_contain_text("needs 1 to 128 letters")
    page.get_by_label("Name, row 2").fill("new")
    save(page)

    expect(page.get_by_role("status")).to_contain_text("Saved")
    found = engine.ask("GET", tags("plain")).json
    assert found["tags"] == [{"key": "kept", "value": ""}, {"key": "new", "value": "1"}]


def test_instances_are_reserved_and_released(engine: EngineProcess, page: Page) -> None:
    page.goto(f"{HERE}/plain/configuration/reserved")
    page.get_by_role("link", name="Reserve instances").click()
    page.get_by_label("Instances", exact=True).fill("91")
    page.get_by_label("Time expression, row 1").fill("0 0 8")
    page.get_by_label("Instances, row 1").fill("1")
    page.get_by_label("From (UTC), row 1").fill("2100-01-01T00:00:01")
    save(page, "Reserve")

    expect(page.get_by_role("main")).to_contain_text("the time expression")
    page.get_by_label("Time expression, row 1").fill("0 0 8 * * *")
    save(page, "Reserve")

    expect(page.locator("#s-count-error")).to_be_visible()
    page.get_by_label("Instances", exact=True).fill("0")
    save(page, "Reserve")

    expect(page.get_by_role("status")).to_contain_text("Saved")
    target = f"/v2/{PROJECT}/fgs/functions/reservedinstanceconfigs?function_urn={urn_of('plain')}"
    (found,) = engine.ask("GET", target).json["reserved_instances"]
    cron = {"cron": "0 0 8 * * *", "name": "", "count": 1, "start_time": 4102444801, "expired_time": 0}
    assert found["min_count"] == 0
    assert found["tactics_config"]["cron_configs"] == [cron]

    save(page, "Remove the reservation of latest")
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()

    expect(page.get_by_role("status")).to_contain_text("Removed")
    assert engine.ask("GET", target).json["reserved_instances"] == []


def test_forms_work_without_scripts(engine: EngineProcess, browser: Browser) -> None:
    context = browser.new_context(base_url=f"http://127.0.0.1:{engine.port}", java_script_enabled=False)
    context.set_default_timeout(10_000)
    page = context.new_page()
    engine.create("quiet", CODE, user_data='{"OLD": "1"}')
    page.goto(f"{HERE}/quiet/configuration/environment")
    page.get_by_label("Name, row 1").first.fill("")
    page.get_by_label("Name, row 2").first.fill("NEW")
    page.get_by_label("Value, row 2").first.fill("two")
    save(page)

    expect(page.get_by_role("status")).to_contain_text("Saved")
    assert json.loads(config(engine, "quiet")["user_data"]) == {"NEW": "two"}
    context.close()


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


def test_the_pages_are_accessible_and_narrow(page: Page) -> None:
    for path in (*FORMS, *OTHERS):
        page.goto(f"{HERE}/full/{path}")

        assert list(violations(page)) == []
        assert overflow(page) == 0
