"""Gateway in front of an engine in this process, called over real sockets.

Its function is held: no invocation starts.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from functiond.signing import hash_of, sign
from msgspec.structs import replace

from engine.auth import throttle
from engine.code.store import NO_CODE, CodeSource
from engine.errors import InvalidTrigger, SettingsError, TriggerClash
from engine.http.api.errors import trigger_status
from engine.model.urn import parse_urn
from engine.protocols import EVENT_LIMIT, Plugin
from engine.resources.bound_trigger import BoundTrigger
from engine.resources.triggers import TriggerDraft
from plugins.apig import plugin
from tests.support.certificates import write_certificate
from tests.support.gateways import API, MANY
from tests.support.http_app import PROJECT, REGION, SOURCE, encoded
from tests.support.triggering import House, house, until

ASYNC = {"func_info": {"invocation_type": "async"}}
CODE, OTHER_CODE, FOREIGN_CODE = "the-code-of-one-app", "the-code-of-another", "the-code-of-a-third"
APP_SECRET = "the-secret-of-an-app"
APPS = {
    "plugins__apig__apps": {
        "one": {"app_code": CODE, "apis": ["api"]},
        "other": {"app_code": OTHER_CODE, "apis": ["else"]},
        "foreign": {"app_code": FOREIGN_CODE, "project": "another"},
        "signs": {"key": "APP", "secret": APP_SECRET, "project": "*"},
        "signs-elsewhere": {"key": "APP2", "secret": APP_SECRET, "apis": ["else"]},
    }
}
SECRET, TOKEN = "the-secret-of-a-key", "a-token-of-a-project"
AUTH = {
    "auth__keys": [
        {"access": "AK", "secret": SECRET, "project": PROJECT},
        {"access": "FOREIGN", "secret": SECRET, "project": "another"},
    ],
    "auth__tokens": [{"token": TOKEN, "project": PROJECT}],
}


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
#: Creates an API in the other project.
Claim = Callable[..., Awaitable[BoundTrigger]]


class Gateway:
    def __init__(self, place: House, client: httpx.AsyncClient) -> None:
        self.place, self.client = place, client

    async def events(self) -> list[Any]:
        return await self.place.events()


@asynccontextmanager
async def gateway(folder: Path, *apis: dict[str, Any], **settings: Any) -> AsyncIterator[Gateway]:
    """Open a gateway with these APIs. APIs are asynchronous by default."""
    ports = {"plugins__apig__port": 0, "plugins__apig__dedicated__port": 0}
    async with house(folder, [plugin], **{**ports, **settings}) as place, AsyncExitStack() as stack:
        for api in apis:
            trigger = await place.create("APIG", **{**API, **ASYNC, **api})
            await place.engine.sources.settled(trigger.id)
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=url(place), trust_env=False, verify=False, timeout=60)
        )
        yield Gateway(place, client)


def url(place: House, kind: str = "APIG") -> str:
    service: Any = place.engine.plugins.of(plugin).service
    return f"http://127.0.0.1:{service.listener(kind).port}"


def told(reply: httpx.Response) -> tuple[int, str]:
    body = reply.json()
    assert set(body) == {"error_code", "error_msg", "request_id"}
    assert reply.headers["x-request-id"] == body["request_id"]
    return reply.status_code, body["error_code"]


async def test_a_request_becomes_an_event_and_hears_its_request_id(tmp_path: Path) -> None:
    headers = [("X-A", "b"), ("x-a", "c"), ("Cookie", "d"), ("traceparent", TRACE)]
    async with gateway(tmp_path, {"path": "/orders/{id}", "req_method": "PUT"}) as at:
        own = url(at.place).replace("127.0.0.1", "[::1]")  # gateways have both loopback addresses
        reply = await at.client.put(f"{own}/orders/7?a=1", content=b"x", headers=headers)

        [event] = await at.events()
        [key] = await at.place.keys()
        assert reply.status_code == 202
        assert at.place.engine.storage.identity.key_of(reply.json()["request_id"]) == key
        assert reply.headers["x-cff-request-id"] == reply.json()["request_id"]
        assert event["requestContext"]["requestId"] == reply.headers["x-request-id"]
        assert (event["httpMethod"], event["path"], event["pathParameters"]) == ("PUT", "/orders/7", {"id": "7"})
        assert (event["body"], event["queryStringParameters"]) == (base64.b64encode(b"x").decode(), {"a": "1"})
        assert (event["headers"]["x-a"], event["headers"]["cookie"]) == ("b, c", "d")
        assert event["headers"]["x-real-ip"] == event["requestContext"]["sourceIp"] == "::1"
        assert await at.place.traces() == [TRACE]
        assert event["headers"]["x-forwarded-port"] == str(at.client.base_url.port)


async def test_what_no_api_answers_is_not_found(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"req_method": "GET"}, {"name": "t", "env_name": "TEST", "path": "/t"}) as at:
        replies = [
            await at.client.get("/"),
            await at.client.post("/orders"),
            await at.client.get("/t"),
            await at.client.get("/orders", headers={"X-Stage": "TEST"}),
        ]
        assert [told(reply) for reply in replies] == [(404, "APIG.0101")] * 4
        assert (await at.client.get("/t", headers={"X-Stage": "TEST"})).status_code == 202


async def test_an_app_shows_its_code_and_the_function_does_not_see_it(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"auth": "APP"}, **APPS) as at:
        codes = (None, "a-code-of-no-app", OTHER_CODE, FOREIGN_CODE, CODE)
        bearer = {"Authorization": "Bearer of-the-function"}
        proofs = [{**bearer, "X-Apig-AppCode": code} if code else {} for code in codes]
        replies = [await at.client.get("/orders", headers=proof) for proof in proofs]

        assert [told(reply) for reply in replies[:2]] == [(401, "APIG.0303")] * 2
        assert [told(reply) for reply in replies[2:4]] == [(403, "APIG.0304")] * 2
        assert replies[4].status_code == 202
        [event] = await at.events()
        assert "x-apig-appcode" not in event["headers"]
        assert event["headers"]["authorization"] == "Bearer of-the-function"


async def test_an_app_of_no_project_calls_no_api_while_there_are_several_projects(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"auth": "APP"}, **APPS, **AUTH) as at:
        reply = await at.client.get("/orders", headers={"X-Apig-AppCode": CODE})

        assert told(reply) == (403, "APIG.0304")


def signature(
    at: Gateway, target: str, body: bytes, access: str = "AK", secret: str = SECRET, *, declared: bytes = b""
) -> dict[str, str]:
    headers = {"Host": f"127.0.0.1:{at.client.base_url.port}"}
    if declared:
        headers["X-Sdk-Content-Sha256"] = declared.decode()
    return {**headers, **sign("POST", target, headers, body, access=access, secret=secret, moment=time.time())}


async def test_an_app_signs_and_the_function_does_not_see_it(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"auth": "APP"}, **APPS) as at:
        good = signature(at, "/orders?b=2&a=1", b"x", "APP", APP_SECRET)
        empty = [
            {"Authorization": "Basic eA=="},
            signature(at, "/orders", b"", "NOBODY", APP_SECRET),
            signature(at, "/orders", b"", "APP", APP_SECRET.upper()),
            signature(at, "/orders", b"", "APP2", APP_SECRET),
        ]
        replies = [await at.client.post("/orders", headers=headers) for headers in empty]
        replies.append(await at.client.post("/orders?b=2&a=1", content=b"y", headers=good))
        taken = await at.client.post("/orders?b=2&a=1", content=b"x", headers=good)

        assert [told(reply) for reply in replies[:3]] == [(401, "APIG.0303")] * 3
        assert [told(reply) for reply in replies[3:]] == [(403, "APIG.0304"), (401, "APIG.0303")]
        assert taken.status_code == 202
        [event] = await at.events()
        assert not {"authorization", "x-sdk-date"} & set(event["headers"])


async def test_valid_apps_pass_whatever_failed_before_from_their_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "OF_ONE", 8)
    settings: dict[str, Any] = {"auth__failures": 3, "http__trusted_proxies": ["127.0.0.1"]}
    async with gateway(tmp_path, {"auth": "APP"}, **APPS, **settings) as at:
        right = {"X-Apig-AppCode": CODE}
        wrong = {"X-Apig-AppCode": "a-code-of-no-app", "X-Forwarded-For": "192.0.2.1"}
        none = {"X-Forwarded-For": "192.0.2.1"}
        missing = [await at.client.get("/orders", headers=none) for _ in range(4)]
        failed = [await at.client.get("/orders", headers=wrong) for _ in range(3)]
        more = await asyncio.gather(*(at.client.get("/orders", headers=wrong) for _ in range(20)))
        code = await at.client.get("/orders", headers={**right, "X-Forwarded-For": "192.0.2.1"})
        signed = signature(at, "/orders", b"", "APP", APP_SECRET)
        key = await at.client.post("/orders", headers={**signed, "X-Forwarded-For": "192.0.2.1"})
        other = await at.client.get("/orders", headers={**right, "X-Forwarded-For": "192.0.2.2"})

        assert [told(reply) for reply in [*missing, *failed]] == [(401, "APIG.0303")] * 7
        refused = [reply for reply in more if told(reply) == (429, "APIG.0308")]
        assert {told(reply) for reply in more if reply not in refused} == {(401, "APIG.0303")}
        assert refused
        assert 0 < int(refused[0].headers["retry-after"]) <= 60
        assert [code.status_code, key.status_code, other.status_code] == [202, 202, 202]


@pytest.mark.parametrize(
    ("trusted", "address", "chain"),
    [(["127.0.0.1", "192.0.2.0/24"], "198.51.100.7", "198.51.100.7, 192.0.2.1, 127.0.0.1"), ([], *["127.0.0.1"] * 2)],
)
async def test_the_source_address_cannot_be_forged(
    tmp_path: Path, trusted: list[str], address: str, chain: str
) -> None:
    async with gateway(tmp_path, {}, http__trusted_proxies=trusted) as at:
        forged = {"X-Forwarded-For": "203.0.113.1, 198.51.100.7, 192.0.2.1", "X-Real-IP": "203.0.113.1"}
        forged |= {name.replace("-", "_"): value for name, value in forged.items()}
        await at.client.get("/orders", headers=forged)

        [event] = await at.events()
        assert event["requestContext"]["sourceIp"] == event["headers"]["x-real-ip"] == address
        assert event["headers"]["x-forwarded-for"] == chain
        assert not [name for name in event["headers"] if "_" in name]


async def test_the_setting_for_trust_in_every_client_is_refused_with_its_replacement(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"plugins\.apig\.behind_proxy has been replaced: .*http\.trusted_proxies"):
        async with gateway(tmp_path, plugins__apig__behind_proxy=True):
            pass


async def test_gateways_limit_the_connections_of_a_client(tmp_path: Path) -> None:
    async with gateway(tmp_path, {}, http__client_connections=1) as at:
        assert (await at.client.get("/orders")).status_code == 202
        async with httpx.AsyncClient(base_url=at.client.base_url, trust_env=False, verify=False, timeout=60) as second:
            refused = await second.get("/orders")

        assert refused.status_code == 429
        assert at.place.engine.connections.api.turned_away.counts["client_connections"] == 1


async def test_a_key_of_the_engine_may_call_an_iam_api(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"auth": "IAM"}, {"auth": "IAM", "name": "h", "path": "/healthz"}, **AUTH) as at:
        good = signature(at, "/orders?b=2&a=1", b"x")
        replies = [
            await at.client.get("/healthz"),  # the engine's own path is open
            await at.client.post("/orders"),
            await at.client.post("/orders", headers={"X-Auth-Token": "wrong"}),
            await at.client.post("/orders?b=2&a=1", content=b"y", headers=good),
            await at.client.post("/orders", headers=signature(at, "/orders", b"", access="FOREIGN")),
            await at.client.post("/orders", headers={"X-Auth-Token": TOKEN}),
            await at.client.post("/orders?b=2&a=1", content=b"x", headers=good),
        ]

        assert [told(reply) for reply in replies[:5]] == [(401, "APIG.0301")] * 4 + [(403, "APIG.0302")]
        assert [reply.status_code for reply in replies[5:]] == [202, 202]
        for event in await at.events():
            assert not {"x-auth-token", "authorization", "x-sdk-date"} & set(event["headers"])


@pytest.mark.parametrize("wrong", ["signature", "X-Apig-AppCode", "X-Auth-Token"])
async def test_wrong_credentials_are_refused_before_the_body(tmp_path: Path, wrong: str) -> None:
    auth = "IAM" if wrong == "X-Auth-Token" else "APP"
    async with gateway(tmp_path, {"auth": auth}, **APPS, **AUTH) as at:
        given = {wrong: "not-one-of-the-engine", "Host": "a"}
        if wrong == "signature":
            given = signature(at, "/orders", b"x", "APP", APP_SECRET.upper(), declared=hash_of(b"x"))
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        reader, writer = await asyncio.open_connection("127.0.0.1", at.client.base_url.port)
        writer.write(f"POST /orders HTTP/1.1\r\nContent-Length: 200000\r\n{lines}\r\n".encode())
        try:
            async with asyncio.timeout(50):  # the body never arrives
                head = await reader.readuntil(b"\r\n\r\n")
        finally:
            writer.close()
            await writer.wait_closed()

    assert head.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("api", [{"auth": "APP"}, {"auth": "IAM"}], ids=["APP", "IAM"])
async def test_a_body_is_compared_with_the_hash_that_was_signed(tmp_path: Path, api: dict[str, Any]) -> None:
    key = ("APP", APP_SECRET) if api["auth"] == "APP" else ("AK", SECRET)
    async with gateway(tmp_path, api, **APPS, **AUTH) as at:
        signed = signature(at, "/orders", b"x", *key, declared=hash_of(b"x"))
        replies = [await at.client.post("/orders", content=body, headers=signed) for body in (b"y", b"", b"x")]

        assert [reply.status_code for reply in replies] == [401, 401, 202]
        assert len(await at.events()) == 1


async def test_an_iam_api_is_called_with_the_roles_that_invoke(tmp_path: Path) -> None:
    tokens = {role: f"a-token-with-the-role-{role}" for role in ("invoke", "read", "admin")}
    given = [{"token": token, "project": PROJECT, "role": role} for role, token in tokens.items()]
    async with gateway(tmp_path, {"auth": "IAM"}, auth__tokens=given) as at:
        replies = {
            role: await at.client.post("/orders", headers={"X-Auth-Token": token}) for role, token in tokens.items()
        }

        assert [replies["invoke"].status_code, replies["admin"].status_code] == [202, 202]
        assert told(replies["read"]) == (403, "APIG.0302")
        assert "the role read may not use an API of a gateway" in replies["read"].json()["error_msg"]


async def test_an_engine_without_credentials_lets_nobody_call_an_iam_api(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"auth": "IAM"}) as at:
        assert told(await at.client.get("/orders")) == (401, "APIG.0301")


async def test_a_body_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 50

    async with gateway(tmp_path, {}, plugins__apig__body_limit=100) as at:
        replies = [await at.client.post("/orders", content=content) for content in (b"x" * 101, pieces())]

        assert [told(reply) for reply in replies] == [(413, "APIG.0201")] * 2
        assert (await at.client.post("/orders", content=b"x" * 100)).status_code == 202


@pytest.mark.parametrize(
    ("limit", "settings"), [(256 << 10, {}), (EVENT_LIMIT, {"plugins__apig__async_body_limit": EVENT_LIMIT})]
)
async def test_a_body_may_be_as_large_as_an_event(tmp_path: Path, limit: int, settings: dict[str, Any]) -> None:
    async with gateway(tmp_path, {}, **settings) as at:
        assert (await at.client.post("/orders", content=b"x" * limit)).status_code == 202
        assert told(await at.client.post("/orders", content=b"x" * (limit + 1))) == (413, "APIG.0201")


async def test_an_api_with_all_paths_below_tells_the_beginning_of_the_path(tmp_path: Path) -> None:
    shop = {"name": "shop", "path": "/shop", "match_mode": "SWA"}
    rest = {"name": "rest", "path": "/of/{owner}/{rest+}"}
    async with gateway(tmp_path, {"path": "/"}, shop, rest) as at:
        for path in ("/shop", "/shop/a/b?c=/d", "/of/a%2Fb/c", "/"):
            forged = {"X-Forwarded-Prefix": "/forged", "X_Forwarded_Prefix": "/forged"}
            assert (await at.client.get(path, headers=forged)).status_code == 202

        prefixes = [event["headers"].get("x-forwarded-prefix") for event in await at.events()]
        assert prefixes == ["/shop", "/shop", "/of/a%2Fb", None]


async def test_a_stored_path_that_is_refused_now_serves_nothing_and_says_why(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"path": "/hostile"}, {"name": "b"}) as at:
        hostile = next(trigger for trigger in at.place.engine.resources.triggers.all() if trigger.options.name == "api")
        earlier = replace(hostile.stored, data={**hostile.stored.data, "path": MANY})
        await at.place.engine.storage.resources.put(hostile.resource(msgspec.json.encode(earlier)))

    async with gateway(tmp_path) as at:
        state = at.place.state(hostile)
        replies = [await at.client.get(path) for path in ("/" + "x" * 8_000, "/hostile", "/orders")]
        with pytest.raises(InvalidTrigger, match="one parameter between two slashes"):
            await at.place.create("APIG", **{**API, "name": "c", "path": MANY})
        await at.place.update(hostile, path="/mended")
        await at.place.engine.sources.settled(hostile.id)
        mended = await at.client.get("/mended")

        assert (state.state, [reply.status_code for reply in replies]) == ("no source", [404, 404, 202])
        assert "one parameter between two slashes" in state.problem
        assert mended.status_code == 202


@asynccontextmanager
async def two_projects(folder: Path, apig: Plugin = plugin) -> AsyncIterator[tuple[House, Claim]]:
    """Yield an engine with a second project, ``another``, and a function that creates an API there."""
    async with house(folder, [apig], plugins__apig__port=0, plugins__apig__dedicated__port=0) as place:
        catalog, triggers = place.engine.catalog, place.engine.resources.triggers
        hello = catalog.list(PROJECT)[0]
        if not catalog.list("another"):
            source = CodeSource(kind="inline", file=encoded(SOURCE))
            await catalog.create(replace(hello, function_id=0, project="another", code=NO_CODE), source)
        urn = catalog.list("another")[0].urn(REGION)

        async def claim(kind: str = "APIG", **options: Any) -> BoundTrigger:
            trigger = await triggers.create(urn, TriggerDraft(kind=kind, data={**API, **ASYNC, **options}))
            await place.engine.sources.settled(trigger.id)
            return trigger

        yield place, claim


async def test_no_project_publishes_an_api_that_takes_requests_of_another(tmp_path: Path) -> None:
    thefts: tuple[dict[str, Any], ...] = (
        {"path": "/pay/7"},
        {"path": "/pay/7", "sl_domain": "127.0.0.1"},
        {"path": "/pay/7", "group_id": "127"},
        {"path": "/{any+}"},
        {"path": "/mine", "sl_domain": "pay.example.com"},
    )
    async with two_projects(tmp_path) as (place, claim):
        for path, domain in (("/pay/{id}", ""), ("/own", "pay.example.com")):
            own = await place.create("APIG", **{**API, **ASYNC, "name": path, "path": path, "sl_domain": domain})
        await place.engine.sources.settled(own.id)
        other = await claim(path="/else")
        urn = parse_urn(other.function, region=REGION, project="another")

        refusals = []
        for theft in thefts:
            for kind in ("APIG", "APIC"):
                with pytest.raises(TriggerClash, match="another project") as refusal:
                    await claim(kind, name="second", **theft)
                refusals.append(refusal.value)
            with pytest.raises(TriggerClash, match="another project"):
                await place.engine.resources.triggers.update(urn, "APIG", other.id, [theft])
        await claim("DEDICATEDGATEWAY", **thefts[0])
        async with httpx.AsyncClient(base_url=url(place), trust_env=False, timeout=60) as client:
            assert (await client.get("/pay/7")).status_code == 202

        assert {trigger_status(refusal) for refusal in refusals} == {(409, "FSS.1147")}
        assert not any(text in str(refusal) for text in (PROJECT, own.id, "hello", "{id}") for refusal in refusals)
        assert [event["resource"] for event in await place.events()] == ["/pay/{id}"]


async def test_the_oldest_of_stored_apis_that_collide_answers_and_the_other_shows_a_problem(tmp_path: Path) -> None:
    unchecked = replace(plugin, rules=replace(plugin.rules, taken=None))
    async with two_projects(tmp_path, unchecked) as (place, claim):
        first = await place.create("APIG", **{**API, **ASYNC, "path": "/pay/{id}"})
        late = await claim(path="/pay/7", sl_domain="127.0.0.1")

    async with two_projects(tmp_path) as (place, _):
        for trigger in (first, late):
            await place.engine.sources.settled(trigger.id)
        problems = [place.state(trigger).problem for trigger in (first, late)]
        urn = parse_urn(late.function, region=REGION, project="another")
        await place.engine.resources.triggers.update(urn, "APIG", late.id, [{"name": "renamed"}])
        renamed = await place.update(first, name="renamed")
        async with httpx.AsyncClient(base_url=url(place), trust_env=False, timeout=60) as client:
            before = await client.get("/pay/7")
            events = await place.events()
            await place.delete(first)
            await until(lambda: place.state(late).problem.endswith("(over)"))
            after = await client.get("/pay/7")
        moved = await place.engine.resources.triggers.update(urn, "APIG", late.id, [{"path": "/moved"}])

        assert renamed.stored.claimed_at == 0.0 < moved.stored.created_at < moved.stored.claimed_at
        assert problems[0] == ""
        assert "belong to an API of another project: choose another path; until then" in problems[1]
        assert (before.status_code, after.status_code) == (202, 202)
        assert [event["resource"] for event in events] == ["/pay/{id}"]


async def test_functions_see_neither_the_console_s_cookie_nor_a_token_that_nobody_checked(tmp_path: Path) -> None:
    session = "functiond_session_8080_abc=1; a=b; __Host-functiond_session_8080_abc=2; functiond_note=3"
    async with gateway(tmp_path, {"path": "/", "match_mode": "SWA"}) as at:
        for cookie in (session, "functiond_session_8080_abc=1"):
            await at.client.get("/orders", headers={"Cookie": cookie, "X-Auth-Token": TOKEN, "x_auth_token": TOKEN})
        replies = [await at.client.get(path, headers={"Cookie": session}) for path in ("/console/", "/%63onsole/x")]

        first, second = [event["headers"] for event in await at.events()]
        assert [told(reply) for reply in replies] == [(404, "APIG.0101")] * 2
        assert (first["cookie"], "cookie" in second) == ("a=b", False)
        assert not any(TOKEN in str(headers) for headers in (first, second))


async def test_a_caller_without_room_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with gateway(tmp_path, {}, {"name": "s", "path": "/s", "func_info": {}}, queue__function_rows=1) as at:
        await at.client.get("/orders")
        replies = [await at.client.get("/orders")]
        await at.place.engine.catalog.limit(at.place.urn, 0)
        replies += [await at.client.get("/orders"), await at.client.get("/s")]
        at.place.engine.intake.close()
        replies.append(await at.client.get("/orders"))

        assert [told(reply) for reply in replies] == [(429, "APIG.0308")] * 3 + [(503, "APIG.0201")]
        assert all(int(reply.headers["retry-after"]) > 0 for reply in replies)


async def test_no_api_waits_longer_than_the_engine_allows(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"func_info": {"timeout": 60_000}}, http__sync_timeout=0.1) as at:
        slow = CodeSource(
            kind="inline", file=encoded("import time\ndef handler(event, context):\n    time.sleep(60)\n")
        )
        await at.place.engine.catalog.update_code(at.place.urn, slow, {})
        reply = await at.client.get("/orders")

        assert told(reply) == (504, "APIG.0201")
        assert "0.1 s" in reply.text


@pytest.mark.parametrize("earlier", [False, True], ids=["this engine", "an engine that compared whole events"])
async def test_a_request_with_a_key_is_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    async with gateway(tmp_path, {}) as at:
        headers = {"Idempotency-Key": "k"}
        with monkeypatch.context() as patched:
            if earlier:
                patched.setattr("plugins.apig.gateway.ContentKey", lambda key, *_: str(key))
            one = await at.client.post("/orders?a=1", content=b"x", headers=headers)
        again = await at.client.post(
            "/orders?a=1", content=b"x", headers={**headers, "Via": "1.1 a", "User-Agent": "b"}
        )
        others = [
            await at.client.request(method, f"/orders{query}", content=body, headers=headers)
            for method, query, body in [("POST", "?a=1", b"y"), ("POST", "", b"x"), ("PUT", "?a=1", b"x")]
        ]
        bad = await at.client.post("/orders", headers={"Idempotency-Key": "k" * 201})

        assert one.json() == again.json()
        assert [told(reply) for reply in (*others, bad)] == [(409, "APIG.0201")] * 3 + [(400, "APIG.0201")]
        assert "Idempotency-Key 'k' was already used" in others[0].text
        assert len(await at.events()) == 1

        storage: Any = at.place.engine.storage
        await storage.writer.call(lambda db: db.execute("DELETE FROM payload").rowcount)
        purged = await at.client.post("/orders?a=1", content=b"x", headers=headers)
        assert purged.status_code == (409 if earlier else 202)


ASKED = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}


async def test_an_api_for_get_has_head(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"req_method": "GET"}, {"name": "any", "path": "/any"}) as at:
        replies = [await at.client.head(path) for path in ("/orders", "/any")]

        assert [(reply.status_code, reply.content) for reply in replies] == [(202, b"")] * 2
        assert all(int(reply.headers["content-length"]) for reply in replies)
        assert [event["httpMethod"] for event in await at.events()] == ["GET", "HEAD"]


async def test_a_browser_that_asks_first_is_answered_where_the_api_says_so(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"cors": True, "req_method": "GET"}, {"name": "b", "path": "/b"}) as at:
        first = await at.client.options("/orders", headers={**ASKED, "Access-Control-Request-Headers": "x-a"})
        then = await at.client.get("/orders", headers={"Origin": "https://a.example"})
        other = await at.client.options("/orders", headers={**ASKED, "Access-Control-Request-Method": "PUT"})
        without = await at.client.options("/b", headers=ASKED)  # is a method like others

        assert (first.status_code, first.content) == (204, b"")
        assert first.headers["access-control-allow-origin"] == "*"
        assert first.headers["access-control-allow-methods"] == "GET"
        assert first.headers["access-control-allow-headers"] == "x-a"
        assert (then.status_code, then.headers["access-control-allow-origin"]) == (202, "*")
        assert told(other) == (404, "APIG.0101")
        assert (without.status_code, "access-control-allow-origin" in without.headers) == (202, False)
        assert len(await at.events()) == 2


async def test_a_dedicated_gateway_has_a_listener_of_its_own(tmp_path: Path) -> None:
    async with gateway(tmp_path, {"path": "/shared"}) as at:
        before = url(at.place, "DEDICATEDGATEWAY")
        trigger = await at.place.create("DEDICATEDGATEWAY", **{**API, **ASYNC, "instance_id": "i"})
        await at.place.engine.sources.settled(trigger.id)
        own = url(at.place, "DEDICATEDGATEWAY")

        assert before == "http://127.0.0.1:0"
        assert (await at.client.get(f"{own}/orders")).status_code == 202
        assert (await at.client.get(f"{own}/shared")).status_code == 404
        assert (await at.client.get("/orders")).status_code == 404


async def test_a_listener_that_cannot_be_had_is_told_and_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with house(tmp_path, [plugin], plugins__apig__port=port) as place:
            trigger = await place.create("APIG", **API)
            await until(lambda: place.state(trigger).state == "failing")
            problem = place.state(trigger).problem
            taken.close()
            await until(lambda: place.state(trigger).state == "running")

    assert f"cannot listen on 127.0.0.1:{port}" in problem
    assert "choose another plugins.apig.port" in problem


async def test_gateways_speak_tls_with_the_certificate_of_the_engine(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    tls = {"http__tls_certificate": tmp_path / "cert.pem", "http__tls_key": tmp_path / "key.pem"}
    trust = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    async with gateway(tmp_path / "data", {}, **{name: str(file) for name, file in tls.items()}) as at:
        trigger = await at.place.create("DEDICATEDGATEWAY", **{**API, **ASYNC, "instance_id": "i"})
        await at.place.engine.sources.settled(trigger.id)
        addresses = [url(at.place, kind).replace("http:", "https:") for kind in ("APIG", "DEDICATEDGATEWAY")]
        async with httpx.AsyncClient(trust_env=False, verify=trust, timeout=60) as client:
            assert [(await client.get(f"{address}/orders")).status_code for address in addresses] == [202, 202]
            plain = await client.get(addresses[0].replace("https:", "http:") + "/orders")
            assert (plain.status_code, "use https://" in plain.text) == (400, True)
        assert at.place.engine.plugins.address(trigger) == f"{addresses[1]}/orders"

        assert [event["headers"]["x-forwarded-proto"] for event in await at.events()] == ["https", "https"]


async def test_a_gateway_on_a_free_port_shows_the_port(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"plugins__apig__port": 0, "plugins__apig__dedicated__port": 0}
    async with house(tmp_path, [plugin], **settings) as place:
        for kind, domain in (("APIG", ""), ("DEDICATEDGATEWAY", "shop.example.com")):
            trigger = await place.create(kind, **{**API, "sl_domain": domain})
            await place.engine.sources.settled(trigger.id)

            shown = place.engine.plugins.address(trigger)
            assert re.fullmatch(rf"http://{domain or '127.0.0.1'}:[1-9]\d+/orders", shown), shown


@pytest.mark.parametrize(
    ("kind", "api", "shown"),
    [
        ("APIG", {}, "http://127.0.0.1:8555/orders"),
        ("APIC", {"sl_domain": "shop.example.com"}, "http://shop.example.com:8555/orders"),
        ("DEDICATEDGATEWAY", {"path": "/a/{b}"}, "https://apis.example.com/a/{b}"),
        ("DEDICATEDGATEWAY", {"sl_domain": "shop.example.com"}, "https://shop.example.com/orders"),
    ],
)
async def test_a_trigger_shows_where_its_api_is(tmp_path: Path, kind: str, api: dict[str, Any], shown: str) -> None:
    settings: dict[str, Any] = {
        "plugins__apig__port": 8555,
        "plugins__apig__dedicated__url": "https://apis.example.com/",
    }
    async with house(tmp_path, [plugin], **settings) as place:
        trigger = await place.create(kind, **{**API, **api})

        assert place.engine.plugins.address(trigger) == shown


@pytest.mark.parametrize(
    ("apps", "told"),
    [
        ([{"app_code": CODE}, {"app_code": CODE}], "two of the apps have the same app_code"),
        ([{"key": "APP", "secret": CODE}, {"key": "APP", "secret": OTHER_CODE}], "two of the apps have the same key"),
        ([{"secret": CODE}], "an app that signs needs both key and secret"),
        ([{}], "an app needs key and secret, or app_code"),
        ([{"app_code": "short"}], "app_code: must be text of 16 to 1024 characters"),
    ],
)
async def test_apps_that_prove_nothing_or_not_enough_are_refused_at_the_start(
    tmp_path: Path, apps: list[dict[str, str]], told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        async with house(tmp_path, [plugin], plugins__apig__apps={f"app{n}": app for n, app in enumerate(apps)}):
            pass


async def test_a_bug_is_told_without_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **named: object) -> bytes:
        raise RuntimeError("inside")

    async with gateway(tmp_path, {}) as at:
        monkeypatch.setattr("plugins.apig.gateway.event_json", broken)
        reply = await at.client.get("/orders")

        assert told(reply) == (500, "APIG.0601")
        assert "inside" not in reply.text
