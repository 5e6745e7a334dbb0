"""Console of an engine with credentials, in this process: traces of what readers do, and pages about problems."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from engine.auth import throttle
from engine.auth.credentials import Token
from engine.http.console import docs
from engine.http.console.functions import code as function_code
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.paths import CHANGES, HOME, SIGN_IN, SIGN_OUT
from engine.model.controls import Controls
from engine.protocols.audit import Trace
from tests.support.console import form_token
from tests.support.console_operations import ACTIONS, PAGES
from tests.support.http_app import PROJECT
from tests.support.triggering import House, api_client, house

SECRET = "the-secret-of-an-access-key"
TOKENS = {role: f"the-token-with-the-role-{role}" for role in ("invoke", "read", "admin")}
SEARCH = ("Search", "Show", "Filter", "Load")  #: buttons of forms that change nothing
HELLO = f"{HOME}projects/{PROJECT}/functions/hello"


@asynccontextmanager
async def console(folder: Path, **settings: Any) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    tokens = [{"token": token, "project": PROJECT, "role": role} for role, token in TOKENS.items()]
    keys = [{"access": "AK1", "secret": SECRET, "project": PROJECT}]
    async with house(folder, auth__tokens=tokens, auth__keys=keys, **settings) as place, api_client(place) as client:
        yield place, client


async def sign_in(client: httpx.AsyncClient, **fields: str) -> None:
    reply = await client.post(SIGN_IN, data=fields)
    assert reply.status_code == 303, reply.text


async def test_actions_in_the_console_are_traced_with_the_credential(place: House, client: httpx.AsyncClient) -> None:
    traces: list[Trace] = []
    with place.engine.audit.subscribed(traces.append), capture_logs() as lines:
        await client.post(SIGN_IN, data={"kind": "key", "access": "AK1", "secret": "wrong-secret-of-it"})
        await sign_in(client, kind="key", access="AK1", secret=SECRET)
        token = await form_token(client, HELLO)
        await client.post(f"{HELLO}/pause", data={"form_token": token, "reason": "x"})
        await client.post(f"{HELLO}/resume", data={"form_token": token})
        await client.post(SIGN_OUT, data={"form_token": token})

    operations = ["ConsoleSignIn", "PauseFunction", "ResumeFunction", "ConsoleSignOut"]
    assert [trace.operation for trace in traces] == operations
    assert {(trace.user, trace.role, trace.project, trace.source_ip) for trace in traces} == {
        ("AK1", "admin", PROJECT, "127.0.0.1")
    }
    assert (traces[0].resource_type, traces[0].request) == ("session", None)
    events = ["not authenticated", "signed in", "signed out"]
    assert [line["event"] for line in lines if line["event"] in events] == events
    assert SECRET not in str(traces) + str(lines)


async def test_the_role_of_a_session_decides_what_a_form_may_do(place: House, client: httpx.AsyncClient) -> None:
    traces: list[Trace] = []
    with place.engine.audit.subscribed(traces.append):
        await sign_in(client, token=TOKENS["read"])
        token = await form_token(client, HELLO)
        sent_from = {"Referer": f"{client.base_url}{HELLO}/configuration?a=b"}
        refused = await client.post(f"{HELLO}/pause", data={"form_token": token, "reason": "x"}, headers=sent_from)
        page = await client.get(HELLO)
        await client.post(SIGN_OUT, data={"form_token": token})
        await sign_in(client, token=TOKENS["invoke"])
        hidden = await client.get(HELLO)

    assert (refused.status_code, hidden.status_code) == (403, 403)
    assert "the role read may not use PauseFunction" in refused.text
    assert f'<a href="{HELLO}/configuration?a=b">Back to the page</a>' in refused.text
    assert f'action="{HELLO}/pause"' not in page.text
    assert f"{HOME}projects/" not in hidden.text.replace("&#34;", "")
    assert {trace.operation for trace in traces} == {"ConsoleSignIn", "ConsoleSignOut"}


async def test_emptied_controls_get_their_defaults(place: House, client: httpx.AsyncClient) -> None:
    await sign_in(client, token=TOKENS["admin"])
    [function] = place.engine.catalog.list(PROJECT)
    await place.engine.controls.change(function.urn(""), {"burst": 3, "recycle_requests": 7, "rate": 0.5})
    token = await form_token(client, f"{HELLO}/configuration/concurrency")
    fields = {"form_token": token, "burst": "", "recycle_requests": "", "rate": ""}
    reply = await client.post(f"{HELLO}/configuration/concurrency/controls", data=fields)

    assert reply.status_code == 303, reply.text
    assert place.engine.controls.of(function.function_id) == Controls()


async def test_the_role_invoke_sees_no_page_by_sending_its_form(client: httpx.AsyncClient) -> None:
    known = {"project_id": PROJECT, "function": "hello"}
    paths = [re.sub(r"{(\w+)}", lambda match: known.get(match[1], "x"), action.path) for action in ACTIONS]
    await sign_in(client, token=TOKENS["invoke"])
    fields = {"form_token": await form_token(client, f"{HOME}docs/")}
    sent = {path: await client.post(path, data=fields) for path in paths if path not in (SIGN_IN, SIGN_OUT)}

    assert len(sent) > 30
    assert {path: reply.status_code for path, reply in sent.items() if reply.status_code != 403} == {}
    assert all("the role invoke may not use" in reply.text for reply in sent.values())


async def test_a_stream_ends_when_its_credential_gets_another_role(place: House, client: httpx.AsyncClient) -> None:
    authenticator = place.engine.authenticator
    assert authenticator is not None
    headers = {"X-Auth-Token": TOKENS["read"], "Accept": "text/event-stream"}
    with anyio.fail_after(30):
        async with client.stream("GET", CHANGES, headers=headers) as reply:
            authenticator.replace([], [Token(token=TOKENS["read"], project=PROJECT, role="invoke")])
            place.engine.catalog.settings_changed(1)
            text = "".join([piece async for piece in reply.aiter_text()])

    assert (reply.status_code, "event: change" in text) == (200, False)


async def test_the_link_of_code_is_shown_to_the_role_read_without_its_credentials(
    place: House, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    [function] = place.engine.catalog.list(PROJECT)
    linked = replace(function, code=replace(function.code, url="https://user:word@host/a.zip?signature=b"))
    monkeypatch.setattr(FunctionFrame, "version_of", lambda self, call: linked)
    links = {}
    for role in ("read", "admin"):
        await sign_in(client, token=TOKENS[role])
        links[role] = re.findall(r"https://[^<]*host[^<]*", (await client.get(HELLO)).text)

    assert links == {"read": ["https://host/******"], "admin": ["https://user:word@host/a.zip?signature=b"]}


async def test_the_editor_of_an_event_sends_6_mib(client: httpx.AsyncClient) -> None:
    event = '["' + '","' * 2_000_000 + '"]'
    await sign_in(client, token=TOKENS["admin"])
    fields = {"form_token": await form_token(client, f"{HELLO}/test"), "mode": "async", "event": event}
    page = await client.get(f"{HELLO}/test")
    reply = await client.post(f"{HELLO}/test", files={name: (None, text) for name, text in fields.items()})
    encoded = await client.post(f"{HELLO}/test", data=fields)

    assert re.search(f'action="{HELLO}/test" enctype="multipart/form-data"', page.text)
    assert (reply.status_code, encoded.status_code) == (400, 413)
    assert "262144 bytes" in reply.text
    assert reply.text.count("&#34;,&#34;") == 2_000_000


async def test_the_role_read_has_no_package_packed(
    place: House, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[object] = []
    monkeypatch.setattr(function_code, "with_file", lambda *args: packed.append(args))
    monkeypatch.setattr(function_code, "is_editable", lambda code: True)
    await sign_in(client, token=TOKENS["read"])
    [function] = place.engine.catalog.list(PROJECT)
    fields = {"form_token": await form_token(client, HELLO), "digest": function.code.digest, "code": "x"}
    reply = await client.post(f"{HELLO}/code/file?file=index.py", data=fields)

    assert (reply.status_code, packed) == (403, [])


async def test_many_wrong_attempts_are_delayed_and_then_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "OF_ONE", 8)
    replies: list[httpx.Response] = []

    async def guess(client: httpx.AsyncClient) -> None:
        replies.append(await client.post(SIGN_IN, data={"token": "a-token-of-nobody"}))

    async with console(tmp_path, auth__failures=1) as (_, client):
        await guess(client)
        async with anyio.create_task_group() as guesses:
            for _ in range(8 + 3):
                guesses.start_soon(guess, client)
        await sign_in(client, token=TOKENS["admin"])

    statuses = [reply.status_code for reply in replies]
    assert (statuses[:4], statuses.count(429)) == ([401, 429, 429, 429], 3)
    assert "Too many failed attempts" in replies[1].text
    assert int(replies[1].headers["retry-after"]) > 0


async def test_a_bug_in_a_page_is_a_page_with_the_navigation(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("<b>a bug</b>")

    await sign_in(client, token=TOKENS["admin"])
    monkeypatch.setattr(docs, "_files", broken)
    with capture_logs() as lines:
        reply = await client.get(f"{HOME}docs/")
        api = await client.get(f"/v2/{PROJECT}/fgs/functions")

    assert (reply.status_code, reply.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert "internal error; see the engine" in reply.text
    assert f"{HOME}projects/{PROJECT}/functions" in reply.text
    assert "a bug" not in reply.text
    assert "request failed" in [line["event"] for line in lines]
    assert (api.status_code, api.headers["content-type"]) == (401, "application/json")


async def test_an_unknown_page_of_a_project_keeps_the_project(client: httpx.AsyncClient) -> None:
    await sign_in(client, token=TOKENS["admin"])
    replies = [
        await client.get(f"{HOME}projects/{PROJECT}/nothing"),
        await client.get(f"{HOME}projects/{PROJECT}/functions/nobody"),
        await client.get(f"{HELLO}/nothing"),
    ]

    assert [reply.status_code for reply in replies] == [404] * 3
    assert all(f'href="{HOME}projects/{PROJECT}/functions"' in reply.text for reply in replies)


async def test_pages_show_the_role_read_no_button_that_changes_something(client: httpx.AsyncClient) -> None:
    paths = [page.path.format(project_id=PROJECT, function="hello") for page in PAGES if _is_plain(page.path)]
    buttons: dict[str, dict[str, list[str]]] = {"read": {}, "admin": {}}
    creating = {
        f"{HELLO}/configuration/{path}": [403, 200] for path in ("new-alias", "new-reservation", "triggers/new")
    }
    statuses: dict[str, list[int]] = {path: [] for path in {*paths, *creating}}
    for role, by_path in buttons.items():
        await sign_in(client, token=TOKENS[role])
        for path, told in statuses.items():
            reply = await client.get(path)
            told.append(reply.status_code)
            assert reply.status_code < 500, (path, reply.text)
            by_path[path] = re.findall(r'<button type="submit"[^>]*>([^<]*)<', reply.text)

    assert len(paths) > 10
    assert {path: statuses[path] for path in creating} == creating
    assert {path: names for path, names in buttons["read"].items() if set(names) - {"Sign out", *SEARCH}} == {}
    assert sum(len(names) > 1 for names in buttons["admin"].values()) > 3


def _is_plain(path: str) -> bool:
    """Return whether a path is that of a page about the function hello, or about no single object."""
    names = set(re.findall(r"{(\w+)", path))
    streams = path == CHANGES or path.endswith("/stream")
    return names <= {"project_id", "function"} and path.startswith(HOME) and not streams
