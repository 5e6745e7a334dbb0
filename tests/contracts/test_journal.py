"""Contract of journals: append, start, settle, cancel and recover."""

from __future__ import annotations

import asyncio

import pytest

from engine.errors import IdempotencyConflict
from engine.model import Code, Invocation, Outcome, State
from engine.model.retry import HISTORY
from engine.model.retry_rules import Decision
from engine.protocols import Storage, WaitingEnd
from tests.support.storages import (
    CANCELLED,
    NOW,
    ROOM,
    Opened,
    discarded,
    ended,
    failure,
    made,
    ready_of,
    record_of,
    retried,
    settled,
    started,
    stored,
    success,
)


async def state_of(storage: Storage, invocation: Invocation) -> State:
    return (await record_of(storage, invocation)).state


# --- appending ----------------------------------------------------------------------------------------------


async def test_an_appended_invocation_waits_with_all_its_fields(storage: Storage) -> None:
    invocation = made(
        storage,
        7,
        version="v1",
        alias="live",
        source="OBS",
        payload=b'{"a":1}',
        priority=3,
        rank=5.0,
        hops=2,
        memory=256,
        trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        cause=9,
        parent=storage.identity.request_id(9),
    )
    request_id = await storage.journal.append(invocation)

    assert request_id == invocation.request_id
    assert await ready_of(storage, 7) == (invocation,)


async def test_the_callback_of_a_row_runs_before_its_caller_continues(storage: Storage) -> None:
    heard: list[tuple[int, bool]] = []
    invocation = made(storage)
    await storage.journal.append(invocation, then=lambda i, fresh: heard.append((i.key, fresh)))

    assert heard == [(invocation.key, True)]


async def test_a_caller_who_goes_away_leaves_a_whole_row_and_a_callback(storage: Storage) -> None:
    heard: list[bool] = []
    invocation = made(storage)
    waiting = asyncio.ensure_future(storage.journal.append(invocation, then=lambda _, fresh: heard.append(fresh)))
    waiting.cancel()
    await stored(storage)

    assert heard == [True]
    assert await state_of(storage, invocation) is State.WAIT


async def test_a_repeated_idempotency_key_gives_the_first_id_and_stores_nothing(storage: Storage) -> None:
    first, again = made(storage, at=NOW), made(storage, at=NOW + 99)
    fresh: list[bool] = []
    await storage.journal.append(first, idempotency_key="t")
    request_id = await storage.journal.append(again, idempotency_key="t", then=lambda _, stored: fresh.append(stored))

    assert request_id == first.request_id
    assert fresh == [False]
    assert await storage.records.get(again.key) is None


async def test_two_requests_of_one_turn_with_one_idempotency_key_are_one_row(storage: Storage) -> None:
    one, other = made(storage, at=NOW), made(storage, at=NOW)
    ids = await asyncio.gather(
        storage.journal.append(one, idempotency_key="t"), storage.journal.append(other, idempotency_key="t")
    )

    assert list(ids) == [one.request_id, one.request_id]


async def test_an_idempotency_key_with_another_payload_is_a_conflict(storage: Storage) -> None:
    await storage.journal.append(made(storage, at=NOW, payload=b"1"), idempotency_key="t")
    fresh: list[bool] = []

    with pytest.raises(IdempotencyConflict):
        await storage.journal.append(
            made(storage, at=NOW, payload=b"2"), idempotency_key="t", then=lambda _, stored: fresh.append(stored)
        )
    assert fresh == [False]


async def test_an_idempotency_key_belongs_to_one_function(storage: Storage) -> None:
    one, other = made(storage, 1, at=NOW), made(storage, 2, at=NOW)
    await storage.journal.append(one, idempotency_key="t")

    assert await storage.journal.append(other, idempotency_key="t") == other.request_id


async def test_an_idempotency_key_is_free_again_after_its_retention(storage: Storage) -> None:
    await storage.journal.append(made(storage, at=NOW), idempotency_key="t")
    late = made(storage, at=NOW + 101)

    assert await storage.journal.append(late, idempotency_key="t") == late.request_id


async def test_the_retention_of_an_idempotency_key_follows_the_clock_also_after_it_was_set_back(
    storage: Storage,
) -> None:
    ahead = made(storage, at=NOW + 10_000)
    await storage.journal.append(ahead, idempotency_key="ahead")
    await storage.journal.append(made(storage, at=NOW + 20_000))
    await storage.journal.append(
        made(storage, at=NOW), idempotency_key="t"
    )  # keys grow even when the clock is set back

    late = made(storage, at=NOW + 101)
    assert await storage.journal.append(late, idempotency_key="t") == late.request_id
    assert await storage.journal.append(made(storage, at=NOW + 10_000), idempotency_key="ahead") == ahead.request_id


async def test_an_idempotency_key_outlives_the_engine(opened: Opened) -> None:
    async with opened() as storage:
        first = made(storage, at=NOW)
        await storage.journal.append(first, idempotency_key="t")

    async with opened() as storage:
        assert await storage.journal.append(made(storage, at=NOW + 1), idempotency_key="t") == first.request_id


# --- end of an attempt ----------------------------------------------------------------------------------


async def test_a_first_success_has_its_result_and_no_history(storage: Storage) -> None:
    invocation = await started(storage)
    await settled(storage, invocation, success(invocation, result=b'"yes"', log=b"said"))

    record = await record_of(storage, invocation)
    assert (record.state, record.result, record.log, record.attempts) == (State.SUCCESS, b'"yes"', b"said", ())
    assert (record.started_at, record.ended_at) == (invocation.due_at, invocation.due_at + 1)


async def test_a_start_and_its_end_in_one_turn_are_an_end(storage: Storage) -> None:
    invocation = await stored(storage)
    storage.journal.start(invocation, invocation.due_at)
    await settled(storage, invocation, success(invocation))

    record = await record_of(storage, invocation)
    assert (record.state, record.attempt, record.started_at) == (State.SUCCESS, 1, invocation.due_at)


async def test_a_failure_leaves_its_error_and_an_attempt(storage: Storage) -> None:
    invocation = await started(storage)
    await settled(storage, invocation, failure(invocation))

    record = await record_of(storage, invocation)
    assert (record.state, record.code, record.message) == (State.FAIL, Code.USER_EXCEPTION, "no")
    assert [(a.attempt, a.code) for a in record.attempts] == [(1, Code.USER_EXCEPTION)]


async def test_a_retry_waits_until_it_is_due(storage: Storage) -> None:
    invocation = await started(storage)
    again = await retried(storage, invocation, failure(invocation))

    record = await record_of(storage, invocation)
    assert (record.state, record.attempt, record.due_at) == (State.WAIT, 2, again.due_at)
    assert await ready_of(storage) == ()


async def test_a_retry_remembers_how_often_the_function_failed(storage: Storage) -> None:
    invocation = await started(storage)
    again = await retried(storage, invocation, failure(invocation))
    [due], _ = await storage.window.promote(again.due_at, 10, ROOM)

    assert (due.attempt, due.failures, due.rank, due.first_due_at) == (2, 1, again.rank, invocation.first_due_at)


async def test_of_an_invocation_that_is_tried_again_and_again_the_newest_attempts_are_kept(storage: Storage) -> None:
    invocation = await started(storage)
    for _ in range(HISTORY + 5):
        invocation = await retried(storage, invocation, failure(invocation, code=Code.ENGINE))

    record = await record_of(storage, invocation)
    assert [a.attempt for a in record.attempts] == list(range(6, HISTORY + 6))


async def test_each_attempt_keeps_its_own_log_and_what_was_decided(opened: Opened) -> None:
    later = Decision(retry=True, by="rule 1", delay=10.0, text="retry in 10 s")
    none = Decision(retry=False, by="settings", text="no retry")
    async with opened() as storage:
        invocation = await started(storage)
        again = await retried(storage, invocation, failure(invocation, log=b"one"), decision=later)
        third = await retried(storage, again, failure(again, log=b"two"))
        await settled(storage, third, failure(third, log=b"three"), decision=none)

        record = await record_of(storage, invocation)
        assert [(a.attempt, a.log, a.decision) for a in record.attempts] == [
            (1, b"one", later), (2, b"two", None), (3, b"", none),
        ]  # fmt: skip
        assert record.log == b"three"


async def test_attempts_keep_the_progress_that_was_reported_last(storage: Storage) -> None:
    invocation = await started(storage)
    again = await retried(storage, invocation, failure(invocation, progress=0.25, note="one of four"))
    third = await retried(storage, again, failure(again))
    await settled(storage, third, failure(third, log=b"three", progress=1.0))

    record = await record_of(storage, invocation)
    assert [(a.progress, a.note) for a in record.attempts] == [(0.25, "one of four"), (None, ""), (1.0, "")]


async def test_attempts_keep_the_instance_that_ran_them(storage: Storage) -> None:
    invocation = await started(storage)
    again = await retried(storage, invocation, failure(invocation, instance="a"))
    await settled(storage, again, success(again, instance="b", node="n1"))

    record = await record_of(storage, invocation)
    assert [(each.instance, each.node) for each in record.attempts] == [("a", ""), ("b", "n1")]


@pytest.mark.parametrize(("progress", "kept"), [(None, []), (0.0, [(1, 0.0, "begun")])])
async def test_a_first_success_is_kept_with_the_attempts_if_it_has_progress(
    storage: Storage, progress: float | None, kept: list[tuple[int, float, str]]
) -> None:
    invocation = await started(storage)
    note = "" if progress is None else "begun"
    await settled(storage, invocation, Outcome(progress=progress, note=note), state=State.SUCCESS)

    record = await record_of(storage, invocation)
    assert [(a.attempt, a.progress, a.note) for a in record.attempts] == kept


async def test_logs_of_earlier_attempts_count_until_they_are_dropped(opened: Opened) -> None:
    sizes = []
    async with opened() as storage:
        invocation = await started(storage, payload=b"")
        for _ in range(HISTORY + 2):
            invocation = await retried(storage, invocation, failure(invocation, result=b"", log=b"1234"))
    async with opened() as storage:
        sizes.append((await storage.journal.recover()).backlog[0])
        await settled(storage, invocation, failure(invocation, result=b"", log=b"12"))
    async with opened() as storage:
        sizes.append((await storage.journal.recover()).backlog[0])
        await storage.records.purge(invocation.due_at + 9, age=1.0, rows=10, size=1 << 20)
    async with opened() as storage:
        sizes.append((await storage.journal.recover()).backlog.get(0, (0, 0)))

    assert sizes == [(0, 4 * HISTORY), (1, 4 * (HISTORY - 1) + 2), (0, 0)]


async def test_a_purge_returns_the_last_attempts_of_retried_invocations(storage: Storage) -> None:
    await ended(storage)
    invocation = await started(storage)
    again = await retried(storage, invocation, failure(invocation))
    await settled(storage, again, success(again))

    purged = await storage.records.purge(invocation.due_at + 99, age=1.0, rows=10, size=1 << 20)
    assert (len(purged.request_ids), purged.attempts) == (2, {invocation.request_id: 2})


async def test_a_silent_success_keeps_nothing_of_the_failure_before(storage: Storage) -> None:
    invocation = await started(storage)
    again = await retried(storage, invocation, failure(invocation))
    await storage.window.promote(again.due_at, 10, ROOM)
    storage.journal.start(again, again.due_at)
    await settled(storage, again, success(again))

    record = await record_of(storage, invocation)
    assert (record.state, record.code, record.message, record.result) == (State.SUCCESS, 0, "", b"")
    assert [a.code for a in record.attempts] == [Code.USER_EXCEPTION, Code.OK]


async def test_an_invocation_that_never_ran_has_no_start_and_no_attempt(storage: Storage) -> None:
    invocation = await stored(storage)
    await settled(storage, invocation, failure(invocation, code=Code.EXPIRED), state=State.DISCARD, ran=False)

    record = await record_of(storage, invocation)
    assert (record.state, record.started_at, record.attempts) == (State.DISCARD, None, ())


# --- cancelling ---------------------------------------------------------------------------------------------


async def test_a_discarded_invocation_counts_as_ended(opened: Opened) -> None:
    async with opened() as storage:
        invocation = made(storage, 5, payload=b"12345678")
        await storage.journal.append(invocation)
        again = await started(storage, 5)
        await retried(storage, again, Outcome(code=Code.USER_EXCEPTION, result=b"oops", ended_at=NOW))
        end = WaitingEnd(state=State.DISCARD, outcome=discarded())
        assert await storage.journal.end_all([invocation.key, again.key], end) == [(invocation.key, 8), (again.key, 2)]

    async with opened() as storage:
        recovery = await storage.journal.recover()

        assert (recovery.backlog.get(5, (0, 0)), recovery.waiting, recovery.next_due) == ((0, 0), frozenset(), None)


async def test_a_cancel_is_decided_also_for_a_caller_who_went_away(storage: Storage) -> None:
    invocation = await stored(storage)
    heard: list[object] = []
    waiting = asyncio.ensure_future(
        storage.journal.end_all([invocation.key], CANCELLED, then=lambda *decided: heard.append(decided))
    )
    waiting.cancel()
    await stored(storage)

    assert heard == [([(invocation.key, 2)], True)]


async def test_no_idempotency_key_expires_while_the_clock_is_not_trusted(storage: Storage) -> None:
    early = made(storage, at=NOW)
    assert await storage.journal.append(early, idempotency_key="k") == early.request_id
    doubtful = made(storage, at=NOW + 1e9, trusted_at=NOW + 10)
    assert await storage.journal.append(doubtful, idempotency_key="k") == early.request_id
    other = made(storage, at=NOW + 1e9, trusted_at=NOW + 10)
    assert await storage.journal.append(other, idempotency_key="other") == other.request_id
    accepted = made(storage, at=NOW + 1e9 + 1)
    assert await storage.journal.append(accepted, idempotency_key="other") == other.request_id
    assert await storage.journal.append(accepted, idempotency_key="k") == accepted.request_id


# --- restart ----------------------------------------------------------------------------


async def test_a_released_invocation_waits_without_a_counted_crash(opened: Opened) -> None:
    async with opened() as storage:
        invocation = await started(storage)
        await storage.journal.release([invocation])

    async with opened() as storage:
        recovery = await storage.journal.recover()
        [waiting] = await ready_of(storage)
        assert (recovery.revived, recovery.waiting, waiting.crash_count) == (0, frozenset({1}), 0)


@pytest.mark.parametrize(("begun", "crashes"), [(True, (1, 0)), (False, (0, 1))], ids=["begun", "starting"])
async def test_a_running_invocation_waits_again_with_one_crash_more_of_its_kind(
    opened: Opened, begun: bool, crashes: tuple[int, int]
) -> None:
    async with opened() as storage:
        await started(storage, begun=begun)

    async with opened() as storage:
        recovery = await storage.journal.recover()
        [waiting] = await ready_of(storage)

        assert (waiting.crash_count, waiting.start_crashes) == crashes
        assert (recovery.revived, waiting.attempt) == (1, 1)


@pytest.mark.parametrize("together", [True, False])
async def test_a_handler_that_begins_after_the_dispatch_counts_as_begun(opened: Opened, together: bool) -> None:
    async with opened() as storage:
        invocation = await (stored if together else started)(storage, **({} if together else {"begun": False}))
        storage.journal.start(invocation, NOW)
        storage.journal.start(invocation, NOW, begun=True)
        await stored(storage)

    async with opened() as storage:
        await storage.journal.recover()
        [waiting] = [ready for ready in await ready_of(storage) if ready.key == invocation.key]
        assert (waiting.crash_count, waiting.start_crashes) == (1, 0)


async def test_a_further_attempt_has_not_begun_when_it_is_dispatched(opened: Opened) -> None:
    async with opened() as storage:
        invocation = await started(storage)
        await storage.journal.release([invocation])
        storage.journal.start(invocation, NOW)
        await stored(storage)

    async with opened() as storage:
        await storage.journal.recover()
        [waiting] = [ready for ready in await ready_of(storage) if ready.key == invocation.key]
        assert (waiting.crash_count, waiting.start_crashes) == (0, 1)


async def test_a_start_calls_back_when_it_is_stored(storage: Storage) -> None:
    invocation = await stored(storage)
    heard = asyncio.Event()
    storage.journal.start(invocation, NOW)
    storage.journal.start(invocation, NOW, begun=True, then=heard.set)
    await asyncio.wait_for(heard.wait(), 60)

    assert await state_of(storage, invocation) is State.RUNNING


async def test_a_start_calls_back_also_when_its_end_is_stored_with_it(storage: Storage) -> None:
    invocation = await stored(storage)
    heard = asyncio.Event()
    storage.journal.start(invocation, NOW, begun=True, then=heard.set)
    await settled(storage, invocation, success(invocation))
    await asyncio.wait_for(heard.wait(), 60)

    assert await state_of(storage, invocation) is State.SUCCESS


async def test_a_retry_that_was_running_waits_again_at_once(opened: Opened) -> None:
    async with opened() as storage:
        invocation = await started(storage)
        again = await retried(storage, invocation, failure(invocation))
        await storage.window.promote(again.due_at, 10, ROOM)
        storage.journal.start(again, again.due_at)

    async with opened() as storage:
        recovery = await storage.journal.recover()
        assert (recovery.waiting, recovery.next_due) == (frozenset({1}), None)


async def test_a_fourth_crash_poisons_an_invocation_and_no_other(opened: Opened) -> None:
    async with opened() as storage:
        at_fault = await started(storage)
    for _ in range(3):
        async with opened() as storage:
            assert (await storage.journal.recover()).poisoned == ()
            storage.journal.start(at_fault, NOW, begun=True)
            innocent = await started(storage)

    async with opened() as storage:
        recovery = await storage.journal.recover()

        assert [(invocation.key, invocation.crash_count) for invocation in recovery.poisoned] == [(at_fault.key, 4)]
        assert await state_of(storage, at_fault) is State.RUNNING
        assert await state_of(storage, innocent) is State.WAIT


async def test_only_a_tenth_crash_before_the_begin_poisons_an_invocation(opened: Opened) -> None:
    async with opened() as storage:
        slow = await started(storage, begun=False)
    for _ in range(9):
        async with opened() as storage:
            assert (await storage.journal.recover()).poisoned == ()
            storage.journal.start(slow, NOW)
            await storage.window.ready(1, (0.0, 0), 0, 0)

    async with opened() as storage:
        recovery = await storage.journal.recover()

        assert [
            (invocation.key, invocation.crash_count, invocation.start_crashes) for invocation in recovery.poisoned
        ] == [(slow.key, 0, 10)]


async def test_crashes_before_the_begin_do_not_spare_an_invocation_that_crashes_while_it_runs(opened: Opened) -> None:
    """A handler that kills the engine is caught at its fourth crash, however often its start was interrupted."""
    async with opened() as storage:
        at_fault = await started(storage)
    for begun in (False, True, False, False, True):
        async with opened() as storage:
            assert (await storage.journal.recover()).poisoned == ()
            storage.journal.start(at_fault, NOW, begun=begun)
            await storage.window.ready(1, (0.0, 0), 0, 0)
    async with opened() as storage:
        assert (await storage.journal.recover()).poisoned == ()
        storage.journal.start(at_fault, NOW, begun=True)
        await storage.window.ready(1, (0.0, 0), 0, 0)

    async with opened() as storage:
        recovery = await storage.journal.recover()

        assert [
            (invocation.key, invocation.crash_count, invocation.start_crashes) for invocation in recovery.poisoned
        ] == [(at_fault.key, 4, 3)]


async def test_a_start_finds_how_much_was_promised(opened: Opened) -> None:
    async with opened() as storage:
        await stored(storage, 1, payload=b"12345")
        await stored(storage, 1, payload=b"123", delayed=True)
        await started(storage, 2, payload=b"12")
        await ended(storage, 3)
        gone = await stored(storage, 4)
        await storage.journal.end_all([gone.key], CANCELLED)

    async with opened() as storage:
        backlog = (await storage.journal.recover()).backlog
        assert {f: sums for f, sums in backlog.items() if f and sums[0]} == {1: (2, 8), 2: (1, 2)}


async def test_a_start_finds_how_much_is_kept_of_what_ended(opened: Opened) -> None:
    async with opened() as storage:
        invocation = await started(storage, payload=b"12")
        again = await retried(storage, invocation, failure(invocation, result=b"1234567"))
        await storage.journal.end_all([again.key], CANCELLED)
        two = await started(storage, payload=b"123")
        await settled(storage, two, success(two, result=b"1", log=b"1"))

    async with opened() as storage:
        assert (await storage.journal.recover()).backlog[0] == (2, (2 + 7) + (3 + 1 + 1))


async def test_a_start_finds_the_functions_with_ready_rows_and_the_next_due_time(opened: Opened) -> None:
    async with opened() as storage:
        await stored(storage, 9)
        await stored(storage, 2)
        await ended(storage, 3)
        late = await stored(storage, 4, delayed=True, due_at=NOW + 500)
        await stored(storage, 4, delayed=True, due_at=NOW + 900)

    async with opened() as storage:
        recovery = await storage.journal.recover()
        assert (recovery.waiting, recovery.next_due) == (frozenset({2, 9}), late.due_at)
