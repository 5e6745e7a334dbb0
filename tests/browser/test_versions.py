"""Versions, aliases and reserved instances of a function in a browser."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.acceptance.engine_process import PROJECT, EngineProcess, urn_of
from tests.browser.configured import (
    CODE,
    HERE,
    HOSTILE,
    of,
    save,
)


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
    alias = engine.ask("GET", of("aliased", "/aliases/prod")).json
    rule = {"rule_type": "header", "param": "X-Tenant", "op": "=", "value": HOSTILE}
    assert (alias["version"], alias["additional_version_weights"]) == ("v1", {"v2": 20})
    assert alias["additional_version_strategy"] == {"v2": {"combine_type": "and", "rules": [rule]}}

    save(page, "Delete alias prod")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    expect(page.get_by_role("status")).to_contain_text("Deleted alias prod")
    assert engine.ask("GET", of("aliased", "/aliases")).json == []


def test_instances_are_reserved_and_released(engine: EngineProcess, page: Page) -> None:
    engine.create("plain", CODE)
    page.goto(f"{HERE}/plain/configuration/reserved")
    page.get_by_role("link", name="Reserve instances").click()
    page.get_by_label("Instances", exact=True).fill("91")
    page.get_by_label("Time expression, row 1").fill("0 0 8")
    page.get_by_label("Instances, row 1").fill("1")
    page.get_by_label("From (UTC), row 1").fill("2100-01-01T00:00:01")
    save(page, "Reserve")

    expect(page.get_by_role("main")).to_contain_text("time expression: ")
    page.get_by_label("Time expression, row 1").fill("0 0 8 * * *")
    save(page, "Reserve")

    expect(page.locator("#s-count-error")).to_be_visible()
    page.get_by_label("Instances", exact=True).fill("0")
    save(page, "Reserve")

    expect(page.get_by_role("status")).to_contain_text("Saved")
    target = f"/v2/{PROJECT}/fgs/functions/reservedinstanceconfigs?function_urn={urn_of('plain')}"
    (reserved,) = engine.ask("GET", target).json["reserved_instances"]
    cron = {"cron": "0 0 8 * * *", "name": "", "count": 1, "start_time": 4102444801, "expired_time": 0}
    assert reserved["min_count"] == 0
    assert reserved["tactics_config"]["cron_configs"] == [cron]

    save(page, "Remove the reservation of latest")
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()

    expect(page.get_by_role("status")).to_contain_text("Removed")
    assert engine.ask("GET", target).json["reserved_instances"] == []
