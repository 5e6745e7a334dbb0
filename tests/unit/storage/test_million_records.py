"""Searches and counts of a million records: the indexes that they use, and their time."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.model import State
from engine.protocols import Count, DeliveryFilter, Found, Selection
from engine.storage import StorageOptions
from engine.storage.data_directory import locked
from engine.storage.sqlite.database import SQLiteStorage, open_storage
from tests.support.many_records import RARE, ROWS, fill, fill_deliveries
from tests.support.storages import NOW

pytestmark = pytest.mark.long

STEP = 0.15  #: seconds: a twentieth of a second of reading, and the connection and the records on a busy machine
INDEXES = ("ready", "delayed", "running", "finished", "ordering", "held", "caused")
ALL = Selection(functions=frozenset(range(1, 11)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("million")


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[SQLiteStorage]:
    with locked(folder):
        async with open_storage(StorageOptions(directory=folder)) as storage:
            [count] = await storage.writer.call(lambda db: db.execute("SELECT count(*) FROM invocation").fetchone())
            if not count:
                await storage.writer.call(lambda db: fill(db, NOW))
            yield storage


async def timed(storage: SQLiteStorage, selection: Selection, last: Found | None = None) -> tuple[Found, float]:
    """Search the next page and count, as a page of the console does. Return the shortest of three times."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        page = await storage.records.search(selection, last.last if last else None, 50)
        await storage.records.count(selection, 10_000)
        times.append(time.perf_counter() - began)
    return page, min(times)


async def test_each_page_of_a_million_takes_a_fraction_of_a_second(folder: Path) -> None:
    async with opened(folder) as storage:
        for selection in (
            ALL,
            Selection(functions=ALL.functions, states=frozenset({State.FAIL})),
            Selection(functions=ALL.functions, states=frozenset({State.WAIT})),
            Selection(functions=ALL.functions, end=NOW + 100),
            Selection(functions=frozenset({99})),
            Selection(function_id=1),
            Selection(function_id=8, states=frozenset({State.FAIL}), text="FULL"),
            Selection(function_id=99),
        ):
            page, took = await timed(storage, selection)
            assert took < 2 * STEP, selection
            if page.more:
                _, took = await timed(storage, selection, page)
                assert took < 2 * STEP, selection


async def test_a_search_for_text_ends_after_a_few_steps(folder: Path) -> None:
    async with opened(folder) as storage:
        start, steps, read = None, list[float](), 0
        while True:
            began = time.perf_counter()
            step = await storage.records.search(Selection(functions=ALL.functions, text="DISK is"), start, 50)
            steps.append(time.perf_counter() - began)
            read, start = read + step.read, step.last
            if not step.more:
                break

        assert read == ROWS
        assert [record.message for record in step.records] == [RARE]
        assert sorted(steps)[len(steps) // 2] < STEP


async def test_steps_read_indexes_and_sort_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[str] = []
    async with opened(folder) as storage:
        opening = sqlite3.connect

        class Explaining(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if sql.startswith("SELECT"):
                    plans.extend(row[3] for row in super().execute(f"EXPLAIN QUERY PLAN {sql}", *values))
                return super().execute(sql, *values)

        monkeypatch.setattr(sqlite3, "connect", lambda *args, **named: opening(*args, factory=Explaining, **named))
        for selection in (ALL, Selection(function_id=1), Selection(function_id=1, text="x")):
            page = await storage.records.search(selection, None, 5)
            await storage.records.search(selection, page.last, 5)
            await storage.records.search(selection, page.last, 5, back=True)
            await storage.records.count(selection, 10)

    sorted_here = [plan for plan in plans if "TEMP B-TREE" in plan]
    indexes = {name for name in INDEXES if any(f"USING INDEX {name}" in plan for plan in plans)}
    assert (sorted_here, indexes) == ([], {"ready", "delayed", "running", "held", "finished"})


async def with_deliveries(storage: SQLiteStorage) -> None:
    if await storage.outbox.count_given_up(range(1, 11), 1) == Count(rows=0, more=False):
        await storage.writer.call(lambda db: fill_deliveries(db, NOW))


async def test_pages_of_a_million_deliveries_read_a_limited_number(folder: Path) -> None:
    functions = range(1, 11)
    async with opened(folder) as storage:
        await with_deliveries(storage)
        outbox, began = storage.outbox, time.process_time()
        count = await outbox.count_given_up(functions, 10_000)
        counts, after = await outbox.counts(functions, 0)
        for given_up in (True, False):
            assert len((await outbox.page(DeliveryFilter(functions=functions, given_up=given_up), 0, 50))[0]) == 50
        took = time.process_time() - began

    assert count == Count(rows=10_000, more=True)
    assert sum(row.count for row in counts) == after < ROWS / 10
    assert took < 0.1


async def test_the_next_deliveries_of_a_million_are_found_in_few_steps(folder: Path) -> None:
    """Count the steps of SQLite's virtual machine, in thousands."""
    steps: list[int] = []
    async with opened(folder) as storage:
        await with_deliveries(storage)
        await storage.writer.call(lambda db: db.set_progress_handler(lambda: steps.append(1), 1000))
        due, next_due = await storage.outbox.due(NOW, 64, 32)
        await storage.writer.call(lambda db: db.set_progress_handler(None, 0))

    assert (list(due), next_due) == ([], NOW + 100_000)
    assert len(steps) < 10
