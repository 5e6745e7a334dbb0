"""Contract of journals: append, start, settle, cancel and recover."""

from __future__ import annotations

import asyncio

import pytest

from engine.errors import IdempotencyConflict
from engine.model import Code, Invocation, Outcome, State
from engine.model.retry import HISTORY
from engine.protocols import Discarded
from engine.scheduling.function_queue import BEGINNING
from tests.contracts.storage import (
    NOW,
    ROOM,
    Seams,
    Storage,
    cancelled,
    discarded,
    ended,
    failure,
    made,
    retried,
    settled,
    started,
    stored,
    success,
)


async def state_of(seams: Seams, invocation: Invocation) -> State:
    record = await seams.records.get(invocation.key)
    assert record is not None
    return record.state


# --- appending ----------------------------------------------------------------------------------------------


async def test_what_was_appended_waits_as_it_was_asked_for(storage: Storage) -> None:
    async with storage() as seams:
        one = made(
            seams,
            7,
            version="v1",
            alias="live",
            source="OBS",
            payload=b'{"a":1}',
            priority=3,
            rank=5.0,
            hops=2,
            memory=256,
        )
        request_id = await seams.journal.append(one)

        assert request_id == one.request_id
        assert (await seams.journal.ready(7, (float("-inf"), 0), 10, 1 << 20)).invocations == (one,)


async def test_the_callback_hears_of_the_row_before_the_caller_does(storage: Storage) -> None:
    async with storage() as seams:
        heard: list[tuple[int, bool]] = []
        one = made(seams)
        await seams.journal.append(one, then=lambda i, fresh: heard.append((i.key, fresh)))

        assert heard == [(one.key, True)]


async def test_a_caller_who_goes_away_leaves_a_whole_row_and_a_callback(storage: Storage) -> None:
    async with storage() as seams:
        heard: list[bool] = []
        one = made(seams)
        waiting = asyncio.ensure_future(seams.journal.append(one, then=lambda _, fresh: heard.append(fresh)))
        waiting.cancel()
        await stored(seams)

        assert heard == [True]
        assert await state_of(seams, one) is State.WAIT


async def test_a_token_used_again_gives_the_first_id_and_stores_nothing(storage: Storage) -> None:
    async with storage() as seams:
        first, again = made(seams, at=NOW), made(seams, at=NOW + 99)
        fresh: list[bool] = []
        await seams.journal.append(first, idempotency_key="t")
        request_id = await seams.journal.append(again, idempotency_key="t", then=lambda _, stored: fresh.append(stored))

        assert request_id == first.request_id
        assert fresh == [False]
        assert await seams.records.get(again.key) is None


async def test_two_requests_with_one_token_in_one_breath_are_one_row(storage: Storage) -> None:
    async with storage() as seams:
        one, other = made(seams, at=NOW), made(seams, at=NOW)
        ids = await asyncio.gather(
            seams.journal.append(one, idempotency_key="t"), seams.journal.append(other, idempotency_key="t")
        )

        assert list(ids) == [one.request_id, one.request_id]


async def test_a_token_with_another_payload_is_a_conflict(storage: Storage) -> None:
    async with storage() as seams:
        await seams.journal.append(made(seams, at=NOW, payload=b"1"), idempotency_key="t")
        fresh: list[bool] = []

        with pytest.raises(IdempotencyConflict):
            await seams.journal.append(
                made(seams, at=NOW, payload=b"2"), idempotency_key="t", then=lambda _, stored: fresh.append(stored)
            )
        assert fresh == [False]


async def test_a_token_belongs_to_one_function(storage: Storage) -> None:
    async with storage() as seams:
        one, other = made(seams, 1, at=NOW), made(seams, 2, at=NOW)
        await seams.journal.append(one, idempotency_key="t")

        assert await seams.journal.append(other, idempotency_key="t") == other.request_id


async def test_a_token_is_free_again_after_its_retention(storage: Storage) -> None:
    async with storage() as seams:
        await seams.journal.append(made(seams, at=NOW), idempotency_key="t")
        late = made(seams, at=NOW + 101)

        assert await seams.journal.append(late, idempotency_key="t") == late.request_id


async def test_the_retention_of_a_token_is_told_by_the_clock_also_after_it_was_set_back(storage: Storage) -> None:
    async with storage() as seams:
        ahead = made(seams, at=NOW + 10_000)
        await seams.journal.append(ahead, idempotency_key="ahead")
        await seams.journal.append(made(seams, at=NOW + 20_000))
        await seams.journal.append(
            made(seams, at=NOW), idempotency_key="t"
        )  # keys grow even when the clock is set back

        late = made(seams, at=NOW + 101)
        assert await seams.journal.append(late, idempotency_key="t") == late.request_id
        assert await seams.journal.append(made(seams, at=NOW + 10_000), idempotency_key="ahead") == ahead.request_id


async def test_a_token_outlives_the_engine(storage: Storage) -> None:
    async with storage() as seams:
        first = made(seams, at=NOW)
        await seams.journal.append(first, idempotency_key="t")

    async with storage() as seams:
        assert await seams.journal.append(made(seams, at=NOW + 1), idempotency_key="t") == first.request_id


# --- end of an attempt ----------------------------------------------------------------------------------


async def test_a_first_success_has_its_result_and_no_history(storage: Storage) -> None:
    async with storage() as seams:
        one = await started(seams)
        await settled(seams, one, success(one, result=b'"yes"', log=b"said"))

        record = await seams.records.get(one.key)
        assert record is not None
        assert (record.state, record.result, record.log, record.attempts) == (State.SUCCESS, b'"yes"', b"said", ())
        assert (record.started_at, record.ended_at) == (one.due_at, one.due_at + 1)


async def test_a_start_and_its_end_in_one_breath_are_an_end(storage: Storage) -> None:
    async with storage() as seams:
        one = await stored(seams)
        seams.journal.start(one, one.due_at)
        await settled(seams, one, success(one))

        record = await seams.records.get(one.key)
        assert record is not None
        assert (record.state, record.attempt, record.started_at) == (State.SUCCESS, 1, one.due_at)


async def test_a_failure_leaves_its_error_and_an_attempt(storage: Storage) -> None:
    async with storage() as seams:
        one = await started(seams)
        await settled(seams, one, failure(one))

        record = await seams.records.get(one.key)
        assert record is not None
        assert (record.state, record.code, record.message) == (State.FAIL, Code.USER_EXCEPTION, "no")
        assert [(a.attempt, a.code) for a in record.attempts] == [(1, Code.USER_EXCEPTION)]


async def test_a_retry_waits_until_it_is_due(storage: Storage) -> None:
    async with storage() as seams:
        one = await started(seams)
        again = await retried(seams, one, failure(one))

        record = await seams.records.get(one.key)
        assert record is not None
        assert (record.state, record.attempt, record.due_at) == (State.WAIT, 2, again.due_at)
        assert (await seams.journal.ready(1, (float("-inf"), 0), 10, 1 << 20)).invocations == ()


async def test_a_retry_remembers_how_often_the_function_failed(storage: Storage) -> None:
    async with storage() as seams:
        one = await started(seams)
        again = await retried(seams, one, failure(one))
        [due], _ = await seams.journal.promote(again.due_at, 10, ROOM)

        assert (due.attempt, due.failures, due.rank, due.first_due_at) == (2, 1, again.rank, one.first_due_at)


async def test_of_an_invocation_that_is_tried_again_and_again_the_newest_attempts_are_kept(storage: Storage) -> None:
    async with storage() as seams:
        one = await started(seams)
        for _ in range(HISTORY + 5):
            one = await retried(seams, one, failure(one, code=Code.ENGINE))

        record = await seams.records.get(one.key)
        assert record is not None
        assert [a.attempt for a in record.attempts] == list(range(6, HISTORY + 6))


async def test_a_silent_success_keeps_nothing_of_the_failure_before(storage: Storage) -> None:
    async with storage() as seams:
        one = await started(seams)
        again = await retried(seams, one, failure(one))
        await seams.journal.promote(again.due_at, 10, ROOM)
        seams.journal.start(again, again.due_at)
        await settled(seams, again, success(again))

        record = await seams.records.get(one.key)
        assert record is not None
        assert (record.state, record.code, record.message, record.result) == (State.SUCCESS, 0, "", b"")
        assert [a.code for a in record.attempts] == [Code.USER_EXCEPTION, Code.OK]


async def test_what_never_ran_has_no_start_and_no_attempt(storage: Storage) -> None:
    async with storage() as seams:
        one = await stored(seams)
        await settled(seams, one, failure(one, code=Code.EXPIRED), state=State.DISCARD, ran=False)

        record = await seams.records.get(one.key)
        assert record is not None
        assert (record.state, record.started_at, record.attempts) == (State.DISCARD, None, ())


# --- cancelling ---------------------------------------------------------------------------------------------


async def test_a_waiting_one_is_cancelled_once(storage: Storage) -> None:
    async with storage() as seams:
        one = await stored(seams, 5, payload=b"1234")

        assert await seams.journal.cancel(one.key, cancelled()) == (5, 4)
        assert await seams.journal.cancel(one.key, cancelled()) is None
        assert await state_of(seams, one) is State.FAIL


async def test_what_waits_for_a_function_is_discarded_step_by_step(storage: Storage) -> None:
    async with storage() as seams:
        waits = [await stored(seams, 5), await stored(seams, 5), await stored(seams, 5, delayed=True)]
        others = [await stored(seams, 6), await stored(seams, 6, delayed=True, due_at=NOW), await started(seams, 5)]
        over = await ended(seams, 5)

        steps, after = list[Discarded](), BEGINNING
        while not steps or steps[-1].reached is not None:
            after = (steps[-1].reached if steps else None) or after
            steps.append(await seams.journal.discard(5, after, 2, discarded()))

        assert sorted(key for step in steps for key in step.keys) == sorted(one.key for one in waits)
        assert max(len(step.keys) for step in steps) <= 3
        assert sum(step.size for step in steps) == sum(len(one.payload) for one in waits)
        assert {await state_of(seams, one) for one in waits} == {State.DISCARD}
        assert [await state_of(seams, one) for one in others] == [State.WAIT, State.WAIT, State.RUNNING]
        assert await state_of(seams, over) is State.SUCCESS


async def test_what_was_discarded_counts_as_ended(storage: Storage) -> None:
    async with storage() as seams:
        await seams.journal.append(made(seams, 5, payload=b"12345678"))
        await retried(seams, await started(seams, 5), Outcome(code=Code.USER_EXCEPTION, result=b"oops", ended_at=NOW))
        await seams.journal.discard(5, BEGINNING, 10, discarded())

    async with storage() as seams:
        recovery = await seams.journal.recover()

        assert (recovery.backlog.get(5, (0, 0)), recovery.waiting, recovery.next_due) == ((0, 0), frozenset(), None)


async def test_a_delayed_one_is_cancelled_and_never_due(storage: Storage) -> None:
    async with storage() as seams:
        one = await stored(seams, delayed=True)
        await seams.journal.cancel(one.key, cancelled())

        assert await seams.journal.promote(one.due_at + 1, 10, ROOM) == ((), None)


async def test_a_running_one_is_not_cancelled_here(storage: Storage) -> None:
    async with storage() as seams:
        one = await started(seams)

        assert await seams.journal.cancel(one.key, cancelled()) is None
        assert await state_of(seams, one) is State.RUNNING


async def test_a_cancel_is_decided_also_for_a_caller_who_went_away(storage: Storage) -> None:
    async with storage() as seams:
        one = await stored(seams)
        heard: list[object] = []
        waiting = asyncio.ensure_future(
            seams.journal.cancel(one.key, cancelled(), then=lambda *decided: heard.append(decided))
        )
        waiting.cancel()
        await stored(seams)

        assert heard == [(one.key, (1, 2), True)]


# --- restart ----------------------------------------------------------------------------


async def test_what_is_released_waits_without_having_died(storage: Storage) -> None:
    async with storage() as seams:
        one = await started(seams)
        await seams.journal.release([one])

    async with storage() as seams:
        recovery = await seams.journal.recover()
        [waiting] = (await seams.journal.ready(1, (float("-inf"), 0), 10, 1 << 20)).invocations
        assert (recovery.revived, recovery.waiting, waiting.crash_count) == (0, frozenset({1}), 0)


async def test_what_was_running_waits_again_with_one_death_more(storage: Storage) -> None:
    async with storage() as seams:
        await started(seams)

    async with storage() as seams:
        recovery = await seams.journal.recover()
        [waiting] = (await seams.journal.ready(1, (float("-inf"), 0), 10, 1 << 20)).invocations
        assert (recovery.revived, waiting.crash_count, waiting.attempt) == (1, 1, 1)


async def test_a_retry_that_was_running_waits_again_at_once(storage: Storage) -> None:
    async with storage() as seams:
        one = await started(seams)
        again = await retried(seams, one, failure(one))
        await seams.journal.promote(again.due_at, 10, ROOM)
        seams.journal.start(again, again.due_at)

    async with storage() as seams:
        recovery = await seams.journal.recover()
        assert (recovery.waiting, recovery.next_due) == (frozenset({1}), None)


async def test_a_fourth_death_condemns_and_the_others_live(storage: Storage) -> None:
    async with storage() as seams:
        at_fault = await started(seams)
    for _ in range(3):
        async with storage() as seams:
            assert (await seams.journal.recover()).poisoned == ()
            seams.journal.start(at_fault, NOW)
            innocent = await started(seams)

    async with storage() as seams:
        recovery = await seams.journal.recover()

        assert [(one.key, one.crash_count) for one in recovery.poisoned] == [(at_fault.key, 3)]
        assert await state_of(seams, at_fault) is State.RUNNING
        assert await state_of(seams, innocent) is State.WAIT


async def test_a_start_finds_how_much_was_promised(storage: Storage) -> None:
    async with storage() as seams:
        await stored(seams, 1, payload=b"12345")
        await stored(seams, 1, payload=b"123", delayed=True)
        await started(seams, 2, payload=b"12")
        await ended(seams, 3)
        gone = await stored(seams, 4)
        await seams.journal.cancel(gone.key, cancelled())

    async with storage() as seams:
        backlog = (await seams.journal.recover()).backlog
        assert {f: sums for f, sums in backlog.items() if f and sums[0]} == {1: (2, 8), 2: (1, 2)}


async def test_a_start_finds_how_much_is_kept_of_what_ended(storage: Storage) -> None:
    async with storage() as seams:
        one = await started(seams, payload=b"12")
        again = await retried(seams, one, failure(one, result=b"1234567"))
        await seams.journal.cancel(again.key, cancelled())
        two = await started(seams, payload=b"123")
        await settled(seams, two, success(two, result=b"1", log=b"1"))

    async with storage() as seams:
        assert (await seams.journal.recover()).backlog[0] == (2, (2 + 7) + (3 + 1 + 1))


async def test_a_start_finds_the_functions_with_ready_rows_and_the_next_due_time(storage: Storage) -> None:
    async with storage() as seams:
        await stored(seams, 9)
        await stored(seams, 2)
        await ended(seams, 3)
        late = await stored(seams, 4, delayed=True, due_at=NOW + 500)
        await stored(seams, 4, delayed=True, due_at=NOW + 900)

    async with storage() as seams:
        recovery = await seams.journal.recover()
        assert (recovery.waiting, recovery.next_due) == (frozenset({2, 9}), late.due_at)
