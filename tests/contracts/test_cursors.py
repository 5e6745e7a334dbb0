"""Contract of cursor stores: a cursor advances in one transaction with the requests made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from engine.errors import CursorMoved, IdempotencyConflict
from engine.model import ContentKey, Invocation
from engine.protocols import CursorMove, Storage, StoredResource
from tests.support.storages import Opened, made, ready_of

OWNER = "function:1"


async def put_trigger(storage: Storage, generation: int = 1) -> None:
    body = msgspec.json.encode({"id": "t", "generation": generation})
    await storage.resources.put(StoredResource(kind="trigger", owner=OWNER, id="t", body=body))


def step(positions: Mapping[str, bytes], expected: Mapping[str, bytes | None], generation: int = 1) -> CursorMove:
    return CursorMove(trigger_id="t", owner=OWNER, generation=generation, expected=expected, positions=positions)


async def appended(storage: Storage, *requests: tuple[Invocation, str], move: CursorMove | None = None) -> Any:
    told: list[bool] = []

    def tell(done: Sequence[Invocation], _: Sequence[Invocation]) -> None:
        told.extend(invocation in done for invocation, _ in requests)

    try:
        ids = await storage.cursors.append(requests, move, then=tell)
    except CursorMoved:
        ids = "moved"
    return ids, told


async def test_requests_and_cursor_are_stored_together(opened: Opened) -> None:
    async with opened() as storage:
        await put_trigger(storage)
        one, two = made(storage, payload=b"12"), made(storage, payload=b"345")
        ids, told = await appended(storage, (one, ""), (two, ""), move=step({"0": b"7"}, {"0": None}))

    async with opened() as storage:
        assert (ids, told) == ([one.request_id, two.request_id], [True, True])
        assert await storage.cursors.read("t") == {"0": b"7"}
        assert (await storage.journal.recover()).backlog[1] == (2, 5)


async def test_requests_of_a_batch_keep_their_trace_contexts(opened: Opened) -> None:
    async with opened() as storage:
        await appended(storage, (made(storage, trace="t"), ""), (made(storage), ""))

    async with opened() as storage:
        assert [invocation.trace for invocation in await ready_of(storage)] == ["t", ""]


@pytest.mark.parametrize(
    "move",
    [step({"0": b"9"}, {"0": b"6"}), step({"0": b"9"}, {"0": None}), step({"0": b"9"}, {"0": b"7"}, generation=2)],
    ids=["another position", "a first one", "another generation"],
)
async def test_nothing_is_stored_when_the_cursor_has_moved(storage: Storage, move: CursorMove) -> None:
    await put_trigger(storage)
    await appended(storage, move=step({"0": b"7"}, {"0": None}))

    ids, told = await appended(storage, (made(storage), ""), (made(storage), "key"), move=move)

    assert (ids, told) == ("moved", [False, False])
    assert await storage.cursors.read("t") == {"0": b"7"}
    assert (await storage.journal.recover()).backlog == {}


async def test_a_key_with_content_is_repeated_by_content_and_otherwise_refuses_the_batch(opened: Opened) -> None:
    async with opened() as storage:
        first, again = made(storage, payload=b"1"), made(storage, payload=b"2")
        others = made(storage, payload=b"3"), made(storage, payload=b"1")
        ids = [await appended(storage, (invocation, ContentKey("key", b"paid"))) for invocation in (first, again)]
        with pytest.raises(IdempotencyConflict, match="key"):
            await appended(storage, (others[0], ""), (others[1], ContentKey("key", b"lost")))

    async with opened() as storage:
        assert ids == [([first.request_id], [True]), ([first.request_id], [False])]
        assert (await storage.journal.recover()).backlog[1] == (1, 1)


async def test_a_refused_step_leaves_its_neighbours_in_the_commit_alone(storage: Storage) -> None:
    await put_trigger(storage)
    before, after = made(storage), made(storage)
    futures = [
        storage.journal.append(before),
        storage.cursors.append([(made(storage), "")], step({"0": b"1"}, {"0": b"?"})),
        storage.journal.append(after),
    ]

    with pytest.raises(CursorMoved):
        await futures[1]
    assert [await futures[0], await futures[2]] == [before.request_id, after.request_id]
    assert (await storage.journal.recover()).backlog[1][0] == 2


async def test_a_duplicate_gives_the_earlier_id_and_a_key_used_otherwise_none(storage: Storage) -> None:
    invocation = made(storage, payload=b"1")
    await appended(storage, (invocation, "key"))
    fresh = made(storage, payload=b"3")

    ids, told = await appended(
        storage, (made(storage, payload=b"1"), "key"), (made(storage, payload=b"2"), "key"), (fresh, "other")
    )

    assert ids == [invocation.request_id, "", fresh.request_id]
    assert told == [False, False, True]


async def test_each_partition_has_its_own_cursor(storage: Storage) -> None:
    await put_trigger(storage)
    await appended(storage, move=step({"0": b"a", "1": b"b"}, {}))
    await appended(storage, move=step({"1": b"c"}, {"1": b"b"}))

    assert await storage.cursors.read("t") == {"0": b"a", "1": b"c"}


async def test_a_changed_trigger_keeps_its_cursors_and_a_deleted_one_takes_them_along(storage: Storage) -> None:
    await put_trigger(storage)
    await appended(storage, move=step({"0": b"a"}, {"0": None}))
    await put_trigger(storage, generation=2)
    kept = await storage.cursors.read("t")
    await storage.resources.delete("trigger", OWNER, "t")

    assert (kept, await storage.cursors.read("t")) == ({"0": b"a"}, {})
    assert await appended(storage, move=step({"0": b"b"}, {})) == ("moved", [])
