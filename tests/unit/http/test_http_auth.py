"""Access to the API: signatures, tokens, projects, and the limit of failed attempts."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import re
import time
import tracemalloc
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from functiond.signing import hash_of, sign

from engine.asgi.addresses import network_of
from engine.asgi.forwarded import FORWARDED, Forwarded
from engine.asgi.listener import listen
from engine.auth import throttle
from engine.auth.credentials import AccessKey, Token
from engine.auth.throttle import AT_ONCE, OF_ONE, SUBJECTS, AuthThrottle
from engine.errors import Forbidden, TooManyFailures
from engine.http.auth import Authenticator
from engine.http.guard import Guard
from engine.protocols.audit import Trace
from tests.doubles import ManualClock
from tests.support.http_app import BASE, PROJECT, SOURCE, Answer, Api, encoded, serve, urn_of, zipped
from tests.support.raw_client import RawClient, connect, first_answer, read_answers
from tests.support.waiting import until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the SDK's warnings
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkcore.sdk_request import SdkRequest
    from huaweicloudsdkcore.signer.signer import Signer

SECRET = "the-secret-of-a-key"
TOKEN = "a-token-of-a-project"
SECURITY = "security-token-of-temp"
INVOKE = f"{BASE}/{urn_of()}/invocations-async"
LIMIT, WINDOW = 5, 60.0
DELAY = 0.5  #: seconds that a refusal beyond the limit is delayed


class SecuredApi:
    """API that requires credentials, with a client that has them."""

    def __init__(self, api: Api, clock: ManualClock, failures: AuthThrottle) -> None:
        self.api, self.clock, self.failures = api, clock, failures

    def signed(
        self, method: str, target: str, body: bytes = b"", *, access: str = "AK1", secret: str = SECRET, **more: str
    ) -> dict[str, str]:
        """Return signed headers of a request. ``more`` are signed too; underscores in their names stand for dashes."""
        given = {name.replace("_", "-"): value for name, value in more.items()}
        headers = {"Host": f"localhost:{self.api.port}", "Content-Type": "application/json", **given}
        return headers | sign(method, target, headers, body, access=access, secret=secret, moment=self.clock.now())

    async def send(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.api.send(method, target, body, named, base="")

    async def ask(self, method: str, target: str, body: bytes | None = None, **more: str) -> Answer:
        """Send a correctly signed request."""
        return await self.api.send(method, target, body, self.signed(method, target, body or b"", **more), base="")


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[SecuredApi]:
    async with secured_api(tmp_path) as secured:
        yield secured


@asynccontextmanager
async def secured_api(
    tmp_path: Path, *, delay: float = DELAY, held_limit: int = 256 << 20, grace: float = 5.0
) -> AsyncIterator[SecuredApi]:
    clock = ManualClock()
    past, soon = (datetime.fromtimestamp(clock.now() + offset, UTC) for offset in (-1, 3600))
    keys = [
        AccessKey(access="AK1", secret=SECRET, project=PROJECT),
        AccessKey(access="TEMP", secret=SECRET, project=PROJECT, token=SECURITY, expires=soon),
        AccessKey(access="OLD", secret=SECRET, project=PROJECT, expires=past),
        AccessKey(access="OTHER", secret=SECRET, project="other"),
    ]
    tokens = [
        Token(token=TOKEN, project=PROJECT, expires=soon),
        Token(token="a-token-that-is-over", project=PROJECT, expires=past),
    ]
    failures = AuthThrottle(clock, limit=LIMIT, window=WINDOW, delay=delay)
    authenticator = Authenticator(
        keys,
        tokens,
        clock=clock,
        failures=failures,
        body_limits={b"invocations-async": 256 << 10, b"invocations": 6 << 20},
        bare_paths=["/healthz", "/readyz"],
    )
    async with serve(tmp_path) as api:
        await api.create()
        async with listen(
            api.app(authenticator=authenticator), "127.0.0.1", 0, held_limit=held_limit, grace=grace
        ) as port:
            api.port = port
            yield SecuredApi(api, clock, failures)


def refusal(answer: Answer, status: int, code: str, said: str) -> bool:
    assert (answer.status, answer.json["error_code"]) == (status, code), answer
    assert said in answer.json["error_msg"]
    assert answer.headers["x-request-id"]
    assert SECRET not in answer.raw.decode()
    return True


async def test_traces_name_the_credentials_and_hold_none(secured: SecuredApi) -> None:
    path, traces = f"{BASE}/{urn_of()}/collect/true", list[Trace]()

    with secured.api.audit.subscribed(traces.append):
        await secured.ask("PUT", path)
        await secured.send("PUT", path, X_Auth_Token=TOKEN)

    by_key, by_token = traces
    assert (by_key.user, by_key.code, by_token.code) == ("AK1", 200, 200)
    assert re.fullmatch(r"token [0-9a-f]{12}", by_token.user)
    assert TOKEN not in str(by_token)


@pytest.mark.parametrize("size", [0, 10, 200_000])
async def test_a_signed_body_of_any_size_arrives_whole(secured: SecuredApi, size: int) -> None:
    body = b'"' + b"x" * size + b'"'

    answer = await secured.ask("POST", INVOKE, body)

    assert answer.status == 202
    assert secured.api.engine.requests[0].payload == body


@pytest.mark.parametrize("attacker", ["a wrong signature", "another project"])
async def test_half_sent_bodies_of_one_address_leave_room_for_a_project_at_the_same(
    tmp_path: Path, attacker: str
) -> None:
    body = b'"' + b"x" * 100_000 + b'"'
    async with secured_api(tmp_path, held_limit=1_000_000) as secured, AsyncExitStack() as clients:

        async def begin(path: str, headers: dict[str, str]) -> RawClient:
            fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            client = await clients.enter_async_context(connect(secured.api.port))
            head = f"POST {path} HTTP/1.1\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode()
            await client.send(head + body[:50_000])
            assert (await secured.send("GET", "/healthz")).status == 200  # the listener has received what was sent
            await client.send(body[50_000:-1])
            assert (await secured.send("GET", "/healthz")).status == 200  # the listener has received what was sent
            return client

        path, more = INVOKE, {"secret": "wrong"}
        if attacker == "another project":
            declared = hash_of(body).decode()
            path, more = INVOKE.replace(PROJECT, "other"), {"access": "OTHER", "X_Sdk_Content_Sha256": declared}
        for _ in range(16):
            await begin(path, secured.signed("POST", path, body, **more))
        plain = {"Host": "localhost", "Content-Type": "application/json", "X-Auth-Token": TOKEN}
        client = await begin(INVOKE, plain)
        await client.send(body[-1:])
        client.end()

        [answer] = read_answers(await client.rest())
        assert (answer.status, len(secured.api.engine.requests)) == (202, 1)


@pytest.mark.parametrize(
    "query", ["", "?maxitems=10&marker=0", "?func_name=h%C3%A9%20%2B&package_name=", "?marker=0&a=+"]
)
async def test_queries_are_signed_in_any_order_and_spelling(secured: SecuredApi, query: str) -> None:
    assert (await secured.ask("GET", BASE + query)).status == 200


@pytest.mark.parametrize("urn", [urn_of(), urn_of().replace(":", "%3A"), "hello", "%68ello", "hello/"])
async def test_paths_are_signed_in_any_spelling(secured: SecuredApi, urn: str) -> None:
    answer = await secured.ask("GET", f"{BASE}/{urn.strip('/')}/config")

    assert (answer.status, answer.json["func_name"]) == (200, "hello")


async def test_without_credentials_nothing_but_health_is_told(secured: SecuredApi) -> None:
    assert (await secured.send("GET", "/healthz")).status == 200
    assert (await secured.send("GET", "/readyz")).status == 200
    for method, path in (("POST", INVOKE), ("GET", BASE), ("GET", "/metrics"), ("GET", "/nothing")):
        answer = await secured.send(method, path)
        assert refusal(answer, 401, "FSS.0401", "credentials are needed")
        assert answer.headers["www-authenticate"] == "SDK-HMAC-SHA256"
    assert not secured.api.engine.requests
    assert len(secured.failures) == 0


async def test_a_probe_with_wrong_credentials_is_answered_and_counted(secured: SecuredApi) -> None:
    expired = await secured.send("GET", "/healthz", X_Auth_Token="a-token-that-is-over")
    unsigned = await secured.send("GET", "/healthz", Authorization="Bearer x")
    for _ in range(LIMIT - 2):
        await secured.send("GET", "/healthz", X_Auth_Token="x" * 20)
    assert secured.failures.waiting == 0
    guess = await secured.send("GET", "/readyz", X_Auth_Token="x" * 20)

    assert [reply.status for reply in (expired, unsigned, guess)] == [200, 200, 200]
    assert secured.failures.waiting == 1


async def test_a_wrong_secret_an_unknown_key_and_a_wrong_token_are_refused(secured: SecuredApi) -> None:
    wrong = await secured.ask("GET", BASE, secret="another-secret-here")
    unknown = await secured.ask("GET", BASE, access="AK2")
    other = await secured.send("GET", BASE, Authorization="Bearer x")
    token = await secured.send("GET", BASE, X_Auth_Token="not-a-token-of-ours")
    signed = await secured.ask("GET", BASE, None, X_Auth_Token="not-a-token-of-ours")

    assert refusal(wrong, 401, "FSS.0401", "the signature does not match")
    assert refusal(unknown, 401, "FSS.0401", "the access key is not one of this engine's")
    assert refusal(other, 401, "FSS.0401", "Authorization must be SDK-HMAC-SHA256")
    assert refusal(token, 401, "FSS.0401", "the X-Auth-Token is not one of this engine's")
    assert signed.status == 200


@pytest.mark.parametrize(("offset", "status"), [(899, 200), (-899, 200), (901, 401), (-901, 401)])
async def test_a_date_may_be_fifteen_minutes_off(secured: SecuredApi, offset: int, status: int) -> None:
    headers = secured.signed("GET", BASE)

    secured.clock.advance(offset)

    assert (await secured.api.send("GET", BASE, None, headers, base="")).status == status


async def test_the_date_is_part_of_what_is_signed(secured: SecuredApi) -> None:
    headers = secured.signed("GET", BASE)
    for date, said in (
        ("20231114T221321Z", "does not match"),
        ("yesterday", "X-Sdk-Date must be a time"),
        (None, "must be a time"),
    ):
        changed = {name: value for name, value in headers.items() if name != "X-Sdk-Date"}

        answer = await secured.api.send("GET", BASE, None, changed | ({"X-Sdk-Date": date} if date else {}), base="")

        assert refusal(answer, 401, "FSS.0401", said)


@pytest.mark.parametrize(
    ("method", "target", "body", "header"),
    [
        ("POST", INVOKE, b'{"k": 2}', {}),
        ("POST", INVOKE, b"", {}),
        ("POST", INVOKE + "?a=1", b'{"k": 1}', {}),
        ("POST", f"{BASE}/{urn_of('other')}/invocations-async", b'{"k": 1}', {}),
        ("PUT", INVOKE, b'{"k": 1}', {}),
        ("POST", INVOKE, b'{"k": 1}', {"X-Cff-Instance-Memory": "256"}),
        ("POST", INVOKE, b'{"k": 1}', {"Host": "127.0.0.1"}),
        ("POST", INVOKE, b'{"k": 1}', {"Content-Type": "application/json; x=y"}),
    ],
)
async def test_a_request_that_was_changed_on_the_way_is_refused(
    secured: SecuredApi, method: str, target: str, body: bytes, header: dict[str, str]
) -> None:
    headers = secured.signed("POST", INVOKE, b'{"k": 1}', X_Cff_Instance_Memory="128")

    answer = await secured.api.send(method, target, body, headers | header, base="")

    assert refusal(answer, 401, "FSS.0401", "the signature does not match")
    assert not secured.api.engine.requests


@pytest.mark.parametrize(
    "name", ["X-Cff-Instance-Memory", "X-Functiond-Priority", "Idempotency-Key", "X-Sdk-Content-Sha256"]
)
async def test_a_header_with_a_meaning_can_neither_be_added_nor_taken_away(secured: SecuredApi, name: str) -> None:
    given: dict[str, Any] = {name: "1"}
    headers = secured.signed("GET", BASE, **given)
    missing = {known: value for known, value in headers.items() if known != name}
    without = await secured.api.send("GET", BASE, None, missing, base="")
    answer = await secured.api.send("POST", INVOKE, b"{}", secured.signed("POST", INVOKE, b"{}") | {name: "1"}, base="")

    assert refusal(answer, 401, "FSS.0401", f"the header {name.lower()} must be signed")
    assert refusal(without, 401, "FSS.0401", f"{name.lower()} is listed in SignedHeaders but missing")


async def test_a_request_signed_as_by_terraform_is_served(secured: SecuredApi) -> None:
    """Send the headers that Terraform's SDK adds after signing: Host, project and security token."""
    headers = {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": "golangsdk/2.0.0"}
    headers |= sign("POST", INVOKE, headers, b"{}\n", access="TEMP", secret=SECRET, moment=secured.clock.now())
    headers |= {"X-Project-Id": PROJECT, "X-Security-Token": SECURITY, "Accept-Encoding": "gzip"}

    answer = await secured.api.send("POST", INVOKE, b"{}\n", headers, base="")
    wrong = await secured.api.send("POST", INVOKE, b"{}\n", headers | {"X-Security-Token": SECURITY + "x"}, base="")

    assert answer.status == 202
    assert refusal(wrong, 401, "FSS.0401", "X-Security-Token must be that of the access key")


@pytest.mark.parametrize(
    ("secret", "region", "day", "status"),
    [(SECRET, "eu-de", "", 200), (SECRET, "", "", 200), ("x", "eu-de", "", 401), (SECRET, "eu-de", "20260131", 401)],
)
async def test_a_request_signed_as_by_open_telekom_cloud_is_verified(
    secured: SecuredApi, secret: str, region: str, day: str, status: int
) -> None:
    """Sign as its Go client does: HMAC of each part of the scope in turn, then of the request."""
    headers = {
        "host": f"localhost:{secured.api.port}",
        "x-sdk-date": f"{datetime.fromtimestamp(secured.clock.now(), UTC):%Y%m%dT%H%M%SZ}",
    }
    scope = f"{day or headers['x-sdk-date'][:8]}/{region}/functiongraph/sdk_request"
    lines = (
        "GET",
        f"{BASE}/",
        "",
        *(f"{name}:{headers[name]}" for name in headers),
        "",
        ";".join(headers),
        hash_of(b"").decode(),
    )
    key = b"SDK" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    to_sign = "\n".join(("SDK-HMAC-SHA256", headers["x-sdk-date"], scope, hash_of("\n".join(lines).encode()).decode()))
    proof = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"SDK-HMAC-SHA256 Credential=AK1/{scope}, SignedHeaders={';'.join(headers)}, Signature={proof}"

    answer = await secured.api.send("GET", BASE, None, {**headers, "authorization": credential}, base="")

    assert answer.status == status


async def test_a_hash_given_in_a_header_must_be_that_of_the_body(secured: SecuredApi) -> None:
    target, body = INVOKE, b'{"k": 1}'
    headers = secured.signed("POST", target, body, X_Sdk_Content_Sha256=hash_of(body).decode())

    right = await secured.api.send("POST", target, body, headers, base="")
    wrong = await secured.api.send("POST", target, b'{"k": 2}', headers, base="")
    empty = await secured.api.send("POST", target, b"", headers, base="")

    assert right.status == 202
    assert refusal(wrong, 401, "FSS.0401", "the body does not match X-Sdk-Content-Sha256")
    assert refusal(empty, 401, "FSS.0401", "the body does not match X-Sdk-Content-Sha256")
    assert [request.payload for request in secured.api.engine.requests] == [body]


async def test_only_bodies_that_are_not_json_may_be_left_unsigned(secured: SecuredApi) -> None:
    unsigned = {"X_Sdk_Content_Sha256": "UNSIGNED-PAYLOAD"}

    jsonlike = await secured.ask("POST", INVOKE, b"{}", **unsigned)
    form = await secured.ask("POST", INVOKE, b"a=1", **unsigned, Content_Type="application/octet-stream")
    nothing = await secured.ask("GET", BASE, None, **unsigned)

    assert refusal(jsonlike, 401, "FSS.0401", "UNSIGNED-PAYLOAD is only allowed for bodies other than JSON")
    assert (form.status, nothing.status) == (406, 200)  # authenticated; the invocation then rejects the form


async def test_a_body_is_left_unsigned_only_if_its_kind_is_signed(secured: SecuredApi) -> None:
    headers = {"Host": f"localhost:{secured.api.port}", "X-Sdk-Content-Sha256": "UNSIGNED-PAYLOAD"}
    headers |= sign("POST", INVOKE, headers, b"", access="AK1", secret=SECRET, moment=secured.clock.now())

    answer = await secured.api.send("POST", INVOKE, b"a", headers | {"Content-Type": "text/plain"}, base="")

    assert refusal(answer, 401, "FSS.0401", "with a signed Content-Type")


async def test_the_vendors_signer_without_a_body_signs_the_hash_of_nothing(secured: SecuredApi) -> None:
    headers = {"Host": f"localhost:{secured.api.port}", "Content-Type": "text/plain", "X-Sdk-Date": "20231114T221320Z"}
    request = SdkRequest(method="GET", resource_path=BASE, query_params=[], header_params=headers, body=b"")

    signed = Signer(BasicCredentials("AK1", SECRET, PROJECT)).sign(request).header_params

    bare, added = [await secured.api.send("GET", BASE, body, signed, base="") for body in (None, b"added")]

    assert (signed["X-Sdk-Content-Sha256"], bare.status) == ("UNSIGNED-PAYLOAD", 200)
    assert refusal(added, 401, "FSS.0401", "the body does not match the signature, which is that of an empty one")


async def test_a_temporary_key_needs_its_token(secured: SecuredApi) -> None:
    temporary = {"access": "TEMP", "X_Security_Token": SECURITY}

    right = await secured.ask("GET", BASE, None, **temporary)
    wrong = await secured.ask("GET", BASE, None, access="TEMP", X_Security_Token=SECURITY + "x")
    without = await secured.ask("GET", BASE, None, access="TEMP")
    needless = await secured.ask("GET", BASE, None, X_Security_Token=SECURITY)

    assert right.status == 200
    assert refusal(wrong, 401, "FSS.0401", "X-Security-Token must be that of the access key")
    assert refusal(without, 401, "FSS.0401", "X-Security-Token must be that of the access key")
    assert refusal(needless, 401, "FSS.0401", "the key has no X-Security-Token")


async def test_keys_and_tokens_expire(secured: SecuredApi) -> None:
    old = await secured.ask("GET", BASE, access="OLD")
    token = await secured.send("GET", BASE, X_Auth_Token="a-token-that-is-over")
    secured.clock.advance(3600)
    temporary = await secured.ask("GET", BASE, access="TEMP", X_Security_Token=SECURITY)
    later = await secured.send("GET", BASE, X_Auth_Token=TOKEN)

    assert refusal(old, 401, "FSS.0401", "the access key has expired")
    assert refusal(token, 401, "FSS.0401", "the X-Auth-Token has expired")
    assert refusal(temporary, 401, "FSS.0401", "the access key has expired")
    assert refusal(later, 401, "FSS.0401", "the X-Auth-Token has expired")


@pytest.mark.parametrize(
    "path", [BASE, INVOKE, f"{BASE}/{urn_of()}/config", BASE.replace("/v2/", "/v2%2F"), "/v2/other2"]
)
async def test_credentials_reach_their_own_project_only(secured: SecuredApi, path: str) -> None:
    method = "POST" if path == INVOKE else "GET"

    answer = await secured.ask(method, path, access="OTHER")

    assert refusal(answer, 403, "FSS.0403", "these credentials are for project other only")


async def test_a_urn_of_another_project_is_refused_in_the_own_path(secured: SecuredApi) -> None:
    path = f"/v2/other/fgs/functions/{urn_of()}"

    for method, end in (("POST", "/invocations-async"), ("GET", "/config")):
        assert refusal(
            await secured.ask(method, path + end, access="OTHER"), 403, "FSS.0403", "belongs to another project"
        )


async def test_a_body_that_no_handler_reads_is_verified_all_the_same(secured: SecuredApi) -> None:
    headers = secured.signed("DELETE", f"{BASE}/hello", b"{}")

    answer = await secured.api.send("DELETE", f"{BASE}/hello", b"{} ", headers, base="")

    assert refusal(answer, 401, "FSS.0401", "the signature does not match")
    assert (await secured.ask("GET", f"{BASE}/hello/config")).status == 200


async def test_a_large_package_is_verified(secured: SecuredApi) -> None:
    package = {"index__py": SOURCE, "noise__txt": os.urandom(1 << 20).hex()}
    body = {"code_type": "zip", "func_code": {"file": encoded(zipped(**package))}}
    target, sent = f"{BASE}/hello/code", json.dumps(body).encode()

    right = await secured.ask("PUT", target, sent)
    wrong = await secured.api.send("PUT", target, sent + b" ", secured.signed("PUT", target, sent), base="")

    assert len(sent) > 1 << 20
    assert right.status == 200
    assert refusal(wrong, 401, "FSS.0401", "the signature does not match")


def head_of(framing: str, headers: dict[str, str]) -> bytes:
    """Return the head of an invocation with these headers, which closes its connection."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {INVOKE} HTTP/1.1\r\n{framing}\r\nConnection: close\r\n{lines}\r\n".encode()


async def test_a_body_that_says_it_is_too_large_is_not_waited_for(secured: SecuredApi) -> None:
    head = head_of("Content-Length: 300000", secured.signed("POST", INVOKE, b"{}"))

    answer = await first_answer(secured.api.port, head)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"262144 bytes" in answer


async def test_a_body_in_chunks_is_verified(secured: SecuredApi) -> None:
    head = head_of("Transfer-Encoding: chunked", secured.signed("POST", INVOKE, b'{"a": 1}'))

    right = await first_answer(secured.api.port, head + b'4\r\n{"a"\r\n4\r\n: 1}\r\n0\r\n\r\n')
    wrong = await first_answer(secured.api.port, head + b'4\r\n{"a"\r\n4\r\n: 2}\r\n0\r\n\r\n')

    assert right.startswith(b"HTTP/1.1 202 ")
    assert wrong.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("declared", [hash_of(b"{}").decode(), "UNSIGNED-PAYLOAD"])
async def test_a_wrong_signature_of_a_declared_hash_is_refused_before_the_body(
    secured: SecuredApi, declared: str
) -> None:
    more = {"X_Sdk_Content_Sha256": declared}
    signed = secured.signed("POST", INVOKE, b"{}", secret="another-secret-here", **more)

    with anyio.fail_after(50):  # the body never arrives
        answer = await first_answer(secured.api.port, head_of("Content-Length: 200000", signed))

    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"the signature does not match" in answer


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return a small number of refusals of one network that may wait."""
    monkeypatch.setattr(throttle, "OF_ONE", AT_ONCE)
    return AT_ONCE


async def fail_often(secured: SecuredApi, room: int) -> None:
    """Fail by a wrong secret of a known key, an unknown key and a wrong token, more often than delayed refusals fit."""
    wrong = [
        *(secured.ask("GET", BASE, secret="another-secret-here") for _ in range(LIMIT + room + 1)),
        *(secured.ask("GET", BASE, access="AK2") for _ in range(LIMIT + room + 1)),
        *(secured.send("GET", BASE, X_Auth_Token="not-a-token-of-ours") for _ in range(3)),
    ]
    statuses = {answer.status for answer in await asyncio.gather(*wrong)}
    assert statuses == {401, 429}


async def test_valid_proof_passes_whatever_failed_before(secured: SecuredApi, room: int) -> None:
    await fail_often(secured, room)

    started = time.monotonic()
    signed = await secured.ask("GET", BASE)
    other = await secured.ask("GET", BASE, access="TEMP", X_Security_Token=SECURITY)
    token = await secured.send("GET", BASE, X_Auth_Token=TOKEN)
    accepted = await secured.ask("POST", INVOKE, b"{}")

    assert (signed.status, other.status, token.status, accepted.status) == (200, 200, 200, 202)
    assert time.monotonic() - started < 30, "none of them waits for the end of the window"
    assert secured.clock.now() == ManualClock().now(), "the window has not ended"


async def test_refusals_beyond_the_limit_are_delayed(secured: SecuredApi) -> None:
    for _ in range(LIMIT):
        assert (await secured.ask("GET", BASE, secret="another-secret-here")).status == 401

    started = time.monotonic()
    delayed = await secured.ask("GET", BASE, secret="another-secret-here")

    assert refusal(delayed, 401, "FSS.0401", "the signature does not match")
    assert time.monotonic() - started >= DELAY


async def test_more_refusals_than_may_wait_get_429_and_are_told_how_long(secured: SecuredApi, room: int) -> None:
    for _ in range(LIMIT):
        await secured.ask("GET", BASE, secret="another-secret-here")
    secured.clock.advance(WINDOW - 10)

    answers = await asyncio.gather(*(secured.ask("GET", BASE, secret="another-secret-here") for _ in range(room + 3)))
    refused = [answer for answer in answers if answer.status == 429]

    assert sorted(answer.status for answer in answers) == [401] * room + [429] * 3
    assert all(refusal(answer, 429, "FSS.0429", "too many failed attempts") for answer in refused)
    assert {answer.headers["retry-after"] for answer in refused} == {"10"}


async def test_a_window_that_has_ended_counts_no_more(secured: SecuredApi) -> None:
    failures = AuthThrottle(secured.clock, limit=1, window=WINDOW, delay=DELAY)
    subject = failures.subject("10.0.0.1")

    assert [failures.note(subject), failures.note(subject)] == [0.0, DELAY]
    secured.clock.advance(WINDOW)

    assert failures.note(subject) == 0.0


async def test_a_delayed_refusal_keeps_no_body(tmp_path: Path) -> None:
    target, body = f"{BASE}/{urn_of()}/invocations", b'"' + b"x" * (4 << 20) + b'"'
    async with secured_api(tmp_path, delay=3600.0, grace=0.1) as secured:
        for _ in range(LIMIT):
            await secured.ask("GET", BASE, secret="another-secret-here")

        tracemalloc.start()
        try:
            refused = asyncio.create_task(secured.ask("POST", target, body, secret="another-secret-here"))
            await until(lambda: secured.failures.waiting)
            assert tracemalloc.get_traced_memory()[1] > len(body), "the body was read"
            await until(lambda: tracemalloc.get_traced_memory()[0] <= len(body) / 2)
        finally:
            tracemalloc.stop()
        assert not refused.done()

    assert (await refused).status == 401, "a listener that stops answers at once"


async def test_pages_of_others_are_kept_out_also_with_credentials(secured: SecuredApi) -> None:
    for host in (f"localhost:{secured.api.port}", "api.example.com"):
        answer = await secured.ask("GET", BASE, None, Host=host, Origin="https://evil.example")

        assert refusal(answer, 403, "FSS.0403", "web pages")


async def test_credentials_are_judged_under_any_host(secured: SecuredApi) -> None:
    signed = await secured.ask("GET", BASE, None, Host="api.example.com")
    changed = secured.signed("GET", BASE, Host="api.example.com") | {"Host": "other.example.com"}
    other = await secured.send("GET", BASE, None, **changed)
    rebound = await secured.send("GET", BASE, None, Host="evil.example", Origin="http://evil.example")

    assert signed.status == 200
    assert refusal(other, 401, "FSS.0401", "the signature does not match")
    assert refusal(rebound, 401, "FSS.0401", "credentials are needed")


API = b"api.example"


@pytest.mark.parametrize(
    ("host", "origin", "forwarded", "passes"),
    [
        (b"10.0.0.5:8080", None, None, True),
        (b"engine.example", b"https://engine.example", None, True),
        (b"engine.example", b"http://localhost", None, True),
        (b"engine.example", b"https://evil.example", None, False),
        (b"engine.example", b"null", None, False),
        (b"127.0.0.1", b"https://api.example", Forwarded(client="", chain="", host=API, scheme="https"), True),
        (b"127.0.0.1", b"https://API.example", Forwarded(client="", chain="", host=API), True),
        (b"127.0.0.1", b"http://api.example", Forwarded(client="", chain="", host=API, scheme="https"), False),
        (b"127.0.0.1", b"https://evil.example", Forwarded(client="", chain="", host=API, scheme="https"), False),
        (b"127.0.0.1", b"https://api.example", Forwarded(client="", chain=""), False),
        (b"127.0.0.1", b"https://api.example", None, False),
    ],
)
def test_an_engine_with_credentials_goes_by_any_name_and_by_that_of_a_trusted_proxy(
    host: bytes, origin: bytes | None, forwarded: Forwarded | None, passes: bool
) -> None:
    scope: dict[str, Any] = {"method": "GET"} | ({FORWARDED: forwarded} if forwarded else {})

    with nullcontext() if passes else pytest.raises(Forbidden):
        Guard(credentials=True).check(scope, {b"host": host} | ({b"origin": origin} if origin else {}))


@pytest.mark.parametrize(
    ("host", "reported", "passes"),
    [(b"localhost", b"localhost", True), (b"localhost", b"a.example", False), (b"a.example", b"localhost", False)],
)
def test_without_credentials_both_names_must_be_of_this_machine(host: bytes, reported: bytes, passes: bool) -> None:
    scope = {"method": "GET", FORWARDED: Forwarded(client="", chain="", host=reported)}

    with nullcontext() if passes else pytest.raises(Forbidden, match=r"the Host 'a\.example'"):
        Guard(credentials=False).check(scope, {b"host": host})


def test_the_memory_of_failures_is_bounded() -> None:
    failures = AuthThrottle(ManualClock(), limit=1, window=WINDOW)

    for number in range(SUBJECTS + 10):
        failures.note(failures.subject(f"10.0.{number >> 8}.{number & 255}"))

    assert len(failures) == SUBJECTS
    assert failures.note(failures.subject("10.0.0.1")) == 0.0
    assert failures.note(failures.subject("10.0.16.0")) > 0


def test_an_address_with_many_connections_gets_few_refusals_a_second() -> None:
    clock = ManualClock()
    failures = AuthThrottle(clock, limit=1, window=1000 * WINDOW, delay=DELAY)
    subject = failures.subject("10.0.0.1")
    failures.note(subject)

    due = sorted(failures.note(subject) for _ in range(OF_ONE))
    with pytest.raises(TooManyFailures):
        failures.note(subject)
    clock.advance(10 * DELAY)

    assert due == sorted(DELAY * turn for turn in range(1, OF_ONE // AT_ONCE + 1) for _ in range(AT_ONCE))
    assert failures.waiting == OF_ONE - 10 * AT_ONCE
    assert failures.note(failures.subject("10.0.0.2")) == 0.0


def test_refusals_of_all_clients_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "WAITING", 100)
    clock = ManualClock()
    failures = AuthThrottle(clock, limit=1, window=WINDOW, delay=DELAY)
    subjects = [failures.subject(f"10.0.0.{number}") for number in range(101)]
    for subject in subjects:
        failures.note(subject)

    for subject in subjects[:-1]:
        assert failures.note(subject) == DELAY
    with pytest.raises(TooManyFailures):
        failures.note(subjects[-1])
    clock.advance(DELAY)

    assert failures.note(subjects[-1]) == DELAY


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "somewhere", False),
    ],
)
def test_clients_are_told_apart_by_network(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same
