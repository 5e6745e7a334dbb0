"""Batches of asynchronous requests over HTTP: events with their options, and errors in the places of refused events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.errors import BacklogFull, FunctionDisabled, IdempotencyConflict, InvalidField
from engine.http.api.batches import BATCH_LIMIT, MOST_EVENTS, read_batch
from tests.support.http_app import Answer, Api, urn_of
from tests.support.work import calls, turns_during

pytestmark = pytest.mark.usefixtures("hello")

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
    assert answer.json == {"results": [{"request_id": one} for one in ids], "accepted": 2, "refused": 0}
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

    assert all(isinstance(one, InvalidField) for one in found)
    assert turns >= MOST_EVENTS // 20
    assert made() / MOST_EVENTS < 200, "the types of the fields are read once, and not for each error"


@pytest.mark.parametrize("spoiled", [False, True], ids=["valid", "one invalid"])
async def test_a_batch_may_have_as_many_events_and_bytes_as_are_allowed(spoiled: bool) -> None:
    events: list[dict[str, Any]] = [{"event": ["x" * 10] * 440, "key": str(place)} for place in range(MOST_EVENTS)]
    if spoiled:
        events[500]["priority"] = 10
    body = json.dumps({"events": events}).encode()
    assert len(body) > BATCH_LIMIT * 0.9

    found = await read_batch(JSON, body)

    assert sum(not isinstance(one, Exception) for one in found) == MOST_EVENTS - spoiled
