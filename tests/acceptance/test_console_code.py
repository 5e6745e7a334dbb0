"""Code and tests of functions in the console of an engine with credentials: what each role sees, and large packages."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.acceptance.browsing import visit
from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, Reply, engine_on, urn_of

HERE = f"/console/projects/{PROJECT}"
ADMIN, READ, PAYLOADS = ("token-of-admin-0123456789", "token-of-read-0123456789", "token-of-payloads-0123456789")
SECRET = "secret-in-the-code"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    folder = tmp_path_factory.mktemp("console_code")
    rights = {ADMIN: "", READ: 'role = "read"\n', PAYLOADS: 'role = "read"\npayloads = true\n'}
    keys = folder / "keys.toml"
    keys.write_text(
        "".join(f'[[tokens]]\ntoken = "{one}"\nproject = "{PROJECT}"\n{more}' for one, more in rights.items())
    )
    keys.chmod(0o600)
    with engine_on(folder / "data", FUNCTIOND_AUTH__FILE=str(keys)) as engine:
        engine.headers["X-Auth-Token"] = ADMIN
        engine.create("hello", f"# {SECRET}\ndef handler(event, context):\n    return event\n")
        content = "eyJzIjogInNlY3JldC1pbi10aGUtZXZlbnQifQ=="
        engine.ask("POST", f"{BASE}/{urn_of('hello')}/events", {"name": "saved", "content": content})
        yield engine


def as_role(engine: EngineProcess, token: str, path: str) -> Reply:
    return engine.ask("GET", HERE + path, headers={"X-Auth-Token": token})


@pytest.mark.parametrize("token", [READ, PAYLOADS])
def test_readers_do_not_see_code_and_cannot_change_it(engine: EngineProcess, token: str) -> None:
    page = as_role(engine, token, "/functions/hello")

    assert page.status == 200
    assert SECRET.encode() not in page.body
    assert b"the role admin may" in page.body
    for word in (b"data-editor", b"/package", b"/delete", b"Pause"):
        assert word not in page.body
    assert [as_role(engine, token, f"/functions/hello/{one}").status for one in ("package", "delete")] == [403, 403]
    assert as_role(engine, token, "/create-function").status == 403
    assert b"create-function" not in as_role(engine, token, "/functions").body


def test_readers_see_saved_events_only_with_payloads(engine: EngineProcess) -> None:
    events = engine.ask("GET", f"{BASE}/{urn_of('hello')}/events").json["events"]
    path = f"/functions/hello/test?from=event:{events[0]['id']}"

    assert b"secret-in-the-event" not in as_role(engine, READ, path).body
    assert b"secret-in-the-event" in as_role(engine, PAYLOADS, path).body
    assert b">Run<" not in as_role(engine, PAYLOADS, path).body


def test_each_version_and_alias_to_choose_is_shown_and_runs(engine: EngineProcess) -> None:
    function = f"{BASE}/{urn_of('hello')}"
    engine.ask("POST", f"{function}/versions", {"version": "v1"})
    engine.ask("POST", f"{function}/aliases", {"name": "prod", "version": "v1"})
    here = f"{HERE}/functions/hello"
    page = visit(engine, here)
    values = [one.get("value") or "" for tag, one in page.tags if tag == "option"]
    token = next(one["value"] or "" for _, one in page.tags if one.get("name") == "form_token")

    assert {"", "v1", "!prod"} <= set(values)
    assert "by the alias prod" in visit(engine, f"{here}?qualifier=!prod").text
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"http://127.0.0.1:{engine.port}"}
    for value in ("", "v1", "!prod"):
        body = urlencode({"form_token": token, "qualifier": value, "event": "{}", "mode": "async"})
        assert engine.ask("POST", f"{here}/test", body.encode(), headers=headers).status == 303, value


def test_a_form_of_a_reader_changes_nothing(engine: EngineProcess) -> None:
    page = visit(engine, f"{HERE}/functions/hello")
    assert SECRET in page.text
    origin = {"Origin": f"http://127.0.0.1:{engine.port}", "X-Auth-Token": READ}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in ("code", "delete", "test", "test/save", "dependencies"):
        reply = engine.ask("POST", f"{HERE}/functions/hello/{path}", b"code=x", headers=origin | form)
        assert reply.status == 403, path


def test_code_that_was_changed_meanwhile_is_not_replaced_by_a_second_attempt(engine: EngineProcess) -> None:
    here = f"{HERE}/functions/hello"
    token = next(one["value"] or "" for _, one in visit(engine, here).tags if one.get("name") == "form_token")
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"http://127.0.0.1:{engine.port}"}
    body = urlencode({"form_token": token, "digest": "of-earlier-code", "code": "x = 'typed'"}).encode()

    refused = engine.ask("POST", f"{here}/code", body, headers=headers)

    assert refused.status == 400
    assert b"the code was changed since" in refused.body
    assert b"x = &#39;typed&#39;" in refused.body
    assert b'name="digest" value="of-earlier-code"' in refused.body


def test_a_large_package_is_passed_on_in_bounded_memory(engine: EngineProcess) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("index.py", "def handler(event, context):\n    return 1\n")
        archive.writestr("noise", os.urandom(48 << 20))
    field = next(one for tag, one in visit(engine, f"{HERE}/functions/hello").tags if one.get("name") == "form_token")
    part = "--edge\r\nContent-Disposition: form-data; name="
    head = f'{part}"form_token"\r\n\r\n{field["value"]}\r\n{part}"package"; filename="large.zip"\r\n\r\n'
    body = head.encode() + packed.getvalue() + b"\r\n--edge--\r\n"
    before = peak(engine)
    headers = {"Content-Type": "multipart/form-data; boundary=edge", "Origin": f"http://127.0.0.1:{engine.port}"}
    reply = engine.ask("POST", f"{HERE}/functions/hello/package", body, headers=headers)

    assert reply.status == 303, reply
    assert peak(engine) - before < 20 << 20
    downloaded = engine.ask("GET", f"{HERE}/functions/hello/package")
    assert downloaded.body == packed.getvalue()
    assert downloaded.headers["content-disposition"] == 'attachment; filename="hello.zip"'


def peak(engine: EngineProcess) -> int:
    """Return the most memory that the engine has had, in bytes."""
    status = Path(f"/proc/{engine.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
