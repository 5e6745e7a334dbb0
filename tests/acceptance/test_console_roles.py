"""Pages of the console as the role read sees them, and what only the role admin may do there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.acceptance.browsing import Page, visit
from tests.acceptance.engine_process import BASE, ECHO, PROJECT, EngineProcess, Reply, engine_on, to, urn_of
from tests.support.credentials import credentials_file, token
from tests.support.gateways import API
from tests.support.http_app import zipped

ADMIN, READ, PAYLOADS = ("token-of-admin-0123456789", "token-of-read-0123456789", "token-of-payloads-0123456789")
SECRET = "a-secret-that-nobody-shows"
HERE = f"/console/projects/{PROJECT}"
HELLO = f"{HERE}/functions/hello"
TRIGGERS = f"{HELLO}/configuration/triggers"
PATH = f"/v2/{PROJECT}/fgs/triggers/{urn_of('hello')}"
OPTIONS: dict[str, Any] = {"WEBHOOK": {"name": "pushes", "secret": SECRET}, "APIG": API}
DELIVERIES = f"{HERE}/deliveries"
SETTINGS = f"{HERE}/functions/hooked/configuration/asynchronous"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """Run an engine with triggers, a saved event, and a delivery that waits for a port where nothing listens."""
    folder = tmp_path_factory.mktemp("roles")
    rights: dict[str, dict[str, object]] = {ADMIN: {}, READ: {"role": "read"}}
    rights[PAYLOADS] = {"role": "read", "payloads": True}
    settings = credentials_file(folder, *(token(name, PROJECT, **more) for name, more in rights.items()))
    settings |= {"FUNCTIOND_RETRY__BASE": "100", "FUNCTIOND_PLUGINS__APIG__PORT": "0"}
    with engine_on(folder / "data", **settings) as engine:
        engine.headers["X-Auth-Token"] = ADMIN
        variables = {"user_data": '{"LANGUAGE": "ab c"}', "encrypted_user_data": '{"PASSWORD": "hunter2"}'}
        engine.create("hello", f"# {SECRET}\n{ECHO}", **variables)
        for kind, body in (("versions", {"version": "v1"}), ("aliases", {"name": "prod", "version": "v1"})):
            assert engine.ask("POST", f"{BASE}/{urn_of('hello')}/{kind}", body).status == 200
        content = "eyJzIjogInNlY3JldC1pbi10aGUtZXZlbnQifQ=="
        engine.ask("POST", f"{BASE}/{urn_of('hello')}/events", {"name": "saved", "content": content})
        for kind, data in OPTIONS.items():
            engine.trigger("hello", kind, data)
        engine.create("hooked", ECHO)
        hook = to("WEBHOOK", url="http://127.0.0.1:9/the-path?key=of-the-hook")
        engine.configure("hooked", destination_config={"on_success": hook}, enable_async_status_log=True)
        engine.record("hooked", engine.accepted("hooked"), wait=30)
        while not engine.ask("GET", f"/v2/{PROJECT}/fgs/deliveries").json["retrying"][0]["tries"]:
            pass  # waits for the first failed try
        yield engine


def seen_by(engine: EngineProcess, token: str, path: str) -> Page:
    return visit(engine, path, **{"X-Auth-Token": token})


def ids(engine: EngineProcess) -> dict[str, str]:
    return {trigger["trigger_type_code"]: trigger["trigger_id"] for trigger in engine.ask("GET", PATH).json}


def send_form(engine: EngineProcess, path: str, token: str = ADMIN, **fields: str) -> Reply:
    """Send a form like a page of the console."""
    given = {"form_token": seen_by(engine, token, f"{HELLO}/configuration").form_token, **fields}
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": engine.url}
    return engine.ask("POST", path, urlencode(given).encode(), headers={**headers, "X-Auth-Token": token})


def buttons(page: Page) -> set[str]:
    return {values.get("name", "") for tag, values in page.tags if tag == "button"} & {"one", "do", "rules"}


# --- readers ------------------------------------------------------------------------------------------------


def test_a_reader_sees_triggers_without_secrets_and_without_actions(engine: EngineProcess) -> None:
    by_kind = ids(engine)
    pages = (f"{HERE}/triggers", TRIGGERS, f"{TRIGGERS}/{by_kind['WEBHOOK']}", f"{HERE}/gateways/{by_kind['APIG']}")
    for path in pages:
        page = seen_by(engine, READ, path)

        assert page.reply.status == 200, path
        assert SECRET not in page.reply.body.decode()
        assert not [word for word in ("Create trigger", "Save", "Disable", "Delete", "Edit") if word in page.text], path


def test_a_reader_sees_neither_credentials_of_destinations_nor_buttons(engine: EngineProcess) -> None:
    admin, reader = seen_by(engine, ADMIN, DELIVERIES), seen_by(engine, READ, DELIVERIES)
    [filtered] = {link for link in reader.links("destination=") if "?" in link}

    assert ("of-the-hook" in admin.text, buttons(admin)) == (True, {"one", "do"})
    assert ("of-the-hook" in reader.text, "the-path" in reader.text, buttons(reader)) == (False, False, set())
    assert "http://127.0.0.1:9/" in reader.text
    assert [row["Tries"] for row in seen_by(engine, READ, DELIVERIES + filtered).rows if "Tries" in row] == ["1"]


def test_a_reader_sees_settings_without_credentials_and_cannot_save_them(engine: EngineProcess) -> None:
    admin, reader = seen_by(engine, ADMIN, SETTINGS), seen_by(engine, READ, SETTINGS)
    values = [[field.get("value", "") for tag, field in page.tags if tag == "input"] for page in (admin, reader)]
    log = seen_by(engine, READ, f"{SETTINGS}/status-log")

    assert [any("of-the-hook" in value for value in shown) for shown in values] == [True, False]
    assert (buttons(admin), buttons(reader)) == ({"rules"}, set())
    assert (log.reply.status, "SUCCESS" in log.text) == (200, True)


@pytest.mark.parametrize("page", ["", "environment", "concurrency", "versions", "aliases/prod", "tags", "reserved"])
def test_a_reader_sees_a_configuration_without_variables_and_can_change_nothing(
    engine: EngineProcess, page: str
) -> None:
    reply = seen_by(engine, READ, f"{HELLO}/configuration/{page}".rstrip("/")).reply
    body = re.sub(r"<fieldset[^>]* disabled.*?</fieldset>", "", reply.body.decode(), flags=re.DOTALL)
    fields = re.findall(r"<(?:input|select|textarea)[^>]* name=[^>]*>", body)

    assert reply.status == 200
    assert not [secret for secret in (b"hunter2", b"LANGUAGE", b"PASSWORD", b"ab c") if secret in reply.body]
    assert [field for field in fields if "disabled" not in field and 'type="hidden"' not in field] == []
    assert not set(re.findall("<button[^>]*>([^<]*)", body)) & {"Save", "Publish", "Delete", "Remove", "Pause"}


@pytest.mark.parametrize("token", [READ, PAYLOADS])
def test_a_reader_does_not_see_code_and_cannot_change_it(engine: EngineProcess, token: str) -> None:
    page = seen_by(engine, token, HELLO).reply

    assert page.status == 200
    assert SECRET.encode() not in page.body
    assert b"the role admin may" in page.body
    for word in (b"data-editor", b"/package", b"/delete", b"Pause"):
        assert word not in page.body
    for path in (f"{HELLO}/package", f"{HELLO}/delete", f"{HERE}/create-function", f"{HERE}/triggers/new"):
        assert seen_by(engine, token, path).reply.status == 403, path
    assert b"create-function" not in seen_by(engine, token, f"{HERE}/functions").reply.body


def test_a_reader_sees_saved_events_only_with_payloads(engine: EngineProcess) -> None:
    [event] = engine.ask("GET", f"{BASE}/{urn_of('hello')}/events").json["events"]
    path = f"{HELLO}/test?from=event:{event['id']}"

    assert b"secret-in-the-event" not in seen_by(engine, READ, path).reply.body
    assert b"secret-in-the-event" in seen_by(engine, PAYLOADS, path).reply.body
    assert b">Run<" not in seen_by(engine, PAYLOADS, path).reply.body


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        (f"{HELLO}/configuration", "PatchFunctionConfig"),
        (f"{TRIGGERS}/{{WEBHOOK}}", "UpdateTrigger"),
        (f"{TRIGGERS}/{{WEBHOOK}}/disable", "UpdateTrigger"),
        (f"{TRIGGERS}/{{WEBHOOK}}/delete", "DeleteFunctionTrigger"),
        *((f"{DELIVERIES}{action}", "the role read may not use") for action in ("", "/redrive", "/discard")),
        *((f"{SETTINGS}{action}", "the role read may not use") for action in ("", "/remove")),
        *((f"{HELLO}/{action}", "403") for action in ("code", "delete", "test", "test/save", "dependencies")),
    ],
)
def test_an_action_of_a_reader_is_refused_and_changes_nothing(engine: EngineProcess, path: str, operation: str) -> None:
    def kept() -> list[object]:
        listed = engine.ask("GET", f"/v2/{PROJECT}/fgs/deliveries").json["retrying"]
        whole = (PATH, f"{BASE}/{urn_of('hello')}/code", f"{BASE}/{urn_of('hello')}/config")
        return [[delivery["delivery_id"] for delivery in listed], *(engine.ask("GET", path).json for path in whole)]

    before = kept()
    fields = {"generation": "1", "event_data.name": "other", "do": "redrive", "delivery": "1", "code": "x"}
    fields |= {"timeout": "99", "name": "hello"}  # the name confirms a removal

    reply = send_form(engine, path.format(**ids(engine)), READ, **fields)

    assert (reply.status, operation in reply.body.decode()) == (403, True)
    assert kept() == before


# --- the role admin -----------------------------------------------------------------------------------------


def test_a_timer_takes_a_crontab_and_its_page_tells_when_it_is_due(engine: EngineProcess) -> None:
    def send(path: str, **values: str) -> Reply:
        typed = {f"event_data.{name}": value for name, value in values.items() if name not in ("kind", "generation")}
        return send_form(engine, path, **values, **typed, active="on")

    timer = {"kind": "TIMER", "name": "early", "schedule_type": "Crontab"}
    wrong = send(f"{TRIGGERS}/new", **timer, schedule="*/10")
    made = send(f"{TRIGGERS}/new", **timer, schedule="CRON_TZ=Asia/Shanghai 30 6 * * *")
    [stored] = [trigger for trigger in engine.ask("GET", PATH).json if trigger["trigger_type_code"] == "TIMER"]
    path = f"{TRIGGERS}/{stored['trigger_id']}"
    text = visit(engine, path).text
    saved = send(path, **{**timer, "schedule_type": "Cron", "schedule": "*/10 * * * *", "generation": "1"})
    warned = visit(engine, path).text
    engine.ask("DELETE", f"{PATH}/TIMER/{stored['trigger_id']}")

    assert "give five fields of a crontab" in wrong.body.decode()
    assert (made.status, saved.status) == (303, 303)
    assert stored["event_data"]["schedule"] == "CRON_TZ=Asia/Shanghai 0 30 6 * * *"
    assert len(re.findall(r"\d{4}-\d\d-\d\d 06:30:00 Asia/Shanghai", text)) == 3
    assert "five fields" not in text
    assert "its five fields are second, minute" in warned


def test_a_trigger_of_another_function_is_not_found(engine: EngineProcess) -> None:
    trigger = ids(engine)["WEBHOOK"]

    for path in (f"functions/hooked/configuration/triggers/{trigger}", f"gateways/{trigger}", "gateways/absent"):
        assert visit(engine, f"{HERE}/{path}").reply.status == 404, path


def test_a_delivery_that_waits_is_not_discarded(engine: EngineProcess) -> None:
    [waiting] = engine.ask("GET", f"/v2/{PROJECT}/fgs/deliveries").json["retrying"]
    reply = send_form(engine, DELIVERIES, do="discard", delivery=waiting["delivery_id"])
    note = reply.headers["set-cookie"].partition(";")[0]

    assert reply.status == 303
    assert "0 deliveries discarded. The others are not in this list" in visit(engine, DELIVERIES, Cookie=note).text
    assert len(engine.ask("GET", f"/v2/{PROJECT}/fgs/deliveries").json["retrying"]) == 1


def test_each_version_and_alias_to_choose_is_shown_and_runs(engine: EngineProcess) -> None:
    values = [attributes.get("value", "") for tag, attributes in visit(engine, HELLO).tags if tag == "option"]

    assert {"", "v1", "!prod"} <= set(values)
    assert "by the alias prod" in visit(engine, f"{HELLO}?qualifier=!prod").text
    for value in ("", "v1", "!prod"):
        assert send_form(engine, f"{HELLO}/test", qualifier=value, event="{}", mode="async").status == 303, value


@pytest.mark.parametrize(
    ("digest", "code", "said"),
    [
        ("of-earlier-code", "x = 1", b"the code was changed since"),
        ("", "x" * 11_000, b"larger than the 10240 bytes"),
    ],
    ids=["changed meanwhile", "too large"],
)
def test_code_that_is_refused_stays_in_the_editor(engine: EngineProcess, digest: str, code: str, said: bytes) -> None:
    digest = digest or engine.ask("GET", f"{BASE}/{urn_of('hello')}/code").json["digest"]

    refused = send_form(engine, f"{HELLO}/code", digest=digest, code=code)

    assert (refused.status, said in refused.body, f"{code}</textarea>".encode() in refused.body) == (400, True, True)
    assert f'name="digest" value="{digest}"'.encode() in refused.body


def test_a_large_package_is_passed_on_in_bounded_memory(engine: EngineProcess) -> None:
    packed = zipped(index__py="def handler(event, context):\n    return 1\n", noise=os.urandom(48 << 20))
    part = "--edge\r\nContent-Disposition: form-data; name="
    head = f'{part}"form_token"\r\n\r\n{visit(engine, HELLO).form_token}\r\n{part}"package"; filename="large.zip"'
    body = head.encode() + b"\r\n\r\n" + packed + b"\r\n--edge--\r\n"
    before = peak(engine)
    headers = {"Content-Type": "multipart/form-data; boundary=edge", "Origin": engine.url}
    reply = engine.ask("POST", f"{HELLO}/package", body, headers=headers)

    assert reply.status == 303, reply
    assert peak(engine) - before < 20 << 20
    downloaded = engine.ask("GET", f"{HELLO}/package")
    assert downloaded.body == packed
    assert downloaded.headers["content-disposition"] == 'attachment; filename="hello.zip"'


def peak(engine: EngineProcess) -> int:
    """Return the most memory that the engine has had, in bytes."""
    status = Path(f"/proc/{engine.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
