"""Invocations that are run again over HTTP: with the event as it was, edited, or refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.model import State
from tests.support.http_app import Api, serve, urn_of

RECORDS = f"/{urn_of()}/async-invocations"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serve(tmp_path) as api:
        await api.create()
        yield api


async def ended(api: Api) -> str:
    request_id: str = (await api.invoke(body={"n": 1})).json["request_id"]
    api.engine.finish(request_id, State.SUCCESS)
    return request_id


async def test_the_event_is_sent_again_as_it_was_or_edited(api: Api) -> None:
    old = await ended(api)
    plain = await api.send("POST", f"{RECORDS}/{old}/run-again")
    body = {"event": [1, {"a": None}], "priority": 9, "delay": 2.5}
    edited = await api.send("POST", f"{RECORDS}/{old}/run-again", body, {"Idempotency-Key": "k"})

    assert (plain.status, edited.status, plain.json["request_id"] != old) == (202, 202, True)
    first, second = api.engine.requests[1:]
    assert (first.payload, first.idempotency_key, first.source) == (b'{"n": 1}', "", "REDRIVE")
    assert (second.payload, second.priority, second.delay) == (b'[1, {"a": null}]', 9, 2.5)
    assert second.idempotency_key == "k"


@pytest.mark.parametrize(
    "body", [{"events": 1}, {"priority": 10}, {"delay": -1}, b"[", {"event": "x" * (257 << 10)}, b"null1"]
)
async def test_a_wrong_body_invokes_nothing(api: Api, body: object) -> None:
    old = await ended(api)

    assert (await api.send("POST", f"{RECORDS}/{old}/run-again", body)).status in (400, 406, 413)
    assert len(api.engine.requests) == 1


@pytest.mark.parametrize("priority", [10, None, "x"])
async def test_a_wrong_field_beside_an_event_is_named(api: Api, priority: object) -> None:
    body = {"event": {"a": None}, "priority": priority}
    refused = await api.send("POST", f"{RECORDS}/{await ended(api)}/run-again", body)

    assert (refused.status, len(api.engine.requests)) == (400, 1)
    assert "priority is" in refused.json["error_msg"]
    assert "whole number from 0 to 9" in refused.json["error_msg"]


async def test_what_has_not_ended_is_not_run_again(api: Api) -> None:
    waiting = (await api.invoke()).json["request_id"]
    refused = await api.send("POST", f"{RECORDS}/{waiting}/run-again")

    assert (refused.status, "is WAIT" in refused.json["error_msg"]) == (400, True)
    assert (await api.send("POST", f"{RECORDS}/some/run-again")).status == 404
