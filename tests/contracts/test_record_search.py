"""Contract of record stores: search in steps, forwards and backwards, and counts."""

from __future__ import annotations

from itertools import chain
from typing import Any

from engine.model import Invocation, State
from engine.protocols import Count, Place, Selection, Storage
from tests.contracts.storage import NOW, ended, failure, settled, started, stored


async def failed(storage: Storage, message: str = "no", **fields: Any) -> Invocation:
    one = await started(storage, **fields)
    await settled(storage, one, failure(one, message=message))
    return one


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


async def test_steps_join_to_the_list_of_a_function_in_both_directions(storage: Storage) -> None:
    await filled(storage)
    whole, count = await storage.records.list(Selection(function_id=1))

    for limit in (1, 2, 5, 100):
        found = await pages(storage, Selection(function_id=1), limit)
        assert list(chain(*found)) == [one.key for one in whole]
        assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert await storage.records.count(Selection(function_id=1), 100) == counted(count)


def counted(rows: int, *, more: bool = False) -> Any:
    return Count(rows=rows, more=more)


async def test_steps_join_to_the_list_of_several_functions(storage: Storage) -> None:
    await filled(storage)
    both = frozenset({1, 2})
    for states in ({State.WAIT}, {State.RUNNING}, {State.RUNNING, State.WAIT}, {State.FAIL}, set(State)):
        selection = Selection(functions=both, states=frozenset(states))
        whole, count = await storage.records.list(selection)

        assert list(chain(*await pages(storage, selection, 4))) == [one.key for one in whole]
        assert await storage.records.count(selection, 100) == counted(count)


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


async def test_a_search_returns_how_many_rows_it_has_read(storage: Storage) -> None:
    await failed(storage, "rare")
    for _ in range(5):
        await ended(storage)
    step = await storage.records.search(Selection(functions=frozenset({1}), text="rare"), None, 10)

    assert (len(step.records), step.read, step.more) == (1, 6, False)


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


async def test_a_count_ends_at_its_limit(storage: Storage) -> None:
    for _ in range(4):
        await ended(storage)
    for selection in (Selection(function_id=1), Selection(functions=frozenset({1, 2}))):
        assert await storage.records.count(selection, 3) == counted(3, more=True)
        assert await storage.records.count(selection, 4) == counted(4)


async def test_of_nothing_a_search_finds_nothing(storage: Storage) -> None:
    step = await storage.records.search(Selection(function_id=1), None, 10)

    assert (step.records, step.first, step.last, step.more) == ((), None, None, False)
    assert await storage.records.count(Selection(function_id=1), 10) == counted(0)
