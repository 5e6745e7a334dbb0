"""Pages of triggers in the console, as the role read sees them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.acceptance.browsing import visit
from tests.acceptance.engine_process import PROJECT, EngineProcess, Reply, engine_on, urn_of
from tests.support.gateways import API

ADMIN, READ = "a-token-with-the-role-admin", "a-token-with-the-role-read"
SECRET = "a-secret-that-nobody-shows"
HERE = f"/console/projects/{PROJECT}"
TRIGGERS = f"{HERE}/functions/hello/configuration/triggers"
PATH = f"/v2/{PROJECT}/fgs/triggers/{urn_of('hello')}"
OPTIONS: dict[str, Any] = {"WEBHOOK": {"name": "pushes", "secret": SECRET}, "APIG": API}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Run an engine with credentials of two roles, and a trigger of each kind in ``OPTIONS``."""
    folder: Path = tmp_path_factory.mktemp("roles")
    file, settings = folder / "credentials.toml", folder / "functiond.toml"
    roles = ((ADMIN, "admin"), (READ, "read"))
    project = f'project = "{PROJECT}"'
    lines = [f'[[tokens]]\ntoken = "{one}"\n{project}\nrole = "{role}"' for one, role in roles]
    file.write_text("\n".join(lines))
    file.chmod(0o600)
    settings.write_text("[plugins.apig]\nport = 0\n")
    with engine_on(folder / "data", FUNCTIOND_AUTH__FILE=str(file), FUNCTIOND_CONFIG=str(settings)) as engine:
        engine.headers["X-Auth-Token"] = ADMIN
        engine.create("hello", "def handler(event, context):\n    return event\n")
        for kind, data in OPTIONS.items():
            reply = engine.ask("POST", PATH, {"trigger_type_code": kind, "event_data": data})
            assert reply.status == 201, reply
        yield engine


def ids(engine: EngineProcess) -> dict[str, str]:
    return {one["trigger_type_code"]: one["trigger_id"] for one in engine.ask("GET", PATH).json}


def test_a_reader_sees_triggers_without_secrets_and_without_actions(engine: EngineProcess) -> None:
    found = ids(engine)
    pages = (f"{HERE}/triggers", TRIGGERS, f"{TRIGGERS}/{found['WEBHOOK']}", f"{HERE}/gateways/{found['APIG']}")
    for path in pages:
        page = visit(engine, path, **{"X-Auth-Token": READ})

        assert page.reply.status == 200, path
        assert SECRET not in page.reply.body.decode()
        assert not [word for word in ("Create trigger", "Save", "Disable", "Delete", "Edit") if word in page.text], path


@pytest.mark.parametrize("path", [f"{TRIGGERS}/new", f"{HERE}/triggers/new"])
def test_forms_are_pages_of_the_role_admin(engine: EngineProcess, path: str) -> None:
    assert visit(engine, path, **{"X-Auth-Token": READ}).reply.status == 403


def send_form(engine: EngineProcess, path: str, **values: str) -> Reply:
    page = visit(engine, f"{HERE}/functions/hello/configuration", **{"X-Auth-Token": ADMIN})
    token = re.search(r'name="form_token" value="([^"]*)"', page.reply.body.decode())
    assert token is not None
    typed = {f"event_data.{name}": value for name, value in values.items() if name not in ("kind", "generation")}
    form = {**values, **typed, "form_token": token[1], "active": "on"}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return engine.ask("POST", path, urlencode(form).encode(), headers=headers)


def test_a_timer_takes_a_crontab_and_its_page_tells_when_it_is_due(engine: EngineProcess) -> None:
    timer = {"kind": "TIMER", "name": "early", "schedule_type": "Crontab"}
    wrong = send_form(engine, f"{TRIGGERS}/new", **timer, schedule="*/10")
    made = send_form(engine, f"{TRIGGERS}/new", **timer, schedule="CRON_TZ=Asia/Shanghai 30 6 * * *")
    [stored] = [one for one in engine.ask("GET", PATH).json if one["trigger_type_code"] == "TIMER"]
    path = f"{TRIGGERS}/{stored['trigger_id']}"
    text = visit(engine, path, **{"X-Auth-Token": ADMIN}).text
    five = {**timer, "schedule_type": "Cron", "schedule": "*/10 * * * *", "generation": "1"}
    saved = send_form(engine, path, **five)
    warned = visit(engine, path, **{"X-Auth-Token": ADMIN}).text
    engine.ask("DELETE", f"{PATH}/TIMER/{stored['trigger_id']}")

    assert "give five fields of a crontab" in wrong.body.decode()
    assert (made.status, saved.status) == (303, 303)
    assert stored["event_data"]["schedule"] == "CRON_TZ=Asia/Shanghai 0 30 6 * * *"
    assert len(re.findall(r"\d{4}-\d\d-\d\d 06:30:00 Asia/Shanghai", text)) == 3
    assert "five fields" not in text
    assert "its five fields are second, minute" in warned


@pytest.mark.parametrize(
    ("action", "operation"),
    [("", "UpdateTrigger"), ("/disable", "UpdateTrigger"), ("/delete", "DeleteFunctionTrigger")],
)
def test_an_action_of_a_reader_is_refused_as_in_the_api(engine: EngineProcess, action: str, operation: str) -> None:
    path, before = f"{TRIGGERS}/{ids(engine)['WEBHOOK']}", engine.ask("GET", PATH).json
    page = visit(engine, f"{HERE}/functions/hello/configuration", **{"X-Auth-Token": READ})
    token = re.search(r'name="form_token" value="([^"]*)"', page.reply.body.decode())
    assert token is not None
    typed = {"form_token": token[1], "generation": "1", "event_data.name": "other"}
    headers = {"X-Auth-Token": READ, "Content-Type": "application/x-www-form-urlencoded"}

    reply = engine.ask("POST", path + action, urlencode(typed).encode(), headers=headers)

    assert reply.status == 403
    assert operation in reply.body.decode()
    assert engine.ask("GET", PATH).json == before


def test_a_trigger_of_another_function_is_not_found(engine: EngineProcess) -> None:
    engine.create("other", "def handler(event, context):\n    return event\n")
    path = f"{HERE}/functions/other/configuration/triggers/{ids(engine)['WEBHOOK']}"

    assert visit(engine, path).reply.status == 404
    assert visit(engine, f"{HERE}/gateways/{ids(engine)['WEBHOOK']}").reply.status == 404
    assert visit(engine, f"{HERE}/gateways/absent").reply.status == 404
