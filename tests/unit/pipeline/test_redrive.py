"""Redrive of a function's failed invocations while the backlog is almost full."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.code.store import CodeSource
from engine.errors import BacklogFull, InvalidField
from engine.model import Code, Request, State
from engine.model.urn import FunctionUrn, parse_urn
from engine.pipeline.redrive import Chosen, Edit, Step
from tests.support.http_app import PROJECT, REGION, encoded
from tests.support.triggering import HELD, House, house
from tests.support.waiting import in_own_task

BAD = parse_urn("bad", region=REGION, project=PROJECT)


async def create(place: House) -> None:
    """Create a function ``bad`` that always fails."""
    hello = place.engine.catalog.route(place.urn)
    bad = msgspec.structs.replace(hello, function_id=0, name="bad")
    await place.engine.catalog.create(
        bad, CodeSource(kind="inline", file=encoded("def handler(event, context):\n    raise ValueError(event)\n"))
    )
    place.engine.scheduler.resume(HELD)


async def failed(place: House, urn: FunctionUrn = BAD) -> str:
    request_id = await place.engine.intake.accept(Request(function=urn, payload=b"1"))
    await ended(place, request_id)
    return request_id


async def ended(place: House, request_id: str) -> None:
    await place.engine.dispatcher.ended(key_of(place, request_id), None)


def key_of(place: House, request_id: str) -> int:
    key = place.engine.storage.identity.key_of(request_id)
    assert key is not None
    return key


async def step(place: House, below: int | None = None) -> Step:
    return await place.engine.redrive.invoke_failed(BAD, Chosen(), below=below, limit=10)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[House]:
    async with in_own_task(house(tmp_path)) as place:
        yield place


async def test_a_step_sends_what_there_is_room_for_and_the_next_goes_on(tmp_path: Path) -> None:
    async with house(tmp_path, queue__function_rows=1) as place:
        await create(place)
        old, new = [await failed(place) for _ in range(2)]
        place.engine.scheduler.hold(HELD)
        first = await step(place)
        with pytest.raises(BacklogFull):
            await step(place, first.below)
        place.engine.scheduler.resume(HELD)
        await ended(place, first.sent[0][1])
        rest = await step(place, first.below)

        assert ([sent for sent, _ in first.sent], first.below, first.count) == ([new], key_of(place, new), 2)
        assert ([sent for sent, _ in rest.sent], rest.below, rest.count) == ([old], None, 1)


async def test_an_outcome_that_can_never_be_sent_again_is_reported_and_skipped(place: House) -> None:
    await create(place)
    old = await failed(place)
    frozen = msgspec.structs.replace(BAD, qualifier="v1")
    await place.engine.versions.publish(BAD, name="v1")
    lost = await failed(place, frozen)
    await place.engine.versions.delete(frozen)
    done = await step(place)

    assert [request_id for request_id, _ in done.sent] == [old]
    assert [(request_id, "v1" in why) for request_id, why in done.refused] == [(lost, True)]


async def test_a_filter_selects_what_is_sent_again(place: House) -> None:
    await create(place)
    old = await failed(place)
    place.engine.scheduler.hold(HELD)
    waiting = await place.engine.intake.accept(Request(function=BAD, payload=b"2"))
    await place.engine.dispatcher.cancel(key_of(place, waiting))

    async def sent(**fields: Any) -> list[str]:
        done = await place.engine.redrive.invoke_failed(BAD, Chosen(**fields), below=None, limit=10, counted=False)
        assert (done.count, done.below) == (None, None)
        return [request_id for request_id, _ in done.sent]

    assert await sent(codes=frozenset({Code.TIMEOUT})) == []
    assert await sent(source="TIMER") == []
    assert await sent(trigger_id="t") == []
    assert await sent(states=frozenset({State.DISCARD})) == []
    assert await sent(codes=frozenset({Code.USER_EXCEPTION}), source="API") == [old]
    assert await sent(codes=frozenset({Code.CANCELLED})) == [waiting]


async def test_uncounted_steps_reach_the_end(place: House) -> None:
    await create(place)
    ids = [await failed(place) for _ in range(3)]
    place.engine.scheduler.hold(HELD)
    redrive, sent = place.engine.redrive, list[str]()
    first = await redrive.invoke_failed(BAD, Chosen(), below=None, limit=2, counted=False)
    rest = await redrive.invoke_failed(BAD, Chosen(), below=first.below, limit=2, counted=False)
    sent = [request_id for request_id, _ in [*first.sent, *rest.sent]]

    assert (sent, rest.below) == (ids[::-1], None)


async def test_an_edited_event_is_a_new_invocation(place: House) -> None:
    await create(place)
    old = await failed(place)
    place.engine.scheduler.hold(HELD)
    redrive, records = place.engine.redrive, place.engine.storage.records
    same = await redrive.run_again(BAD, old, Edit())
    other = await redrive.run_again(BAD, old, Edit(payload=b'{"n":2}', priority=0, delay=600.0))
    stored = [await records.get(key_of(place, request_id)) for request_id in (same, other)]

    assert [(record.payload, record.source, record.state, record.cause) for record in stored if record] == [
        (b"1", "REDRIVE", State.WAIT, key_of(place, old)),
        (b'{"n":2}', "REDRIVE", State.WAIT, key_of(place, old)),
    ]
    assert stored[1] is not None
    assert stored[1].due_at > stored[1].accepted_at + 500
    assert await redrive.run_again(BAD, old, Edit()) not in (old, same, other)
    with pytest.raises(InvalidField, match="is WAIT"):
        await redrive.run_again(BAD, same, Edit())


async def test_an_idempotency_key_runs_again_once(place: House) -> None:
    await create(place)
    old = await failed(place)
    edit = Edit(payload=b"3", idempotency_key="mine")

    assert await place.engine.redrive.run_again(BAD, old, edit) == await place.engine.redrive.run_again(BAD, old, edit)
