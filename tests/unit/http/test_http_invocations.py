"""Invocations over HTTP, alone and in batches: requests passed to the intake, and results for the caller."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import anyio
import pytest

from engine.asgi.listener import listen
from engine.errors import BacklogFull, CallTimedOut, FunctionDisabled, IdempotencyConflict, InvalidField
from engine.http.api.batches import BATCH_LIMIT, MOST_EVENTS, read_batch
from engine.model import Function, Mode, Outcome, Request
from tests.support.http_app import BASE, Answer, Api, urn_of
from tests.support.work import calls, turns_during

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


# --- batches -------------------------------------------------------------------------------------------------

JSON = {b"content-type": b"application/json"}


async def send(api: Api, *events: object, name: str = "hello", **headers: str) -> Answer:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return await api.send("POST", f"/{urn_of(name)}/invocations-async/batch", {"events": events}, named)


async def test_each_event_gets_a_request_id_in_its_place(api: Api) -> None:
    await api.create("roomy", enable_dynamic_memory=True)

    answer = await send(api, {"event": 1}, {"event": 2}, name="roomy", X_Cff_Instance_Memory="512")
    unknown = await send(api, {"event": 1}, name="nobody")

    ids = [api.engine.identity.request_id(key) for key in api.engine.rows]
    assert answer.status == 202
    assert answer.json == {"results": [{"request_id": request_id} for request_id in ids], "accepted": 2, "refused": 0}
    assert [request.memory for request in api.engine.requests] == [512, 512]
    assert (unknown.status, unknown.json["error_code"], "results" in unknown.json) == (404, "FSS.1051", False)


async def test_events_reach_the_intake_byte_by_byte_with_their_options(api: Api) -> None:
    body = (
        b'{"events": [{"event": {"k":  "\xc3\xbc", "n": 1e400}, "key": "order 17!", "delay": 1.5, "priority": 9,'
        b' "ordering_key": "o"}, {"key": null, "delay": null, "priority": null, "ordering_key": null}]}'
    )

    answer = await api.send("POST", f"/{urn_of()}/invocations-async/batch", body)

    one, two = api.engine.requests
    assert answer.status == 202
    assert one.payload == b'{"k":  "\xc3\xbc", "n": 1e400}'
    assert (one.priority, one.delay, one.idempotency_key, one.ordering_key) == (9, 1.5, "order 17!", "o")
    assert (two.payload, two.priority, two.delay, two.idempotency_key, two.ordering_key) == (b"{}", 0, 0.0, "", "")


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"priority": 10}, "priority is 10: must be a whole number from 0 to 9"),
        ({"delay": -1}, "delay is -1: must be a number from 0 to 604800"),
        ({"key": ""}, "key is '': must be 1 to 255 printable ASCII characters"),
        ({"ordering_key": "k" * 201}, "must be 1 to 200 printable ASCII characters"),
        ({"event": 1, "dealy": 5}, "unknown field `dealy`; did you mean `delay`?"),
        ("text", "must be an object"),
        ({"event": "x" * (256 << 10)}, "larger than the 262144 bytes"),
    ],
)
async def test_an_event_that_cannot_be_has_its_error_in_its_place(api: Api, event: object, words: str) -> None:
    answer = await send(api, {"event": 1}, event, {"event": 3})

    first, refused, last = answer.json["results"]
    assert (answer.status, answer.json["accepted"], answer.json["refused"]) == (202, 2, 1)
    assert refused["error_code"].startswith("FSS.04")
    assert words in refused["error_msg"]
    assert [request.payload for request in api.engine.requests] == [b"1", b"3"]
    assert [first["request_id"], last["request_id"]] == [api.engine.identity.request_id(key) for key in api.engine.rows]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"events": []}', 400, "must be a list of 1 to 1000 entries"),
        (b'{"events": [' + b"{}," * 1000 + b"{}]}", 400, "a list of more than 1000"),
        (b'{"events": [' + b"1," * 2_000_000 + b"1]}", 400, "a list of more than 1000"),
        (b"{}", 400, "events is missing"),
        (b"[]", 400, "must be an object"),
        (b'{"events": 5}', 400, "events is 5"),
        (b'{"event": [{}]}', 400, "unknown field `event`; did you mean `events`?"),
        (b'{"events": [{"event": ]}', 406, "JSON"),
        (b'{"events": [{"event": "\xff"}]}', 406, "UTF-8"),
        (b'{"events": [{"event": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}", 406, "nested too deeply"),
        (b"x" * (BATCH_LIMIT + 1), 413, "larger than the 6291456 bytes"),
    ],
)
async def test_a_body_that_is_no_batch_is_refused_as_a_whole(api: Api, body: bytes, status: int, words: str) -> None:
    answer = await api.send("POST", f"/{urn_of()}/invocations-async/batch", body)

    assert (answer.status, answer.json["error_code"]) == (status, f"FSS.0{status}")
    assert words in answer.json["error_msg"]
    assert not api.engine.requests


@pytest.mark.parametrize(
    ("refusal", "status", "retry_after"),
    [
        (BacklogFull("hello", 5, "invocations"), 429, "5"),
        (FunctionDisabled("hello"), 429, "60"),
        (IdempotencyConflict("k"), 409, None),
    ],
)
async def test_a_batch_without_an_accepted_event_has_the_status_of_its_errors(
    api: Api, refusal: Exception, status: int, retry_after: str | None
) -> None:
    api.engine.refuses = refusal

    answer = await send(api, {"event": 1, "priority": 11}, {"event": 2})

    assert (answer.status, answer.headers.get("retry-after")) == (status if status == 429 else 400, retry_after)
    assert (answer.json["accepted"], answer.json["refused"]) == (0, 2)
    assert answer.json["error_msg"].startswith("no event is accepted; events[")
    assert [result["error_code"] for result in answer.json["results"]] == ["FSS.0400", f"FSS.0{status}"]


async def test_options_of_a_single_request_belong_to_the_events(api: Api) -> None:
    answer = await send(api, {"event": 1}, Idempotency_Key="k")

    assert (answer.status, answer.json["error_msg"]) == (
        400,
        "Idempotency-Key is 'k': set key of each event instead",
    )
    assert not api.engine.requests


async def test_a_batch_of_invalid_events_leaves_the_loop_to_others_in_between() -> None:
    body = b'{"events": [%b]}' % b",".join([b'{"priority": 10}'] * MOST_EVENTS)

    with calls() as made:
        found, turns = await turns_during(read_batch(JSON, body))

    assert all(isinstance(error, InvalidField) for error in found)
    assert turns >= MOST_EVENTS // 20
    assert made() / MOST_EVENTS < 200, "the types of the fields are read once, and not for each error"


@pytest.mark.parametrize("spoiled", [False, True], ids=["valid", "one invalid"])
async def test_a_batch_may_have_as_many_events_and_bytes_as_are_allowed(spoiled: bool) -> None:
    events: list[dict[str, Any]] = [{"event": ["x" * 10] * 440, "key": str(place)} for place in range(MOST_EVENTS)]
    if spoiled:
        events[500]["priority"] = 10
    body = json.dumps({"events": events}).encode()
    assert len(body) > BATCH_LIMIT * 0.9

    parsed = await read_batch(JSON, body)

    assert sum(not isinstance(event, Exception) for event in parsed) == MOST_EVENTS - spoiled
