"""Contract of status logs: a change of a followed version's states is an entry, in order, until it is handed over."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from unittest.mock import patch

import pytest
from msgspec.structs import replace

from engine.errors import NotStored
from engine.logs.target import status_log_target
from engine.model import Code, State
from engine.protocols import StatusEntry, StatusTarget, Storage, WaitingEnd
from engine.storage.sqlite import status_log
from tests.support.storages import (
    CANCELLED,
    SINK,
    Opened,
    cancelled,
    discarded,
    ended,
    failure,
    made,
    on_sqlite,
    record_of,
    retried,
    settled,
    started,
    stored,
    success,
)
from tests.support.waiting import until

pytestmark = on_sqlite
WAIT, RUNNING, SUCCESS, FAIL, DISCARD = State.WAIT, State.RUNNING, State.SUCCESS, State.FAIL, State.DISCARD


def target(function_id: int = 1, version: str = "latest", project: str = "p") -> StatusTarget:
    urn = f"urn:fss:local-1:{project}:function:default:f{function_id}:{version}"
    log = status_log_target(project)
    return StatusTarget(function_id=function_id, version=version, project=project, urn=urn, log=log)


async def followed(storage: Storage, *functions: int) -> None:
    await storage.status_log.load()
    for function_id in functions:
        await storage.status_log.follow(function_id, [target(function_id)])


async def states(storage: Storage) -> list[tuple[str, State]]:
    return [(entry.request_id, entry.state) for entry in await storage.status_log.read(1000)]


async def entries(storage: Storage) -> list[StatusEntry]:
    return list(await storage.status_log.read(1000))


async def test_each_state_of_an_invocation_is_logged_with_its_own_time(storage: Storage) -> None:
    await followed(storage, 1)
    invocation = await started(storage)
    await settled(storage, invocation, success(invocation))

    logged = await entries(storage)

    assert [entry.state for entry in logged] == [WAIT, RUNNING, SUCCESS]
    assert [entry.at for entry in logged] == [invocation.accepted_on_clock, invocation.due_at, invocation.due_at + 1]
    assert {entry.request_id for entry in logged} == {invocation.request_id}
    assert {entry.target for entry in logged} == {target()}
    assert [entry.entry_id for entry in logged] == sorted({entry.entry_id for entry in logged})


async def test_a_start_that_shares_the_commit_of_its_end_is_logged_before_it(storage: Storage) -> None:
    await followed(storage, 1)
    invocation = await stored(storage)
    storage.journal.start(invocation, invocation.due_at)
    storage.journal.start(invocation, invocation.due_at, begun=True)
    await settled(storage, invocation, success(invocation))

    logged = await entries(storage)

    assert [(entry.state, entry.at) for entry in logged[1:]] == [
        (RUNNING, invocation.due_at),
        (SUCCESS, invocation.due_at + 1),
    ]


async def test_the_begin_of_a_handler_is_no_change_of_state(storage: Storage) -> None:
    await followed(storage, 1)
    invocation = await started(storage, begun=False)
    storage.journal.start(invocation, invocation.due_at, begun=True)

    assert [state for _, state in await states(storage)] == [WAIT, RUNNING]


async def test_retries_and_failures_are_logged_with_code_and_message(storage: Storage) -> None:
    await followed(storage, 1)
    invocation = await started(storage)
    again = await retried(storage, invocation, failure(invocation))
    storage.journal.start(replace(again, delayed=False), again.due_at)
    await settled(storage, again, failure(again, message="x" * 2000))

    logged = await entries(storage)

    assert [entry.state for entry in logged] == [WAIT, RUNNING, WAIT, RUNNING, FAIL]
    assert [entry.code for entry in logged] == [0, 0, Code.USER_EXCEPTION, 0, Code.USER_EXCEPTION]
    assert [entry.message for entry in logged] == ["", "", "no", "", "x" * 1000]


async def test_cancelling_and_discarding_are_logged(storage: Storage) -> None:
    await followed(storage, 1)
    one, purged, other = [await stored(storage) for _ in range(3)]
    await storage.journal.end_all([one.key], CANCELLED)
    await storage.journal.end_all([one.key, purged.key], WaitingEnd(state=State.FAIL, outcome=cancelled()))
    await storage.journal.end_all([one.key], CANCELLED)
    await storage.journal.end_all([other.key], WaitingEnd(state=State.DISCARD, outcome=discarded()))

    ends = [(entry.request_id, entry.state, entry.code) for entry in await entries(storage)][3:]

    assert ends == [
        (one.request_id, FAIL, Code.CANCELLED),
        (purged.request_id, FAIL, Code.CANCELLED),
        (other.request_id, DISCARD, Code.FUNCTION_MISSING),
    ]


async def test_the_return_to_wait_is_logged_when_the_engine_stops_or_crashes(opened: Opened) -> None:
    async with opened() as storage:
        await followed(storage, 1)
        released, crashed = await started(storage), await started(storage)
        await storage.journal.release([released])
        await storage.journal.release([released])
    async with opened() as storage:
        await storage.status_log.load()
        await storage.journal.recover()

        by_request = dict[str, list[State]]()
        for request_id, state in await states(storage):
            by_request.setdefault(request_id, []).append(state)

        assert by_request == {invocation.request_id: [WAIT, RUNNING, WAIT] for invocation in (released, crashed)}


async def test_invocations_of_batches_deliveries_and_idempotency_keys_are_logged(storage: Storage) -> None:
    await followed(storage, 1)
    keyed, batched, delivered = (made(storage) for _ in range(3))
    await storage.journal.append(keyed, idempotency_key="k")
    await storage.journal.append(replace(made(storage), payload=keyed.payload), idempotency_key="k")
    await storage.cursors.append([(batched, ""), (made(storage), "k")])
    await ended(storage, 2, deliver_to=None)
    owing = await started(storage, 2)
    await settled(storage, owing, success(owing), deliver_to=SINK)
    [pending] = (await storage.outbox.due(owing.due_at + 10, 10, 10))[0]
    await storage.outbox.delivered(pending, append=delivered)

    expected = [(invocation.request_id, WAIT) for invocation in (keyed, batched, delivered)]
    assert await states(storage) == expected


async def test_versions_that_are_not_followed_are_not_logged(storage: Storage) -> None:
    await followed(storage, 1)
    await ended(storage, 2)
    await ended(storage, 1, version="v1")
    cancelled_one = await stored(storage, 1, version="v1")
    await storage.journal.end_all([cancelled_one.key], CANCELLED)
    before = await states(storage)
    await storage.status_log.follow(1, [target(1, "v1")])
    invocation = await ended(storage, 1, version="v1")
    await ended(storage, 1)
    await storage.status_log.follow(1, [])
    await ended(storage, 1, version="v1")

    assert before == []
    assert await states(storage) == [(invocation.request_id, state) for state in (WAIT, RUNNING, SUCCESS)]


async def test_entries_and_followed_versions_survive_a_restart(opened: Opened) -> None:
    async with opened() as storage:
        await followed(storage, 1)
        invocation = await stored(storage)
    async with opened() as storage:
        known = await storage.status_log.load()
        await storage.journal.recover()
        other = await stored(storage)

        assert {*known} == {1}
        assert await states(storage) == [(invocation.request_id, WAIT), (other.request_id, WAIT)]
        assert storage.status_log.statistics().waiting == 2


async def test_entries_keep_the_stream_for_which_they_were_made(storage: Storage) -> None:
    await followed(storage, 1)
    await stored(storage)
    other = replace(target(), log=status_log_target("other"))
    await storage.status_log.follow(1, [other])
    await stored(storage)

    assert [entry.target for entry in await entries(storage)] == [target(), other]


async def test_a_hand_over_moves_the_oldest_entries_to_a_table_of_a_plugin(storage: Storage) -> None:
    await followed(storage, 1)
    one, other = await stored(storage), await stored(storage)
    [first] = await storage.status_log.read(1)
    await storage.status_log.hand_over(first.entry_id, "lts", "lines", {"a": b"1"})

    assert first.request_id == one.request_id
    assert await states(storage) == [(other.request_id, WAIT)]
    assert await storage.store("lts").scan("lines") == [("a", b"1")]
    assert storage.status_log.statistics().waiting == 1


async def test_a_failed_hand_over_changes_nothing(storage: Storage, opened: Opened) -> None:
    await followed(storage, 1)
    invocation = await stored(storage)
    [first] = await storage.status_log.read(1)
    opened.fail()
    with pytest.raises(NotStored):
        await storage.status_log.hand_over(first.entry_id, "lts", "lines", {"a": b"1"})
    opened.heal()
    await until(lambda: not storage.statistics().failure)
    again = await stored(storage)

    assert await states(storage) == [(invocation.request_id, WAIT), (again.request_id, WAIT)]
    assert await storage.store("lts").scan("lines") == []


async def test_entries_are_announced(storage: Storage) -> None:
    announced = list[int]()
    storage.status_log.added.connect(lambda: announced.append(1))
    await followed(storage, 1)
    await ended(storage, 2)
    none = len(announced)
    invocation = await stored(storage)
    accepted = len(announced)
    await storage.journal.end_all([invocation.key], CANCELLED)

    assert none == 0
    assert 0 < accepted < len(announced)


async def test_an_entry_that_a_read_does_not_return_is_announced_after_it(storage: Storage) -> None:
    await followed(storage, 1)
    announced = list[int]()
    storage.status_log.added.connect(lambda: announced.append(1))
    for turns in range(20):
        await stored(storage)
        reading = asyncio.ensure_future(storage.status_log.read(1000))
        for _ in range(turns):
            await asyncio.sleep(0)
        announced.clear()
        invocation = await stored(storage)

        read = {entry.request_id for entry in await reading}
        assert invocation.request_id in read or announced


async def test_refused_entries_do_not_count_against_the_limit(opened: Opened) -> None:
    with patch.object(status_log, "MOST_ENTRIES", 2):
        async with opened() as storage:
            await followed(storage, 1)
            opened.fail()
            for _ in range(3):
                with pytest.raises(NotStored):
                    await stored(storage)
            with suppress(NotStored):  # raised by a kind that cannot read while its writes fail
                await states(storage)
            opened.heal()
            await until(lambda: not storage.statistics().failure)
            before = await states(storage)
            invocation = await stored(storage)

            assert before == []
            assert await states(storage) == [(invocation.request_id, WAIT)]


async def test_entries_beyond_the_limit_are_dropped_and_counted(opened: Opened) -> None:
    with patch.object(status_log, "MOST_ENTRIES", 2):
        async with opened() as storage:
            await followed(storage, 1)
            invocation = await ended(storage)
            two = await stored(storage)
            await storage.journal.end_all([two.key], CANCELLED)
            logged = await entries(storage)
            await storage.status_log.hand_over(logged[-1].entry_id, "lts", "lines", {})
            three = await stored(storage)

            assert [(entry.request_id, entry.state) for entry in logged] == [
                (invocation.request_id, WAIT),
                (invocation.request_id, RUNNING),
            ]
            assert await states(storage) == [(three.request_id, WAIT)]
            assert storage.status_log.statistics().dropped == 3
            assert (await record_of(storage, two)).state is FAIL


async def test_invocations_of_an_ordering_key_are_logged_as_waiting_also_while_they_are_held(storage: Storage) -> None:
    await followed(storage, 1)
    first, second = [await stored(storage, ordering_key="k") for _ in range(2)]
    storage.journal.start(first, first.due_at)
    await settled(storage, first, success(first))

    assert await states(storage) == [
        (first.request_id, WAIT),
        (second.request_id, WAIT),
        (first.request_id, RUNNING),
        (first.request_id, SUCCESS),
    ]
