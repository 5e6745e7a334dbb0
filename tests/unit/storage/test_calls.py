"""Calls on disk: repeats of a parent, depth, unique calls, counts of groups, and pruning."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.errors import GroupConflict, InvalidField
from engine.model import Invocation, Outcome, State
from engine.protocols import Settlement
from engine.protocols.calls import CALL, GroupState, Membership, NewCall, NewGroup
from engine.storage.sqlite.database import SQLiteStorage
from tests.support.waiting import in_own_task
from tests.unit.storage.test_purge import DAY, NOW, purged_whole, storing


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SQLiteStorage]:
    async with in_own_task(storing(tmp_path)) as storage:
        yield storage


def made(storage: SQLiteStorage, **fields: Any) -> Invocation:
    key = storage.identity.next_key(NOW)
    fields = {"function_id": 1, "source": CALL, "payload": b"{}", **fields}
    return Invocation(key=key, request_id=storage.identity.request_id(key), **fields)


def call(storage: SQLiteStorage, steps: int = 1, **fields: Any) -> NewCall:
    invocations = tuple(made(storage, held=step > 0) for step in range(steps))
    return NewCall(project="p", invocations=invocations, expires=(None,) * steps, **fields)


async def queue(storage: SQLiteStorage, calls: Sequence[NewCall], **options: Any) -> list[Any]:
    stored: list[Invocation] = []
    options = {"most_depth": 3, **options}
    return list(await storage.calls.append(calls, then=lambda new, others: stored.extend(new), **options))


def end(storage: SQLiteStorage, invocation: Invocation, state: State = State.SUCCESS) -> None:
    outcome = Outcome(code=0 if state is State.SUCCESS else 4002, started_at=NOW, ended_at=NOW)
    storage.journal.settle(Settlement(invocation=invocation, state=state, outcome=outcome))


async def group_of(storage: SQLiteStorage, members: Sequence[NewCall], *, need_all: bool = True) -> int:
    group = NewGroup(key=storage.identity.next_key(NOW), project="p", need_all=need_all, created=NOW)
    key, _ = await storage.calls.create(group, most_depth=3, then=lambda new, others: None)

    await queue(storage, members, group=Membership(group=key, project="p", first=0))
    await storage.calls.seal(key, "p", len(members))
    return key


async def counts(storage: SQLiteStorage, key: int) -> tuple[int, int, GroupState]:
    await storage.records.purge(NOW, age=DAY, rows=1 << 30, size=1 << 40)  # behind all writes before
    group = await storage.calls.group(key)
    assert group is not None
    return group.done, group.failed, group.state


async def test_a_repeated_run_queues_nothing_twice_in_any_order(storage: SQLiteStorage) -> None:
    parent = made(storage)
    await storage.journal.append(parent)
    tokens = [b"%016d" % number for number in range(1000)]
    first = await queue(storage, [call(storage, token=token) for token in tokens], parent=parent.key)
    random.Random(3).shuffle(tokens)
    again = await queue(storage, [call(storage, token=token) for token in [b"new", *tokens]], parent=parent.key)

    assert (await storage.calls.links(parent.key)).children == 1001
    assert sorted(again[1:]) == sorted(first)


async def test_a_repeated_run_completes_its_group_in_any_order(storage: SQLiteStorage) -> None:
    parent = made(storage)
    await storage.journal.append(parent)
    group = NewGroup(key=storage.identity.next_key(NOW), project="p", need_all=True, created=NOW)
    key, _ = await storage.calls.create(group, most_depth=3, then=lambda new, others: None)
    tokens = [b"%016d" % number for number in range(20)]
    options = {"parent": parent.key, "group": Membership(group=key, project="p", first=0)}
    await queue(storage, [call(storage, token=token) for token in tokens[:10]], **options)
    random.Random(4).shuffle(tokens)
    await queue(storage, [call(storage, token=token) for token in tokens], **options)

    await storage.calls.seal(key, "p", 20)
    members, more = await storage.calls.members(key, -1, 100, 1 << 20)
    assert (len(members), more) == (20, False)


async def test_keys_of_a_parent_stay_until_it_has_ended(storage: SQLiteStorage) -> None:
    parent, child = made(storage), call(storage, token=b"t")
    await storage.journal.append(parent)
    [request_id] = await queue(storage, [child], parent=parent.key)
    end(storage, child.invocations[0])
    assert await purged_whole(storage, NOW + 2 * DAY) == 1

    assert await queue(storage, [call(storage, token=b"t")], parent=parent.key) == [request_id]
    end(storage, parent)
    assert await purged_whole(storage, NOW + 2 * DAY) == 1
    assert (await storage.calls.links(parent.key)).children == 0


async def test_calls_are_as_deep_as_allowed(storage: SQLiteStorage) -> None:
    parent = made(storage)
    await storage.journal.append(parent)
    for depth in range(3):
        child = call(storage, token=b"t")
        await queue(storage, [child], parent=parent.key)
        parent = child.invocations[0]
        assert depth < 3

    with pytest.raises(InvalidField, match="depth"):
        await queue(storage, [call(storage)], parent=parent.key)


async def test_an_end_counts_once_although_its_batch_is_written_again(storage: SQLiteStorage) -> None:
    member = call(storage)
    key = await group_of(storage, [member, call(storage)])
    end(storage, member.invocations[0])
    assert (await counts(storage, key))[0] == 1
    end(storage, member.invocations[0])

    assert await counts(storage, key) == (1, 0, GroupState.OPEN)


@pytest.mark.parametrize("need_all", [True, False])
async def test_the_last_end_or_the_first_failure_decides(storage: SQLiteStorage, need_all: bool) -> None:
    members = [call(storage) for _ in range(3)]
    key = await group_of(storage, members, need_all=need_all)
    end(storage, members[0].invocations[0], State.FAIL)
    assert await counts(storage, key) == (1, 1, GroupState.DECIDED if need_all else GroupState.OPEN)
    for member in members[1:]:
        end(storage, member.invocations[0])
    assert await counts(storage, key) == (3, 1, GroupState.DECIDED)


async def test_members_stay_until_their_group_has_ended(storage: SQLiteStorage) -> None:
    members = [call(storage) for _ in range(3)]
    key = await group_of(storage, members)
    for member in members:
        end(storage, member.invocations[0])
    assert await purged_whole(storage, NOW + 2 * DAY) == 0

    await storage.calls.end(key, GroupState.SUCCESS, "", NOW)
    assert await purged_whole(storage, NOW + 2 * DAY) == 3
    assert await storage.calls.group(key) is None


async def test_a_sealed_group_takes_no_further_members_and_answers_a_repeat_of_its_own(storage: SQLiteStorage) -> None:
    members = [call(storage) for _ in range(2)]
    key = await group_of(storage, members)

    with pytest.raises(GroupConflict, match="sealed with 2 members"):
        await queue(storage, [call(storage), call(storage)], group=Membership(group=key, project="p", first=1))
    repeated = await queue(storage, [call(storage)], group=Membership(group=key, project="p", first=1))

    assert repeated == [members[1].invocations[0].request_id]


async def test_a_group_that_is_not_sealed_and_a_call_that_expires_are_found(storage: SQLiteStorage) -> None:
    group = NewGroup(key=storage.identity.next_key(NOW), project="p", need_all=True, created=NOW)
    key, _ = await storage.calls.create(group, most_depth=3, then=lambda new, others: None)
    late = replace(call(storage), expires=(NOW + 5,))
    await queue(storage, [late])

    assert await storage.calls.abandon(NOW - 1) == NOW
    assert await storage.calls.abandon(NOW) is None
    assert await counts(storage, key) == (0, 0, GroupState.DECIDED)
    assert await storage.calls.expired(NOW, 9) == ([], NOW + 5)
    [expired], _ = await storage.calls.expired(NOW + 5, 9)
    assert expired.key == late.invocations[0].key
    await storage.calls.clear_expired(NOW + 5)
    assert await storage.calls.expired(NOW + 5, 9) == ([], None)
