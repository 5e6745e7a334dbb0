"""Roles of credentials: the operations that each may use, the parts of replies that each sees, and denials."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import anyio
import httpx
import msgspec
import pytest
from anyio.abc import TaskStatus
from structlog.testing import capture_logs

from engine.auth.credentials import Token
from engine.auth.denials import LINES
from engine.auth.roles import Role
from engine.http.api import large_replies
from engine.http.api.routing import BASE
from engine.http.api.secrets import param_shown, without_credentials
from engine.http.console.paths import FILES, HOME, OPEN
from engine.http.operations import OPERATIONS
from engine.protocols import Operation, Plugin, PluginContext
from engine.protocols.audit import Trace
from plugins.cts import plugin as cts
from plugins.dis import plugin as dis
from plugins.eventgrid import plugin as eventgrid
from plugins.lts import plugin as lts
from plugins.obs import plugin as obs
from plugins.smn import plugin as smn
from plugins.webhook import plugin as webhook
from tests.support.console_operations import PAGES
from tests.support.documents import DOCS
from tests.support.http_app import PROJECT
from tests.support.triggering import HELD, House, api_client, house
from tests.support.waiting import until

PLUGINS = [cts, dis, eventgrid, lts, obs, smn, webhook]
RIGHTS: Mapping[str, dict[str, Any]] = {
    "invoke": {"role": "invoke"},
    "read": {"role": "read"},
    "payloads": {"role": "read", "payloads": True},
    "admin": {},
    "operator": {"role": "operator"},
}
#: Operations that need no credentials, or whose denial is of no use.
OPEN_PATHS = {"/healthz", *OPEN}
_PAGES = frozenset(operation.name for operation in PAGES)
ENVIRONMENT, ENCRYPTED = "value-of-the-environment", "value-of-the-encrypted"
HOOK, HOOK_SECRET = "path-of-the-hook-is-secret", "secret-of-the-webhook-trigger"
PAYLOAD = "payload-of-the-invocation"
EVENT = base64.b64encode(b'"content of the test event"').decode()
FUNCTIONS = BASE.replace("{project_id}", PROJECT) + "/functions"
DELIVERIES = FUNCTIONS.replace("functions", "deliveries")


def token_of(rights: str) -> str:
    return f"the-token-with-the-rights-{rights}"


@asynccontextmanager
async def console(folder: Path) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    """Run an engine with a token for each of RIGHTS, and yield it with an HTTP client."""
    tokens = [{"token": token_of(name), "project": PROJECT, **rights} for name, rights in RIGHTS.items()]
    del tokens[-1]["project"]
    async with house(folder, PLUGINS, auth__tokens=tokens) as place, api_client(place) as client:
        await until(lambda: has_all_routes(place))
        yield place, client


def has_all_routes(place: House) -> bool:
    names = {operation.name for operation in place.engine.plugins.mounts.operations()}
    return all(any(name.startswith(start) for name in names) for start in ("Dis", "Smn", "LtsSend", "LtsCreate")) and (
        len([name for name in names if not name.startswith(("Dis", "Smn", "Lts"))]) == 5
    )


def path_of(operation: Operation, **values: str) -> str:
    """Return a path of an operation, by default about objects that do not exist."""
    given = {"project_id": PROJECT, "resource_type": "functions", "function_urn": "nobody", **values}
    return re.sub(r"{(\w+)(:\w+)?}", lambda match: given.get(match[1], "nothing"), operation.path)


async def ask(client: httpx.AsyncClient, rights: str, method: str, path: str, **more: Any) -> httpx.Response:
    return await client.request(
        method, path, headers={"x-auth-token": token_of(rights), **more.pop("headers", {})}, **more
    )


def may(rights: str, operation: Operation) -> bool:
    role: Role = RIGHTS[rights].get("role", "admin")
    if role == "admin":
        return True
    return role in operation.roles and not (operation.payloads and role == "read" and rights != "payloads")


@pytest.mark.parametrize("rights", RIGHTS)
async def test_each_role_uses_its_operations_and_no_others(
    place: House, client: httpx.AsyncClient, rights: str
) -> None:
    served = place.engine.plugins.mounts.operations()
    operations = [operation for operation in [*OPERATIONS, *PAGES, *served] if operation.path not in OPEN_PATHS]
    for operation in operations:
        body = {"content": b"{}", "headers": {"content-type": "application/json"}} if operation.body else {}
        reply = await ask(client, rights, operation.method, path_of(operation), **body)

        if may(rights, operation):
            # SMN answers some invalid bodies with 403 as well.
            assert reply.status_code != 401, (operation.name, reply.text)
            assert reply.status_code != 403 or operation.name.startswith("Smn"), (operation.name, reply.text)
            assert "the role" not in reply.text or operation.name == "ShowDocument" or operation.name in _PAGES
            continue
        assert reply.status_code == 403, (operation.name, reply.text)
        told = reply.text if operation.name in _PAGES else reply.json()["error_msg"]
        assert operation.name in told
        assert f"the role {RIGHTS[rights]['role']} may" in told
        if operation.name not in _PAGES:
            assert reply.json()["error_code"] == "FSS.0403"
            assert reply.headers["x-request-id"]

    assert len(served) > 35
    assert any(may(rights, operation) for operation in operations)
    assert rights == "admin" or not all(may(rights, operation) for operation in operations)


def test_the_table_gives_each_role_the_operations_of_its_purpose() -> None:
    by_role = {role: {operation.name for operation in OPERATIONS if role in operation.roles} for role in get_args(Role)}
    engine = {"ShowHealth", "ShowReadiness", "ShowDocument"}
    account = {"KeystoneListAuthDomains", "KeystoneListProjects"}
    whole = {"CreateBackup", "AcceptClock", "ShowClock", "ShowFigures", "ListNodes", "DrainNode"}
    status = {"ListAsyncInvocations", "ListActiveAsyncInvocations", "ShowAsyncInvocation", "ExplainAsyncInvocation"}

    calls = {"AsyncInvokeFunction", "BatchAsyncInvokeFunction", "InvokeFunction"}
    links = {"ListChildren", "ListMembers", "ListResults", "ShowGroup"}
    groups = {"QueueCalls", "CreateGroup", "SealGroup", "CancelGroup", "CancelTree"}
    assert by_role["invoke"] == engine | account | status | calls | links | groups | {"CancelAsyncInvocation"}
    assert by_role["admin"] == set()
    assert by_role["operator"] == engine | whole
    changes = {operation.name for operation in OPERATIONS if operation.method != "GET"} - {
        "ShowResInstanceInfo",
        "ListResults",
    }
    assert not by_role["read"] & changes
    assert not by_role["read"] & {"ShowFunctionCode", "ExportFunction"}


async def test_an_admin_of_one_of_two_projects_gets_no_backup_and_accepts_no_clock(tmp_path: Path) -> None:
    """A backup has all projects, and an accepted clock lets their work expire."""
    tokens = [{"token": token_of(name), "project": name} for name in (PROJECT, "other")]
    tokens.append({"token": token_of("operator"), "role": "operator"})
    backups, clock = f"/v2/{PROJECT}/fgs/backups", f"/v2/{PROJECT}/fgs/clock/accept"
    async with (
        house(tmp_path / "data", auth__tokens=tokens, storage__backup_dir=str(tmp_path)) as place,
        api_client(place) as client,
    ):
        stolen = await ask(client, PROJECT, "POST", backups, json={"path": str(tmp_path / "stolen")})
        denied = await ask(client, PROJECT, "POST", clock)
        made = await ask(client, "operator", "POST", backups, json={"path": str(tmp_path / "made")})
        accepted = await ask(client, "operator", "POST", clock)
        assert place.engine.authenticator is not None
        place.engine.authenticator.replace([], msgspec.convert(tokens[:1], list[Token]))
        alone = await ask(client, PROJECT, "POST", clock)

    assert "several projects; credentials with the role operator may" in stolen.json()["error_msg"]
    assert [reply.status_code for reply in (stolen, denied, made, accepted, alone)] == [403, 403, 200, 200, 200]
    assert not (tmp_path / "stolen").exists()
    assert (tmp_path / "made" / "backup.json").exists()


async def test_a_request_that_no_table_names_is_for_admin_only(client: httpx.AsyncClient) -> None:
    for path in (f"/v2/{PROJECT}/streams/a/b/c/d", f"/v3/{PROJECT}/streams", "/triggers/cts/else"):
        assert (await ask(client, "read", "GET", path)).status_code == 403
        assert (await ask(client, "invoke", "PATCH", path)).status_code == 403
        assert (await ask(client, "admin", "PATCH", path)).status_code != 403


async def plant(place: House, client: httpx.AsyncClient) -> str:
    """Store secrets and payloads of all kinds. Return the request id of an invocation."""

    async def change(method: str, path: str, body: object) -> Any:
        reply = await ask(client, "admin", method, path, json=body)
        assert reply.status_code < 300, reply.text
        return reply.json()

    config = {"runtime": "Python3.10", "handler": "index.handler", "memory_size": 128, "timeout": 60}
    variables = {
        "user_data": json.dumps({"KEY": ENVIRONMENT}),
        "encrypted_user_data": json.dumps({"KEY": ENCRYPTED}),
    }
    await change("PUT", f"{FUNCTIONS}/hello/config", config | variables)
    hook = {
        "destination": "WEBHOOK",
        "param": json.dumps({"url": f"https://user:{HOOK}@hooks.example/{HOOK}?a={HOOK}"}),
    }
    await change("PUT", f"{FUNCTIONS}/hello/async-invoke-config", {"destination_config": {"on_success": hook}})
    await change("POST", f"{FUNCTIONS}/hello/versions", {"version": "one"})
    await change(
        "POST",
        f"{FUNCTIONS.replace('functions', 'triggers')}/hello",
        {"trigger_type_code": "WEBHOOK", "event_data": {"name": "hook", "secret": HOOK_SECRET}},
    )
    await change("POST", f"{FUNCTIONS}/hello/events", {"name": "event", "content": EVENT})
    accepted = await change("POST", f"{FUNCTIONS}/hello/invocations-async", {"k": PAYLOAD})
    request_id: str = accepted["request_id"]
    place.engine.scheduler.resume(HELD)

    async def is_owed() -> bool:
        return HOOK in (await ask(client, "admin", "GET", DELIVERIES)).text

    await until(is_owed)
    return request_id


async def shown_to(client: httpx.AsyncClient, rights: str, request_id: str, event_id: str) -> str:
    """Return everything that the read operations and the console show to a caller."""
    texts = []
    for operation in [*OPERATIONS, *PAGES]:
        path = path_of(operation, function_urn="hello", request_id=request_id, event_id=event_id)
        if operation.method == "GET" and "{" not in path and path not in OPEN_PATHS:
            texts.append((await ask(client, rights, "GET", path)).text)
    return "\n".join(texts)


async def test_the_role_read_sees_no_secrets_and_payloads_only_on_demand(
    place: House, client: httpx.AsyncClient
) -> None:
    request_id = await plant(place, client)
    [event] = (await ask(client, "admin", "GET", f"{FUNCTIONS}/hello/events")).json()["events"]
    shown = {rights: await shown_to(client, rights, request_id, event["id"]) for rights in RIGHTS}

    assert {text: [rights for rights in RIGHTS if text in shown[rights]] for text in SEEN} == SEEN


async def test_a_large_list_shows_the_role_read_no_secrets_either(
    place: House, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_replies, "STEP", 1)  # each item of a list is then sent by itself
    await plant(place, client)
    path = f"{FUNCTIONS}/hello/versions"
    shown = {rights: await ask(client, rights, "GET", path) for rights in ("read", "payloads", "admin")}

    assert [ENVIRONMENT in reply.text for reply in shown.values()] == [False, False, True]
    lists = {rights: reply.json() for rights, reply in shown.items()}
    assert [[version["version"] for version in answer["versions"]] for answer in lists.values()] == [
        ["latest", "one"]
    ] * 3
    assert all(answer["count"] == 2 for answer in lists.values())
    assert {version["user_data"] for version in lists["read"]["versions"]} == {""}


#: Rights with which each text is seen in some reply.
SEEN: Mapping[str, Iterable[str]] = {
    ENVIRONMENT: ["admin"],
    ENCRYPTED: ["admin"],
    HOOK: ["admin"],
    HOOK_SECRET: [],
    PAYLOAD: ["invoke", "payloads", "admin"],  # the function returns it, so the role invoke gets it as the result
    EVENT: ["payloads", "admin"],
    "hooks.example": ["read", "payloads", "admin"],
    "index.handler": ["read", "payloads", "admin"],
}


class _Unreachable:
    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        raise ConnectionError(f"no answer of amqp://user:{HOOK}@mq.example/events")


async def test_the_role_read_sees_no_credentials_in_problems_of_services(tmp_path: Path) -> None:
    plugin = Plugin(kinds=("LAMP",), serve=lambda settings: _Unreachable())
    tokens = [{"token": token_of(name), "project": PROJECT, **RIGHTS[name]} for name in ("read", "admin")]
    async with house(tmp_path, [plugin], auth__tokens=tokens) as place, api_client(place) as client:
        pages: dict[str, str] = {}
        for rights in ("read", "admin"):
            with anyio.fail_after(60):
                while "mq.example" not in pages.get(rights, ""):
                    pages[rights] = (await ask(client, rights, "GET", f"{HOME}projects/{PROJECT}/triggers")).text

    assert {rights: HOOK in page for rights, page in pages.items()} == {"read": False, "admin": True}


async def test_the_role_invoke_gets_status_and_result_of_an_invocation(client: httpx.AsyncClient) -> None:
    accepted = await ask(client, "invoke", "POST", f"{FUNCTIONS}/hello/invocations-async", json={"k": PAYLOAD})
    record = f"{FUNCTIONS}/hello/async-invocations/{accepted.json()['request_id']}"
    to_invoker = (await ask(client, "invoke", "GET", record)).json()
    to_reader = (await ask(client, "read", "GET", record)).json()
    whole = (await ask(client, "payloads", "GET", record)).json()
    cancelled = await ask(
        client, "invoke", "POST", f"{FUNCTIONS}/hello/cancel", json={"request_id": accepted.json()["request_id"]}
    )

    assert (accepted.status_code, cancelled.status_code) == (202, 200)
    assert set(whole) - set(to_invoker) == {"payload", "log"}
    assert set(whole) - set(to_reader) == {"payload", "result"}
    assert to_invoker["status"] == to_reader["status"] == "WAIT"
    assert json.loads(whole["payload"]) == {"k": PAYLOAD}


async def test_the_console_shows_a_role_only_what_it_may_open(client: httpx.AsyncClient) -> None:
    docs = {rights: (await ask(client, rights, "GET", f"{HOME}docs/")).text for rights in ("invoke", "read")}
    lists = {rights: (await ask(client, rights, "GET", HOME)).text for rights in ("read", "admin")}
    files = [await client.get(f"{HOME}static/{name}") for name in FILES]

    assert f"{HOME}projects/" in docs["read"]
    assert f"{HOME}projects/" not in docs["invoke"]
    assert "/metrics" in docs["read"]
    assert "/metrics" not in docs["invoke"]
    assert all(f"{HOME}projects/" in page for page in lists.values())
    assert {file.status_code for file in files} == {200}


async def test_each_denial_is_logged_with_credential_and_role(client: httpx.AsyncClient) -> None:
    with capture_logs() as lines:
        await ask(client, "read", "DELETE", f"{FUNCTIONS}/hello")
        await ask(client, "invoke", "GET", "/v2/other/fgs/functions")
        await ask(client, "admin", "PUT", "/v3/other/streams/events", json={})
        await ask(client, "read", "POST", f"/v2/{PROJECT}/streams", json={})
        for _ in range(LINES + 5):
            assert (await client.get(FUNCTIONS)).status_code == 401
        await ask(client, "invoke", "GET", FUNCTIONS)
    denials = [line for line in lines if line["event"] == "access denied"]

    roles = ["read", "invoke", "admin", "read", *[None] * LINES, "invoke"]  # not all of anonymous clients are logged
    assert [line.get("role") for line in denials] == roles
    assert all(re.fullmatch(r"token [0-9a-f]{12}", line["credential"]) for line in (*denials[:4], denials[-1]))
    assert "DeleteFunction" in denials[0]["problem"]
    assert {line["client"] for line in denials} == {"127.0.0.1"}
    assert denials[0]["path"] == f"{FUNCTIONS}/hello"
    assert not any(token_of(rights) in str(lines) for rights in RIGHTS)


async def test_changes_of_plugins_leave_traces_that_say_who(place: House, client: httpx.AsyncClient) -> None:
    traces: list[Trace] = []
    streams = f"/v2/{PROJECT}/streams"
    with place.engine.audit.subscribed(traces.append):
        stream = {"stream_name": "events", "partition_count": 1}
        await ask(client, "admin", "POST", streams, json=stream)
        record = {"stream_name": "events", "records": [{"data": "YQ==", "partition_key": "a"}]}
        sent = await ask(client, "invoke", "POST", f"/v2/{PROJECT}/records", json=record)
        await ask(client, "read", "DELETE", f"{streams}/events")
        gone = await ask(client, "admin", "DELETE", f"{streams}/nothing")
        await ask(client, "admin", "PUT", f"{FUNCTIONS}/hello/collect/true")

    assert sent.status_code == 200
    made, refused, marked = traces
    assert (made.operation, made.service, made.role, made.code) == ("DisCreateStream", "DIS", "admin", 201)
    assert (made.resource_type, made.resource_name, made.project) == ("stream", "events", PROJECT)
    assert re.fullmatch(r"token [0-9a-f]{12}", made.user)
    assert made.request == stream
    assert (refused.operation, refused.code, refused.resource_id) == ("DisDeleteStream", gone.status_code, "nothing")
    assert (marked.service, marked.role, marked.user) == ("FunctionGraph", "admin", made.user)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://hooks.example/a/b?c=d", "https://hooks.example/******"),
        ("mongodb://user:word@db.example:27017/", "mongodb://db.example:27017/"),
        ("https://api.example answered 500", "https://api.example answered 500"),
        ("no URL", "no URL"),
        ("https://user:word@more@hooks.example/a", "https://hooks.example/******"),
        ("https://hooks.example/a'b?c=d", "https://hooks.example/******"),
        ('https://hooks.example/"a?c=d', "https://hooks.example/******"),
        ("amqp://user:w/ord@mq.example/a", "amqp://******"),
        ("no answer of 'https://hooks.example/a'b?c=d' for 5 s", "no answer of 'https://hooks.example/****** for 5 s"),
        ("no answer (https://hooks.example)", "no answer (https://hooks.example)"),
    ],
)
def test_urls_lose_what_may_be_a_credential(text: str, shown: str) -> None:
    assert without_credentials({"event_data": [text]}) == {"event_data": [shown]}


def test_a_param_that_is_no_json_is_masked_whole() -> None:
    assert param_shown("not JSON") == "******"
    assert param_shown('{"secret":"one","bucket":"b"}') == '{"secret":"******","bucket":"b"}'
    assert param_shown('{"tokens":["one"],"password":{"a":"b"}}') == '{"tokens":"******","password":"******"}'
    assert param_shown('{"token":"","private":false}') == '{"token":"","private":false}'


async def test_the_page_about_security_lists_the_operations_of_each_role(place: House) -> None:
    served = place.engine.plugins.mounts.operations()
    page = (DOCS / "security.md").read_text()

    rows = dict(re.findall(r"^\| `(invoke|read|operator)` \| (.*) \|$", page, re.MULTILINE))

    for role, names in rows.items():
        assert names.split(", ") == sorted(
            operation.name for operation in [*OPERATIONS, *served] if role in operation.roles
        )
    assert rows.keys() == {*get_args(Role)} - {"admin"}
