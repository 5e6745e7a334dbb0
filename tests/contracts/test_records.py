"""Contract of record stores: lists, searches, complete records, purging, and numbers of waiting invocations."""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import Any

from engine.model import Invocation, Outcome, State
from engine.protocols import FIRST, Count, Place, Queued, Selection, Standing, Storage, WaitingEnd
from tests.support.storages import (
    NOW,
    SINK,
    Opened,
    cancelled,
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

AGE, MANY, YEARS = 1000.0, 10_000_000, 73 * 365.25 * 86_400


async def listed(storage: Storage, **selection: Any) -> list[int]:
    records, _ = await storage.records.list(Selection(**{"function_id": 1, **selection}))
    return [record.key for record in records]


async def purge(storage: Storage, now: float, *, rows: int = MANY, size: int = MANY) -> list[str]:
    purged: list[str] = []
    more = True
    while more:
        step = await storage.records.purge(now, age=AGE, rows=rows, size=size)
        purged += step.request_ids
        more = step.more
    return purged


# --- reading ------------------------------------------------------------------------------------------------


async def test_running_records_come_first_then_waiting_delayed_and_ended_ones_newest_first(storage: Storage) -> None:
    old, new = await ended(storage), await ended(storage)
    delayed = await stored(storage, delayed=True)
    second, first = await stored(storage, rank=9.0), await stored(storage, rank=1.0)
    running = await started(storage)

    assert await listed(storage) == [invocation.key for invocation in (running, first, second, delayed, new, old)]


async def test_a_list_holds_one_function_only(storage: Storage) -> None:
    invocation = await stored(storage, 1)
    await stored(storage, 2)

    assert await listed(storage) == [invocation.key]


async def test_states_can_be_chosen(storage: Storage) -> None:
    good, waiting = await ended(storage), await stored(storage)
    bad = await started(storage)
    await settled(storage, bad, failure(bad))

    assert await listed(storage, states=frozenset({State.FAIL})) == [bad.key]
    assert await listed(storage, states=frozenset({State.WAIT, State.SUCCESS})) == [waiting.key, good.key]


async def test_versions_and_aliases_can_be_chosen(storage: Storage) -> None:
    plain, called = await stored(storage, version="v1"), await stored(storage, version="v2", alias="prod")

    assert await listed(storage, version="v1") == [plain.key]
    assert await listed(storage, alias="prod") == [called.key]
    assert await listed(storage, version="v1", alias="prod") == []


async def test_keys_can_be_chosen(storage: Storage) -> None:
    invocation = await stored(storage)
    await stored(storage)

    assert await listed(storage, keys=frozenset({invocation.key, 99})) == [invocation.key]


async def test_a_span_of_acceptance_holds_its_begin_and_not_its_end(storage: Storage) -> None:
    one, two, three = [await stored(storage, at=NOW + n) for n in (1, 2, 3)]

    assert await listed(storage, begin=NOW + 2, end=NOW + 3) == [two.key]
    assert await listed(storage, begin=NOW + 3) == [three.key]
    assert await listed(storage, end=NOW + 2) == [one.key]


async def test_keys_below_a_key_can_be_chosen(storage: Storage) -> None:
    one, two, three = [await ended(storage) for _ in range(3)]

    assert await listed(storage, below=three.key) == [two.key, one.key]
    assert await listed(storage, below=one.key) == []


async def test_pages_join_over_all_parts_and_the_count_is_of_all(storage: Storage) -> None:
    for _ in range(2):
        await ended(storage)
        await stored(storage)
        await started(storage)
    whole = await listed(storage)

    pages = [await listed(storage, offset=n, limit=4) for n in (0, 4, 8)]
    _, total = await storage.records.list(Selection(function_id=1, offset=5, limit=1))

    assert pages == [whole[:4], whole[4:], []]
    assert total == 6


async def test_records_of_several_functions_come_newest_first_in_any_state(storage: Storage) -> None:
    running, old, other = await started(storage), await ended(storage, 2), await ended(storage, 3)
    delayed, new = await stored(storage, 2, delayed=True), await ended(storage)
    both = frozenset({1, 2})

    assert await listed(storage, functions=both) == [invocation.key for invocation in (new, delayed, old, running)]
    assert await listed(storage, functions=both, states=frozenset({State.WAIT})) == [delayed.key]
    assert await listed(storage, functions=both, states=frozenset({State.RUNNING})) == [running.key]
    assert await listed(storage, functions=frozenset({3})) == [other.key]


async def test_a_record_that_changes_its_state_meanwhile_is_listed_exactly_once(storage: Storage) -> None:
    rows = [await stored(storage) for _ in range(60)]
    moved = asyncio.ensure_future(move_all(storage, rows))
    lists = []
    while not moved.done():
        lists.append(await listed(storage))
        await asyncio.sleep(0)
    await moved

    assert [(len(keys), len(set(keys))) for keys in lists] == [(60, 60)] * len(lists)


async def move_all(storage: Storage, rows: list[Invocation]) -> None:
    """Start and settle the invocations one after another."""
    for invocation in rows:
        storage.journal.start(invocation, invocation.due_at)
        await storage.window.ready(1, (0.0, 0), 0, 0)  # waits for the commit
        await settled(storage, invocation, success(invocation))


async def test_a_list_leaves_out_what_is_large(storage: Storage) -> None:
    invocation = await started(storage, payload=b'"large"')
    await settled(storage, invocation, success(invocation, result=b"1", log=b"2"))
    [record], _ = await storage.records.list(Selection(function_id=1))

    assert (record.payload, record.result, record.log) == (b"", b"", b"")


async def test_a_whole_record_has_the_fields_of_its_request(storage: Storage) -> None:
    invocation = await stored(
        storage, version="v1", alias="live", source="OBS", priority=4, payload=b"[1]", hops=3, trace="t",
        trigger_id="timer-1", cause=7,
    )  # fmt: skip
    record = await record_of(storage, invocation)
    assert (record.request_id, record.version, record.alias) == (invocation.request_id, "v1", "live")
    assert (record.source, record.priority, record.payload, record.hops) == ("OBS", 4, b"[1]", 3)
    assert (record.trace, record.trigger_id, record.cause) == ("t", "timer-1", 7)


@on_sqlite
async def test_invocations_of_one_trigger_can_be_chosen(storage: Storage) -> None:
    one, two = [await stored(storage, source="TIMER", trigger_id=name) for name in ("one", "two")]
    await stored(storage, source="TIMER")
    done = await ended(storage, source="TIMER", trigger_id="one")
    selection = Selection(function_id=1, trigger_id="one")

    assert await listed(storage, trigger_id="one") == [one.key, done.key]
    assert [record.key for record in (await storage.records.search(selection, None, 9)).records] == [
        one.key,
        done.key,
    ]
    assert (await storage.records.waiting(selection, FIRST, 9)).keys == (one.key,)
    assert await listed(storage, trigger_id="two") == [two.key]


@on_sqlite
async def test_the_newest_logs_of_a_function_are_read_together(storage: Storage) -> None:
    for number in range(3):
        invocation = await started(storage)
        await settled(storage, invocation, success(invocation, log=b"%013d o %d\n" % (1000, number)))
    first, second, third = [await started(storage) for _ in range(3)]
    failed = await started(storage, 2)
    await settled(storage, failed, failure(failed, log=b"of another"))
    again = await retried(storage, first, failure(first, log=b"one"))
    storage.journal.start(again, again.due_at)
    await settled(storage, again, success(again, log=b"two"))
    await stored(storage)

    logs = await storage.records.newest_logs(1, 2)
    assert [(log.key, log.attempt, log.log[-3:]) for log in logs] == [
        (second.key, 1, b""),
        (third.key, 1, b""),
        (first.key, 2, b"two"),
        (invocation.key, 1, b" 2\n"),
    ]
    assert await storage.records.newest_logs(3, 2) == []


@on_sqlite
async def test_invocations_are_found_by_their_cause(storage: Storage) -> None:
    cause = await ended(storage, deliver_to=SINK)
    [pending], _ = await storage.outbox.due(NOW + YEARS, 9, 9)
    child, again = made(storage, 2, source="FunctionGraph", cause=cause.key), made(storage, cause=cause.key)
    await storage.outbox.delivered(pending, append=child)
    await storage.journal.append(again, idempotency_key="redrive:1")
    await stored(storage, cause=again.key)

    caused = await storage.records.caused_by(cause.key, 9)
    assert [(record.key, record.source) for record in caused] == [(child.key, "FunctionGraph"), (again.key, "API")]
    assert [record.key for record in await storage.records.caused_by(cause.key, 1)] == [child.key]
    assert await storage.records.caused_by(child.key, 9) == []


# --- purging ------------------------------------------------------------------------------------------------


async def test_records_beyond_the_age_are_purged_and_the_rest_stays(storage: Storage) -> None:
    old, young = await ended(storage, at=NOW), await ended(storage, at=NOW + 500)

    assert await purge(storage, NOW + AGE + 1) == [old.request_id]
    assert await storage.records.get(old.key) is None
    assert await storage.records.get(young.key) is not None


async def test_age_counts_from_the_end(storage: Storage) -> None:
    invocation = await started(storage, at=NOW, due_at=NOW + 500)
    await settled(storage, invocation, success(invocation))

    assert await purge(storage, NOW + AGE + 100) == []
    assert await purge(storage, NOW + AGE + 501) == [invocation.request_id]


async def test_an_invocation_that_has_not_ended_is_never_purged(storage: Storage) -> None:
    await stored(storage, at=NOW)
    await started(storage, at=NOW)
    await stored(storage, at=NOW, delayed=True)

    assert await purge(storage, NOW + 10 * AGE, rows=1, size=1) == []


async def test_a_record_with_a_pending_delivery_is_not_purged(storage: Storage) -> None:
    invocation = await ended(storage, at=NOW, deliver_to=SINK)
    assert await purge(storage, NOW + 2 * AGE) == []
    [pending], _ = await storage.outbox.due(NOW + 2 * AGE, 10, 10)

    await storage.outbox.delivered(pending)

    assert await purge(storage, NOW + 2 * AGE) == [invocation.request_id]


@on_sqlite
async def test_a_given_up_delivery_is_purged_with_its_invocation(storage: Storage) -> None:
    invocation = await ended(storage, at=NOW, deliver_to=SINK)
    [pending], _ = await storage.outbox.due(NOW + AGE, 10, 10)
    await storage.outbox.postpone(pending, None, "no")

    assert await purge(storage, NOW + 2 * AGE) == [invocation.request_id]
    assert await storage.outbox.deliveries_of(invocation.key) == []
    assert await storage.outbox.given_up([1], 0, 10) == ([], 0)


async def test_beyond_the_cap_of_rows_the_oldest_go(storage: Storage) -> None:
    rows = [await ended(storage, at=NOW + n) for n in range(5)]

    assert await purge(storage, NOW + 10, rows=2) == [row.request_id for row in rows[:3]]


async def test_beyond_the_cap_of_bytes_the_oldest_go(storage: Storage) -> None:
    rows = []
    for n in range(5):
        invocation = await started(storage, at=NOW + n, payload=b"x" * 40)
        await settled(storage, invocation, success(invocation, result=b"y" * 60))
        rows.append(invocation)

    assert await purge(storage, NOW + 10, size=200) == [row.request_id for row in rows[:3]]
    assert (await storage.journal.recover()).backlog[0] == (2, 200)


async def test_records_ended_under_a_clock_far_ahead_are_purged_in_time_by_the_right_clock(opened: Opened) -> None:
    """Keys only grow, so that all invocations after the wrong clock have keys ahead of the right one, too."""
    async with opened() as storage:
        before = await ended(storage, at=NOW)
        wrong = await ended(storage, at=NOW + YEARS)
    async with opened() as storage:
        after = await stored(storage, at=NOW + 10)
        await settled(storage, after, success(after))
        assert after.key > wrong.key

        assert await purge(storage, NOW + 20) == []
        assert await purge(storage, NOW + 10 + AGE) == [before.request_id]
        gone = await purge(storage, NOW + 20 + AGE + 700)
        assert sorted(gone) == sorted([wrong.request_id, after.request_id])
        assert await listed(storage) == []


async def test_the_end_under_a_doubtful_clock_stays_until_the_clock_is_accepted_or_set_back(storage: Storage) -> None:
    invocation = await ended(storage, at=NOW + YEARS)
    for doubtful in (20, 30):
        await storage.records.purge(NOW + doubtful, age=AGE, rows=MANY, size=MANY, ahead=YEARS)

    assert await purge(storage, NOW + YEARS + AGE - 10) == []
    assert await purge(storage, NOW + YEARS + AGE + 10) == [invocation.request_id]


async def test_records_ended_under_a_clock_far_behind_are_kept_from_their_acceptance_on(storage: Storage) -> None:
    invocation = await started(storage, at=NOW)
    await settled(storage, invocation, Outcome(started_at=NOW - YEARS, ended_at=NOW - YEARS))

    assert await purge(storage, NOW + 10) == []
    assert await purge(storage, NOW + AGE - 10) == []
    assert await purge(storage, NOW + AGE + 10) == [invocation.request_id]


async def test_the_newest_record_before_a_time_is_found_among_later_ones(storage: Storage) -> None:
    assert await storage.records.newest(NOW + YEARS) is None
    await stored(storage, at=NOW)
    newest = await stored(storage, at=NOW + 10)
    await stored(storage, at=NOW + YEARS)

    assert await storage.records.newest(NOW + 20) == newest.accepted_at
    assert await storage.records.newest(NOW - 1) is None


async def test_a_clock_before_all_engines_does_not_change_when_invocations_ended(storage: Storage) -> None:
    invocation = await ended(storage, at=NOW)

    assert await purge(storage, 1000.0) == []
    assert await purge(storage, NOW + AGE - 10) == []
    assert await purge(storage, NOW + AGE + 10) == [invocation.request_id]


async def test_a_purge_returns_when_the_next_record_will_be_too_old(storage: Storage) -> None:
    invocation = await ended(storage, at=NOW)
    step = await storage.records.purge(NOW + 10, age=AGE, rows=MANY, size=MANY)

    assert step.next_due is not None
    assert abs(step.next_due - (invocation.due_at + 1 + AGE)) <= 1.0


async def test_a_purge_returns_whether_more_is_kept_than_allowed(storage: Storage) -> None:
    await ended(storage, at=NOW, deliver_to=SINK)
    await ended(storage, at=NOW + 1)
    within = await storage.records.purge(NOW + 10, age=AGE, rows=1, size=MANY)
    beyond = await storage.records.purge(NOW + 10, age=AGE, rows=0, size=MANY)

    assert (within.over, beyond.over) == (False, True)


async def test_many_rows_are_purged_in_steps(storage: Storage) -> None:
    rows = [made(storage, at=NOW) for _ in range(450)]
    for invocation in rows:
        appended = storage.journal.append(invocation)
    await appended
    for invocation in rows:
        await storage.journal.end_all([invocation.key], WaitingEnd(state=State.FAIL, outcome=cancelled(NOW)))

    assert sorted(await purge(storage, NOW + AGE + 1)) == sorted(row.request_id for row in rows)


# --- numbers of waiting invocations --------------------------------------------------------------------------


@on_sqlite
async def test_waiting_invocations_are_counted_by_function_and_kind(storage: Storage) -> None:
    later, first = await stored(storage, rank=5.0), await stored(storage, rank=-60.0, due_at=NOW - 3)
    await stored(storage, delayed=True, due_at=NOW + 20)
    await stored(storage, delayed=True, due_at=NOW + 10)
    await stored(storage, 2, ordering_key="a")
    await stored(storage, 2, ordering_key="a")
    await ended(storage)
    await started(storage)

    queued = await storage.records.queued([1, 2, 3], 100)

    assert queued[1] == Queued(ready=2, first=first.key, first_due=NOW - 3, next_due=NOW + 10)
    assert (queued[2].ready, queued[2].held, queued[2].next_due) == (1, 1, None)
    assert queued[3] == Queued()
    assert later.key != first.key


@on_sqlite
async def test_counts_end_at_a_limit(storage: Storage) -> None:
    for due in (3, 1, 2):
        await stored(storage, rank=float(due), due_at=NOW)
        await stored(storage, 2, delayed=True, due_at=NOW + due)
    await stored(storage, delayed=True, due_at=NOW + 9)
    for _ in range(4):
        await stored(storage, 3, ordering_key="a")

    queued = await storage.records.queued([1, 2, 3], 2)

    assert (queued[1].ready, queued[1].next_due, queued[2].next_due, queued[3].held) == (2, None, NOW + 1, 2)


# --- places among waiting invocations ------------------------------------------------------------------------


async def test_ready_invocations_of_the_same_function_are_counted_up_to_a_limit(storage: Storage) -> None:
    one, two, three = [await stored(storage, rank=5.0) for _ in range(3)]
    first = await stored(storage, rank=-60.0)
    await stored(storage, 2, rank=-90.0)
    await stored(storage, delayed=True, due_at=NOW, rank=-90.0)
    await started(storage, rank=-90.0)

    places = [await storage.records.standing(key.key, 100) for key in (first, one, two, three)]
    assert [place.ahead for place in places] == [0, 1, 2, 3]
    assert await storage.records.standing(three.key, 2) == Standing(ahead=2)


async def test_only_ready_invocations_have_a_place(storage: Storage) -> None:
    delayed = await stored(storage, delayed=True, due_at=NOW)
    done = await ended(storage)

    assert [await storage.records.standing(key, 9) for key in (delayed.key, done.key, 1)] == [Standing()] * 3


async def test_the_place_of_a_running_invocation_says_whether_its_handler_has_begun(storage: Storage) -> None:
    dispatched, begun = await started(storage, begun=False), await started(storage)

    assert await storage.records.standing(dispatched.key, 9) == Standing(begun=False)
    assert await storage.records.standing(begun.key, 9) == Standing(begun=True)


# --- searches ------------------------------------------------------------------------------------------------


async def failed(storage: Storage, message: str = "no", **fields: Any) -> Invocation:
    invocation = await started(storage, **fields)
    await settled(storage, invocation, failure(invocation, message=message))
    return invocation


async def filled(storage: Storage) -> None:
    """Store some invocations of two functions in each state."""
    for number in range(3):
        await ended(storage, 1)
        await failed(storage)
        await ended(storage, 2)
        await stored(storage, rank=NOW - number)
        await stored(storage, delayed=True, due_at=NOW + 1000 - number)
        await started(storage)
    await stored(storage, ordering_key="a")
    await stored(storage, ordering_key="a")


async def pages(storage: Storage, selection: Selection, limit: int) -> list[list[int]]:
    """Search to the end of the list, then back to its begin. Return the keys of each step forwards."""
    found, steps, start = list[list[int]](), list[tuple[Place | None, Place | None]](), None
    while True:
        step = await storage.records.search(selection, start, limit)
        assert len(step.records) <= limit
        found.append([record.key for record in step.records])
        steps.append((step.first, step.last))
        if not step.more:
            break
        start = step.last
    for position in range(len(steps) - 1, 0, -1):
        first = steps[position][0]
        assert first is not None
        step = await storage.records.search(selection, first, limit, back=True)
        assert [record.key for record in step.records] == found[position - 1]
        assert (step.first, step.last) == steps[position - 1]
        assert step.more is (position > 1)
    return found


@on_sqlite
async def test_steps_join_to_the_list_of_a_function_in_both_directions(storage: Storage) -> None:
    await filled(storage)
    whole, count = await storage.records.list(Selection(function_id=1))

    for limit in (1, 2, 5, 100):
        steps = await pages(storage, Selection(function_id=1), limit)
        assert list(chain(*steps)) == [record.key for record in whole]
        assert [len(page) for page in steps[:-1]] == [limit] * (len(steps) - 1)
    assert await storage.records.count(Selection(function_id=1), 100) == counted(count)


def counted(rows: int, *, more: bool = False) -> Any:
    return Count(rows=rows, more=more)


@on_sqlite
async def test_steps_join_to_the_list_of_several_functions(storage: Storage) -> None:
    await filled(storage)
    both = frozenset({1, 2})
    for states in ({State.WAIT}, {State.RUNNING}, {State.RUNNING, State.WAIT}, {State.FAIL}, set(State)):
        selection = Selection(functions=both, states=frozenset(states))
        whole, count = await storage.records.list(selection)

        assert list(chain(*await pages(storage, selection, 4))) == [record.key for record in whole]
        assert await storage.records.count(selection, 100) == counted(count)


@on_sqlite
async def test_a_search_finds_text_in_errors(storage: Storage) -> None:
    plain, wild = await failed(storage, "Disk is FULL"), await failed(storage, r"100% of c:\_temp <script>")
    await failed(storage, "no route")
    await ended(storage)

    async def found(text: str) -> list[int]:
        step = await storage.records.search(Selection(function_id=1, text=text), None, 10)
        return [record.key for record in step.records]

    assert await found("disk is full") == [plain.key]
    assert await found("0%") == await found("\\_") == await found("<SCRIPT>") == [wild.key]
    assert await found("%") == [wild.key]
    assert await found("_emp") == await found("'; DROP TABLE invocation; --") == []


@on_sqlite
async def test_a_search_returns_how_many_rows_it_has_read(storage: Storage) -> None:
    await failed(storage, "rare")
    for _ in range(5):
        await ended(storage)
    step = await storage.records.search(Selection(functions=frozenset({1}), text="rare"), None, 10)

    assert (len(step.records), step.read, step.more) == (1, 6, False)


@on_sqlite
async def test_keys_from_one_on_and_codes_can_be_chosen(storage: Storage) -> None:
    one, two = await failed(storage), await ended(storage)

    async def found(**fields: Any) -> list[int]:
        step = await storage.records.search(Selection(function_id=1, **fields), None, 10)
        assert await storage.records.count(Selection(function_id=1, **fields), 10) == counted(len(step.records))
        return [record.key for record in step.records]

    assert await found(since=two.key) == [two.key]
    assert await found(since=one.key, below=two.key) == [one.key]
    assert await found(without=frozenset({4002})) == [two.key]
    assert await found(codes=frozenset({4002})) == [one.key]


@on_sqlite
async def test_a_count_ends_at_its_limit(storage: Storage) -> None:
    for _ in range(4):
        await ended(storage)
    for selection in (Selection(function_id=1), Selection(functions=frozenset({1, 2}))):
        assert await storage.records.count(selection, 3) == counted(3, more=True)
        assert await storage.records.count(selection, 4) == counted(4)


@on_sqlite
async def test_of_nothing_a_search_finds_nothing(storage: Storage) -> None:
    step = await storage.records.search(Selection(function_id=1), None, 10)

    assert (step.records, step.first, step.last, step.more) == ((), None, None, False)
    assert await storage.records.count(Selection(function_id=1), 10) == counted(0)
