"""Contract of cursor stores: a cursor advances in one transaction with the requests made from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from engine.errors import CursorMoved
from engine.model import Invocation
from engine.protocols import CursorMove, StoredResource
from tests.contracts.storage import Seams, Storage, made

OWNER = "function:1"


async def put_trigger(seams: Seams, generation: int = 1) -> None:
    body = msgspec.json.encode({"id": "t", "generation": generation})
    await seams.resources.put(StoredResource(kind="trigger", owner=OWNER, id="t", body=body))


def step(positions: Mapping[str, bytes], expected: Mapping[str, bytes | None], generation: int = 1) -> CursorMove:
    return CursorMove(trigger_id="t", owner=OWNER, generation=generation, expected=expected, positions=positions)


async def appended(seams: Seams, *requests: tuple[Invocation, str], move: CursorMove | None = None) -> Any:
    told: list[bool] = []
    try:
        ids = await seams.cursors.append(requests, move, then=lambda invocation, stored: told.append(stored))
    except CursorMoved:
        ids = "moved"
    return ids, told


async def test_requests_and_cursor_are_one_step(storage: Storage) -> None:
    async with storage() as seams:
        await put_trigger(seams)
        one, two = made(seams, payload=b"12"), made(seams, payload=b"345")
        ids, told = await appended(seams, (one, ""), (two, ""), move=step({"0": b"7"}, {"0": None}))

    async with storage() as seams:
        assert (ids, told) == ([one.request_id, two.request_id], [True, True])
        assert await seams.cursors.read("t") == {"0": b"7"}
        assert (await seams.journal.recover()).backlog[1] == (2, 5)


@pytest.mark.parametrize(
    "move",
    [step({"0": b"9"}, {"0": b"6"}), step({"0": b"9"}, {"0": None}), step({"0": b"9"}, {"0": b"7"}, generation=2)],
    ids=["another position", "a first one", "another generation"],
)
async def test_nothing_is_stored_when_the_cursor_is_not_where_it_was(storage: Storage, move: CursorMove) -> None:
    async with storage() as seams:
        await put_trigger(seams)
        await appended(seams, move=step({"0": b"7"}, {"0": None}))

        ids, told = await appended(seams, (made(seams), ""), (made(seams), "key"), move=move)

        assert (ids, told) == ("moved", [False, False])
        assert await seams.cursors.read("t") == {"0": b"7"}
        assert (await seams.journal.recover()).backlog == {}


async def test_a_refused_step_leaves_its_neighbours_in_the_commit_alone(storage: Storage) -> None:
    async with storage() as seams:
        await put_trigger(seams)
        before, after = made(seams), made(seams)
        futures = [
            seams.journal.append(before),
            seams.cursors.append([(made(seams), "")], step({"0": b"1"}, {"0": b"?"})),
            seams.journal.append(after),
        ]

        with pytest.raises(CursorMoved):
            await futures[1]
        assert [await futures[0], await futures[2]] == [before.request_id, after.request_id]
        assert (await seams.journal.recover()).backlog[1][0] == 2


async def test_a_duplicate_gives_the_earlier_id_and_a_key_used_otherwise_none(storage: Storage) -> None:
    async with storage() as seams:
        one = made(seams, payload=b"1")
        await appended(seams, (one, "key"))
        fresh = made(seams, payload=b"3")

        ids, told = await appended(
            seams, (made(seams, payload=b"1"), "key"), (made(seams, payload=b"2"), "key"), (fresh, "other")
        )

        assert ids == [one.request_id, "", fresh.request_id]
        assert told == [False, False, True]


async def test_each_partition_has_its_own_cursor(storage: Storage) -> None:
    async with storage() as seams:
        await put_trigger(seams)
        await appended(seams, move=step({"0": b"a", "1": b"b"}, {}))
        await appended(seams, move=step({"1": b"c"}, {"1": b"b"}))

        assert await seams.cursors.read("t") == {"0": b"a", "1": b"c"}


async def test_a_changed_trigger_keeps_its_cursors_and_a_deleted_one_takes_them_along(storage: Storage) -> None:
    async with storage() as seams:
        await put_trigger(seams)
        await appended(seams, move=step({"0": b"a"}, {"0": None}))
        await put_trigger(seams, generation=2)
        kept = await seams.cursors.read("t")
        await seams.resources.delete("trigger", OWNER, "t")

        assert (kept, await seams.cursors.read("t")) == ({"0": b"a"}, {})
        assert await appended(seams, move=step({"0": b"b"}, {})) == ("moved", [])
