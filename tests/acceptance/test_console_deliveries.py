"""Pages of deliveries and asynchronous settings as the role read sees them: no credentials, no actions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.acceptance.browsing import Page, visit
from tests.acceptance.engine_process import PROJECT, EngineProcess, engine_on

ADMIN, READ = "a-token-with-the-role-admin", "a-token-with-the-role-read"
HERE = f"/console/projects/{PROJECT}/deliveries"
SETTINGS = f"/console/projects/{PROJECT}/functions/one/configuration/asynchronous"
DELIVERIES = f"/v2/{PROJECT}/fgs/deliveries"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Run an engine with a delivery that waits for a webhook on a port where nothing listens."""
    folder = tmp_path_factory.mktemp("deliveries")
    with engine_on(folder / "data", FUNCTIOND_AUTH__FILE=str(_tokens(folder)), FUNCTIOND_RETRY__BASE="100") as engine:
        engine.headers["X-Auth-Token"] = ADMIN
        engine.create("one", "def handler(event, context):\n    return event\n")
        hook = {"destination": "WEBHOOK", "param": json.dumps({"url": "http://127.0.0.1:9/the-path?key=of-the-hook"})}
        engine.configure("one", destination_config={"on_success": hook}, enable_async_status_log=True)
        engine.record("one", engine.accepted("one"), wait=30)
        while not engine.ask("GET", DELIVERIES).json["retrying"][0]["tries"]:
            pass  # waits for the first failed try
        yield engine


def _tokens(folder: Path) -> Path:
    file = folder / "credentials.toml"
    tables = [
        f'[[tokens]]\ntoken = "{token}"\nproject = "{PROJECT}"\nrole = "{role}"'
        for token, role in ((ADMIN, "admin"), (READ, "read"))
    ]
    file.write_text("\n".join(tables))
    file.chmod(0o600)
    return file


def seen_by(engine: EngineProcess, token: str, path: str) -> Page:
    engine.headers["X-Auth-Token"] = token
    return visit(engine, path)


def buttons(page: Page) -> set[str]:
    return {one.get("name", "") for tag, one in page.tags if tag == "button"} & {"one", "do", "rules"}


def test_a_reader_sees_neither_credentials_of_destinations_nor_buttons(engine: EngineProcess) -> None:
    admin, reader = seen_by(engine, ADMIN, HERE), seen_by(engine, READ, HERE)
    [filtered] = {link for link in reader.links("destination=") if "?" in link}

    assert ("of-the-hook" in admin.text, buttons(admin)) == (True, {"one", "do"})
    assert ("of-the-hook" in reader.text, "the-path" in reader.text, buttons(reader)) == (False, False, set())
    assert "http://127.0.0.1:9/" in reader.text
    assert [row["Tries"] for row in seen_by(engine, READ, HERE + filtered).rows if "Tries" in row] == ["1"]


def test_a_reader_sees_settings_without_credentials_and_cannot_save_them(engine: EngineProcess) -> None:
    admin, reader = seen_by(engine, ADMIN, SETTINGS), seen_by(engine, READ, SETTINGS)
    values = [[one.get("value", "") for tag, one in page.tags if tag == "input"] for page in (admin, reader)]

    assert [any("of-the-hook" in one for one in found) for found in values] == [True, False]
    assert (buttons(admin), buttons(reader)) == ({"rules"}, set())
    assert seen_by(engine, READ, f"{SETTINGS}/status-log").reply.status == 200
    assert "SUCCESS" in seen_by(engine, READ, f"{SETTINGS}/status-log").text


def test_an_action_of_a_reader_is_refused_and_changes_nothing(engine: EngineProcess) -> None:
    page = seen_by(engine, READ, SETTINGS)
    token = next(one["value"] for tag, one in page.tags if tag == "input" and one.get("name") == "form_token")
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"http://127.0.0.1:{engine.port}"}
    fields = {"form_token": token, "do": "redrive", "delivery": "1", "max_async_retry_attempts": "3"}
    replies = [
        engine.ask("POST", path, urlencode(fields).encode(), headers=form)
        for path in (HERE, f"{HERE}/redrive", f"{HERE}/discard", SETTINGS, f"{SETTINGS}/remove")
    ]

    assert [reply.status for reply in replies] == [403] * 5
    assert all(b"the role read may not use" in reply.body for reply in replies)
    engine.headers["X-Auth-Token"] = ADMIN
    assert engine.ask("GET", DELIVERIES).json["retrying"][0]["tries"] == 1


def test_a_delivery_that_waits_is_not_discarded(engine: EngineProcess) -> None:
    page = seen_by(engine, ADMIN, HERE)
    token = next(one["value"] for tag, one in page.tags if tag == "input" and one.get("name") == "form_token")
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"http://127.0.0.1:{engine.port}"}
    [waiting] = engine.ask("GET", DELIVERIES).json["retrying"]
    fields = {"form_token": token, "do": "discard", "delivery": waiting["delivery_id"]}
    reply = engine.ask("POST", HERE, urlencode(fields).encode(), headers=form)
    note = reply.headers["set-cookie"].partition(";")[0]

    assert reply.status == 303
    assert "0 deliveries discarded. The others are not in this list" in visit(engine, HERE, Cookie=note).text
    assert len(engine.ask("GET", DELIVERIES).json["retrying"]) == 1
