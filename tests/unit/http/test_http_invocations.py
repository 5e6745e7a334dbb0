"""Invocations over HTTP: requests passed to the intake, and results returned to the caller."""

from __future__ import annotations

import asyncio
import base64
import json

import anyio
import pytest

from engine.asgi.listener import listen
from engine.errors import BacklogFull, CallTimedOut, FunctionDisabled, IdempotencyConflict
from engine.model import Function, Mode, Outcome, Request
from tests.support.http_app import BASE, Api, urn_of

pytestmark = pytest.mark.usefixtures("hello")


async def test_an_asynchronous_call_is_answered_with_its_request_id_and_passed_byte_by_byte(api: Api) -> None:
    event = b' {"k":  "v", "k": 1e400} '

    answer = await api.invoke(body=event)

    (key,) = api.engine.rows
    assert (answer.status, answer.json) == (202, {"request_id": api.engine.identity.request_id(key)})
    assert answer.headers["x-cff-request-id"] == answer.json["request_id"]
    assert answer.headers["content-type"] == "application/json"
    (request,) = api.engine.requests
    assert (request.payload, request.mode, request.source) == (event, Mode.ASYNC, "API")
    assert (request.priority, request.delay, request.memory, request.idempotency_key) == (0, 0.0, 0, "")


@pytest.mark.parametrize("key", ["order 17!", "k" * 200, "~"])
async def test_a_caller_may_choose_priority_delay_and_keys(api: Api, key: str) -> None:
    headers = {"X_Functiond_Priority": "9", "X_Functiond_Delay": "1.5", "Idempotency_Key": "order 17!"}

    answer = await api.invoke(**headers, X_Functiond_Ordering_Key=key)

    (request,) = api.engine.requests
    assert (answer.status, request.priority, request.delay, request.idempotency_key) == (202, 9, 1.5, "order 17!")
    assert request.ordering_key == key


#: Invalid values of headers of asynchronous requests.
INVALID = {
    "X-Functiond-Priority": ["10", "-1", "", "\xb2"],
    "X-Functiond-Delay": ["-1", "nan", "inf", "604801", "soon"],
    "Idempotency-Key": ["", "k" * 256, "k\xe9y"],
    "X-Functiond-Ordering-Key": ["", "k" * 201, "k\xe9y"],
    "X-Cff-Instance-Memory": ["100", "256"],
}


@pytest.mark.parametrize(
    ("header", "value", "action"),
    [
        ("X-Functiond-Ordering-Key", "k", "invocations"),
        ("X-CFF-Request-Version", "v2", "invocations"),
        *((header, value, "invocations-async") for header, values in INVALID.items() for value in values),
    ],
)
async def test_a_header_that_cannot_be_is_named(api: Api, header: str, value: str, action: str) -> None:
    answer = await api.send("POST", f"/{urn_of()}/{action}", None, {header: value})

    assert (answer.status, answer.json["error_code"]) == (400, "FSS.0400")
    assert header.lower() in answer.json["error_msg"].lower()
    assert not api.engine.requests


@pytest.mark.parametrize("action", ["invocations", "invocations-async"])
async def test_a_caller_may_choose_memory_where_the_function_allows_it(api: Api, action: str) -> None:
    await api.create("roomy", enable_dynamic_memory=True)

    answer = await api.send("POST", f"/roomy/{action}", None, {"X-Cff-Instance-Memory": "512"})

    assert answer.status in (200, 202)
    assert api.engine.requests[0].memory == 512


@pytest.mark.parametrize(
    ("refusal", "status", "code", "retry_after"),
    [
        (BacklogFull("hello", 5, "invocations"), 429, "FSS.0429", "5"),
        (FunctionDisabled("hello"), 429, "FSS.0429", "60"),
        (IdempotencyConflict("k"), 409, "FSS.0409", None),
    ],
)
async def test_a_refusal_of_the_intake_reaches_the_caller(
    api: Api, refusal: Exception, status: int, code: str, retry_after: str | None
) -> None:
    api.engine.refuses = refusal

    answer = await api.invoke()

    assert (answer.status, answer.json["error_code"], answer.headers.get("retry-after")) == (status, code, retry_after)


async def test_a_synchronous_call_gives_the_result_as_it_is(api: Api) -> None:
    answer = await api.send("POST", f"/{urn_of()}/invocations", {"k": 1})

    assert (answer.status, answer.raw) == (200, b'"done"')
    assert answer.headers["x-cff-response-version"] == "v0"
    assert (answer.headers["x-func-err-code"], answer.headers["x-is-func-err"]) == ("0", "false")
    assert answer.headers["x-cff-billing-duration"] == "500"
    assert json.loads(answer.headers["x-cff-invoke-summary"])["duration"] == "500.000ms"
    assert "x-cff-function-log" not in answer.headers
    assert api.engine.requests[0].mode is Mode.SYNC


@pytest.mark.parametrize(("result", "kind"), [(b"hello world!", "text/plain"), (b'{"a": 1}', "application/json")])
async def test_a_result_that_is_plain_text_is_sent_as_such(api: Api, result: bytes, kind: str) -> None:
    api.engine.outcome = Outcome(result=result)

    answer = await api.send("POST", f"/{urn_of()}/invocations", {})

    assert (answer.raw, answer.headers["content-type"].split(";")[0]) == (result, kind)


async def test_version_v1_wraps_result_and_log(api: Api) -> None:
    headers = {"X-CFF-Request-Version": "v1", "X-Cff-Log-Type": "tail"}

    answer = await api.send("POST", f"/{urn_of()}/invocations", {}, headers)

    assert (answer.json["status"], answer.json["result"]) == (200, '"done"')
    assert answer.json["request_id"] == answer.headers["x-cff-request-id"]
    start, said, finish = answer.json["log"].splitlines()
    assert start == f"Start invoke request '{answer.json['request_id']}', version: latest"
    assert (said, finish.split(",")[1]) == ("said", " duration: 500.000ms")
    assert base64.b64decode(answer.headers["x-cff-function-log"]).decode() == answer.json["log"]
    api.engine.outcome = Outcome(log=b"a" * 9000)
    answer = await api.send("POST", f"/{urn_of()}/invocations", {}, {"X-Cff-Log-Type": "tail"})
    tail = base64.b64decode(answer.headers["x-cff-function-log"])
    assert (len(tail), tail.endswith(b"128MB\n")) == (4096, True)


@pytest.mark.parametrize(("version", "body"), [("v0", '{"errorMessage":"x"}'), ("v1", None)])
async def test_an_error_of_the_function_is_a_result_with_flags(api: Api, version: str, body: str | None) -> None:
    api.engine.outcome = Outcome(code=4002, message="boom", result=b'{"errorMessage":"x"}')

    answer = await api.send("POST", f"/{urn_of()}/invocations", {}, {"X-CFF-Request-Version": version})

    assert (answer.status, answer.headers["x-func-err-code"], answer.headers["x-is-func-err"]) == (200, "4002", "true")
    if body is None:
        assert (answer.json["status"], answer.json["result"]) == (500, '{"errorMessage":"x"}')
    else:
        assert answer.raw.decode() == body


async def test_an_error_of_the_engine_is_no_result(api: Api) -> None:
    api.engine.outcome = Outcome(code=150500, message="the instance died twice")

    answer = await api.send("POST", f"/{urn_of()}/invocations", {})

    assert (answer.status, answer.json["error_code"], answer.headers["x-is-func-err"]) == (500, "FSS.0500", "false")


async def test_a_call_that_takes_too_long_is_an_error_with_its_request_id(api: Api) -> None:
    error = CallTimedOut(90)
    error.request_id = "r-1"
    api.engine.refuses = error

    answer = await api.send("POST", f"/{urn_of()}/invocations", {})

    assert (answer.status, answer.json["error_code"]) == (504, "FSS.0504")
    assert answer.headers["x-cff-request-id"] == "r-1"


class _Stuck:
    """Intake whose calls never end."""

    def __init__(self) -> None:
        self.called = anyio.Event()

    async def call(self, request: Request) -> tuple[str, Function, Outcome]:
        self.called.set()
        await anyio.sleep_forever()
        raise AssertionError


async def test_a_caller_that_waits_when_the_server_ends_gets_503(api: Api) -> None:
    intake = _Stuck()
    async with listen(api.app(intake=intake), "127.0.0.1", 0, grace=0.0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"POST {BASE}/{urn_of()}/invocations HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await intake.called.wait()

    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"shutting down" in answer
