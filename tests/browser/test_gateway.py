"""Procedure of the document in a browser: the invocation mode of an API of a gateway becomes asynchronous."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.engine_process import PROJECT, EngineProcess, Reply, engine_on, urn_of
from tests.support.gateways import API
from tests.support.ports import free_ports

SOURCE = """
def handler(event, context):
    return {"statusCode": 200, "headers": {}, "body": "done", "isBase64Encoded": False}
"""
TRIGGERS = f"/console/projects/{PROJECT}/functions/hello/configuration/triggers"
SHARED, DEDICATED = free_ports(2)
PORTS = {"APIG": SHARED, "DEDICATEDGATEWAY": DEDICATED}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    folder: Path = tmp_path_factory.mktemp("browser")
    settings = folder / "functiond.toml"
    settings.write_text(f"[plugins.apig]\nport = {SHARED}\n[plugins.apig.dedicated]\nport = {DEDICATED}\n")
    with engine_on(folder / "data", FUNCTIOND_CONFIG=str(settings)) as engine:
        engine.create("hello", SOURCE)
        for kind in PORTS:
            create(engine, kind, name=f"orders-{kind.lower()}")
        yield engine


def create(engine: EngineProcess, kind: str, **fields: Any) -> dict[str, Any]:
    created: dict[str, Any] = engine.trigger("hello", kind, {**API, "cors": True, **fields})
    return created


def request(kind: str, path: str = "/orders") -> Reply:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORTS[kind]}{path}", timeout=20) as reply:
        return Reply(reply.status, dict(reply.headers), reply.read())


def open_step(page: Page, kind: str, title: str) -> None:
    """Open the gateway's page from the function's triggers, and go on to the step with this title."""
    page.goto(TRIGGERS)
    page.get_by_role("link", name=f"orders-{kind.lower()}", exact=True).click()
    page.get_by_role("link", name="Edit").click()
    while not page.get_by_role("heading", name=title).is_visible():
        with page.expect_navigation():
            page.get_by_role("button", name="Next").click()


def finish_with(page: Page, kind: str, mode: str) -> None:
    open_step(page, kind, "Define Backend Request")
    page.get_by_label("Invocation Mode").select_option(label=mode)
    page.get_by_role("button", name="Finish").click()
    expect(page.get_by_role("status")).to_contain_text("Saved")


@pytest.mark.parametrize("kind", PORTS)
def test_an_api_becomes_asynchronous_as_the_document_says_and_synchronous_again(
    engine: EngineProcess, page: Page, kind: str
) -> None:
    assert (request(kind).status, request(kind).body) == (200, b"done")

    finish_with(page, kind, "Asynchronous")
    accepted = request(kind)

    assert accepted.status == 202
    record = engine.record("hello", accepted.json["request_id"], 20)
    assert record["status"] == "SUCCESS"
    expect(page.locator("main")).to_contain_text("Asynchronous")
    expect(page.locator("#address-text")).to_have_text(f"http://127.0.0.1:{PORTS[kind]}/orders")

    finish_with(page, kind, "Synchronous")

    assert (request(kind).status, request(kind).body) == (200, b"done")


def test_an_api_needs_its_path_only(page: Page) -> None:
    page.goto(f"{TRIGGERS}/new?kind=APIG")
    page.get_by_label("Path").fill("/short")
    page.get_by_role("button", name="Create").click()

    expect(page.locator("#address-text")).to_have_text(f"http://127.0.0.1:{SHARED}/short")
    assert request("APIG", "/short").body == b"done"


def test_the_steps_lose_nothing_and_work_without_scripts(engine: EngineProcess, plain_page: Page) -> None:
    created, page = create(engine, "APIG", name="kept", path="/kept"), plain_page
    page.goto(f"/console/projects/{PROJECT}/gateways/{created['trigger_id']}/edit")
    page.get_by_label("API name").fill('<b>kept</b> "x"')
    page.get_by_role("button", name="Next").click()
    page.get_by_label("Path").fill("no slash")
    page.get_by_label("CORS").uncheck()
    page.get_by_role("button", name="Next").click()

    expect(page.locator(".field.wrong")).to_contain_text("must begin with /")
    page.get_by_label("Path").fill("/moved/{id}")
    page.get_by_role("button", name="Next").click()
    page.get_by_label("Backend timeout").fill("99999")
    page.get_by_role("button", name="Back").click()
    expect(page.get_by_label("Path")).to_have_value("/moved/{id}")
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_label("Backend timeout")).to_have_value("99999")
    page.get_by_role("button", name="Finish").click()

    expect(page.locator(".field.wrong")).to_contain_text("60000")
    page.get_by_label("Backend timeout").fill("7000")
    page.get_by_role("button", name="Finish").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text('<b>kept</b> "x"')
    stored = engine.ask("GET", f"/v2/{PROJECT}/fgs/triggers/{urn_of('hello')}/APIG/{created['trigger_id']}").json

    data = stored["event_data"]
    assert (data["path"], data["cors"], data["func_info"]["timeout"]) == ("/moved/{id}", False, 7000)
    assert request("APIG", "/moved/7").body == b"done"


def test_a_change_by_someone_else_is_not_overwritten(engine: EngineProcess, page: Page) -> None:
    created = create(engine, "APIG", name="shared", path="/shared")
    path = f"/v2/{PROJECT}/fgs/triggers/{urn_of('hello')}/APIG/{created['trigger_id']}"
    page.goto(f"/console/projects/{PROJECT}/gateways/{created['trigger_id']}/edit")
    page.get_by_role("button", name="Next").click()
    body = {"event_data": [{"path": "/elsewhere"}]}
    assert (
        engine.ask("PUT", path, json.dumps(body).encode(), headers={"Content-Type": "application/json"}).status == 200
    )
    page.get_by_role("button", name="Next").click()

    expect(page.get_by_role("alert")).to_contain_text("was changed")
    assert engine.ask("GET", path).json["event_data"]["path"] == "/elsewhere"
