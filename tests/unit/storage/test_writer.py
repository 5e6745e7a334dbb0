from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import aiosqlite
import anyio
import pytest
from msgspec import Struct, field

from engine.errors import JournalBroken, NotStored, OutcomeUnknown
from engine.model import Invocation, State
from engine.model.identity import Identity
from engine.protocols import Settlement
from engine.storage import StorageOptions
from engine.storage.sqlite.damage import Damage
from engine.storage.sqlite.database import open_storage
from engine.storage.sqlite.invocations import SQLiteJournal
from engine.storage.sqlite.writer import Writer
from tests.support.disk import FSYNC, FULL, WRITE, Disk, connection_on
from tests.support.storages import NOW, success
from tests.support.waiting import in_own_task, until


class Opened(Struct, kw_only=True):
    """Writer on a disk that can fail, with its journal."""

    path: Path
    disk: Disk
    writer: Writer
    journal: SQLiteJournal
    identity: Identity
    ended: list[BaseException | None] = field(default_factory=list)  #: results of ``writer.run``: None or an exception

    def made(self, **fields: Any) -> Invocation:
        key = self.identity.next_key(NOW)
        fields = {"due_at": NOW, "payload": b"{}", **fields}
        return Invocation(key=key, request_id=self.identity.request_id(key), function_id=1, **fields)

    def state(self, invocation: Invocation) -> int | None:
        """Return the state as another process reads it from the file."""
        database = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        try:
            row = database.execute("SELECT state FROM invocation WHERE key = ?", (invocation.key,)).fetchone()
            return None if row is None else int(row[0])
        finally:
            database.close()

    async def run(self) -> None:
        try:
            await self.writer.run()
        except Exception as error:
            self.ended.append(error)
        else:
            self.ended.append(None)


@asynccontextmanager
async def writing(
    tmp_path: Path, *, max_wait: float = 30.0, make_room: Callable[[], None] = lambda: None
) -> AsyncIterator[Opened]:
    async with open_storage(StorageOptions(directory=tmp_path)):
        pass  # creates the schema
    path, disk = tmp_path / "journal.db", Disk()
    async with aiosqlite.connect(path, factory=connection_on(disk), isolation_level=None) as database:
        await database.execute("PRAGMA synchronous = FULL")
        writer = Writer(database, make_room=make_room, max_wait=max_wait, longest_wait=0.02)
        identity = Identity(1)
        journal = SQLiteJournal(writer, identity, damage=Damage(tmp_path))
        opened = Opened(path=path, disk=disk, writer=writer, journal=journal, identity=identity)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(opened.run)
            try:
                with anyio.fail_after(60):
                    yield opened
            finally:
                disk.heal()
                writer.close()


async def fate(waiting: Any) -> BaseException | None:
    """Return the exception with which it ends, or None."""
    try:
        await waiting
    except Exception as error:
        return error
    return None


# --- without failures ---------------------------------------------------------------------------------------


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    async with in_own_task(writing(tmp_path)) as opened:
        yield opened


async def test_every_commit_is_synced_before_it_is_reported(tmp_path: Path) -> None:
    async with open_storage(StorageOptions(directory=tmp_path)) as storage:
        settings = [
            await storage.writer.call(lambda db, name=name: db.execute(f"PRAGMA {name}").fetchone()[0])  # type: ignore[misc]
            for name in ("journal_mode", "synchronous", "auto_vacuum")
        ]

        assert settings == ["wal", 2, 2]  # FULL: the log is synced at each commit; INCREMENTAL


async def test_requests_of_one_turn_are_one_commit(opened: Opened) -> None:
    await asyncio.gather(*(opened.journal.append(opened.made()) for _ in range(20)))

    assert opened.writer.statistics().commit_seconds.count == 1


async def test_requests_of_the_next_turns_join_the_commit(opened: Opened) -> None:
    async def append_after(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await opened.journal.append(opened.made())

    await asyncio.gather(*(append_after(turns) for turns in (0, 1, 2, 2, 4)))

    assert sizes(opened) == (1, 5)


async def test_a_commit_does_not_wait_for_all_who_ever_come(opened: Opened) -> None:
    first = opened.journal.append(opened.made())
    turns = 0
    while not first.done():
        opened.journal.append(opened.made())
        turns += 1
        await asyncio.sleep(0)

    commits, carried = sizes(opened)
    assert commits == 1
    assert carried < turns


def sizes(opened: Opened) -> tuple[int, int]:
    """Return the number of commits and of the requests in them."""
    batches = opened.writer.statistics().batch_size
    return batches.count, int(batches.total)


async def test_a_slow_disk_does_not_block_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with writing(tmp_path) as now:
        now.disk.answer = threading.Event()
        stored = now.journal.append(now.made())
        await until(now.disk.busy.is_set)
        monkeypatch.setattr("engine.storage.sqlite.writer.GIL_YIELD", 90.0)  # a pause of that length would be noticed
        await asyncio.sleep(0.02)
        now.disk.answer.set()

        assert await stored
        assert now.disk.patient


async def test_a_cancelled_caller_leaves_nothing_half_done(opened: Opened) -> None:
    caller = asyncio.ensure_future(opened.writer.call(lambda db: db.execute("INSERT INTO meta VALUES ('x', 1)")))
    await asyncio.sleep(0)
    caller.cancel()

    assert await opened.writer.call(lambda db: db.execute("SELECT value FROM meta WHERE name = 'x'").fetchone()) == (1,)


async def test_a_bad_row_fails_its_caller_only(opened: Opened) -> None:
    good, other = opened.made(), opened.made()
    fates = await asyncio.gather(*(fate(opened.journal.append(invocation)) for invocation in (good, good, other)))

    assert [type(error) for error in fates] == [type(None), sqlite3.IntegrityError, type(None)]
    assert [opened.state(invocation) for invocation in (good, other)] == [0, 0]


@pytest.mark.parametrize("fields", [{"version": "\ud800"}, {"priority": 1 << 70}, {"memory": object()}])
async def test_a_row_that_cannot_be_bound_fails_its_caller_only(opened: Opened, fields: dict[str, Any]) -> None:
    good, bad = opened.made(), opened.made(**fields)
    fates = await asyncio.gather(*(fate(opened.journal.append(invocation)) for invocation in (bad, good)))

    assert [error is None for error in fates] == [False, True]
    assert [opened.state(invocation) for invocation in (bad, good)] == [None, 0]
    assert await fate(opened.journal.append(opened.made())) is None


async def test_a_call_that_fails_takes_back_its_own_rows_only(tmp_path: Path) -> None:
    def write_and_fail(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO meta VALUES ('mine', 1)")
        raise ValueError("a fault of the caller")

    async with writing(tmp_path) as opened:
        invocation = opened.made()
        fates = await asyncio.gather(fate(opened.writer.call(write_and_fail)), fate(opened.journal.append(invocation)))
        rows = await opened.writer.call(lambda db: db.execute("SELECT * FROM meta WHERE name = 'mine'").fetchall())

        assert isinstance(fates[0], ValueError)
        assert (fates[1], opened.state(invocation), rows) == (None, 0, [])


# --- when the disk fails ------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", ["BEGIN", "COMMIT"])
async def test_callers_of_a_failed_batch_learn_that_nothing_was_stored(opened: Opened, statement: str) -> None:
    invocation = opened.made()
    opened.disk.fail(WRITE, statement, times=1)
    error = await fate(opened.journal.append(invocation))

    assert isinstance(error, NotStored)
    assert opened.state(invocation) is None


async def test_no_caller_is_answered_before_the_outcome_of_a_failed_commit_is_known(opened: Opened) -> None:
    opened.disk.fail(WRITE, times=3)  # the commit, and two fences
    error = await fate(opened.journal.append(opened.made()))

    assert isinstance(error, NotStored)
    assert (opened.disk.times, opened.disk.met) == (0, 3)


async def test_a_caller_learns_that_the_outcome_is_unknown_after_the_deadline(tmp_path: Path) -> None:
    async with writing(tmp_path, max_wait=0.05) as opened:
        opened.disk.fail(WRITE)
        error = await fate(opened.journal.append(opened.made()))

        assert isinstance(error, OutcomeUnknown)


async def test_requests_during_a_failing_commit_are_refused_and_not_left_waiting(opened: Opened) -> None:
    opened.disk.fail(FULL)
    first = asyncio.ensure_future(fate(opened.journal.append(opened.made())))
    await until(lambda: opened.writer.number)
    second = opened.journal.append(opened.made())

    assert isinstance(await fate(second), NotStored)
    opened.disk.heal()
    assert isinstance(await first, NotStored)


async def test_room_is_made_when_the_disk_is_full(tmp_path: Path) -> None:
    asked: list[bool] = []
    async with writing(tmp_path, make_room=lambda: asked.append(True)) as opened:
        opened.disk.fail(FULL, times=1)
        await fate(opened.journal.append(opened.made()))

        assert asked == [True]


async def test_a_start_and_its_end_from_either_side_of_the_failure_keep_their_order(opened: Opened) -> None:
    invocation = opened.made()
    await opened.journal.append(invocation)
    opened.disk.fail(FULL)
    opened.journal.start(invocation, NOW)
    await until(lambda: bool(opened.writer.statistics().failure))
    settled = asyncio.get_running_loop().create_future()
    settlement = Settlement(invocation=invocation, state=State.SUCCESS, outcome=success(invocation))
    opened.journal.settle(settlement, then=settled.set_result)
    opened.disk.heal()
    await settled

    assert opened.state(invocation) == 3


async def test_an_end_too_large_for_the_room_that_is_left_is_tried_ever_later(opened: Opened) -> None:
    invocation = opened.made()
    await opened.journal.append(invocation)
    settled = full_for_results(opened, invocation)
    await until(lambda: opened.disk.met > 3)
    met, began = opened.disk.met, monotonic()
    await until(lambda: opened.disk.met > met + 4)
    seconds = monotonic() - began
    error = await fate(opened.writer.call(lambda db: None))
    opened.disk.heal()
    await settled

    assert seconds > 4 * 0.02  # the longest pause between attempts
    assert isinstance(error, NotStored)
    assert opened.state(invocation) == 3
    assert opened.writer.statistics().failure == ""


async def test_a_writer_closed_while_an_end_finds_no_room_ends(opened: Opened) -> None:
    invocation = opened.made()
    await opened.journal.append(invocation)
    full_for_results(opened, invocation)
    await until(lambda: opened.disk.met > 1)
    opened.writer.close()
    await until(lambda: bool(opened.ended))

    assert opened.ended == [None]
    assert opened.state(invocation) == 0  # left to the next engine


def full_for_results(opened: Opened, invocation: Invocation) -> asyncio.Future[Settlement]:
    """Settle an invocation on a disk with room for fences but not for its result. Return a future of its settlement."""
    opened.disk.fail(FULL, "INSERT OR REPLACE INTO result")
    settled: asyncio.Future[Settlement] = asyncio.get_running_loop().create_future()
    settlement = Settlement(invocation=invocation, state=State.SUCCESS, outcome=success(invocation, result=b'"large"'))
    opened.journal.settle(settlement, then=settled.set_result)
    return settled


# --- after a failed fsync -----------------------------------------------------------------------------------


async def test_a_failed_fsync_is_mended_by_a_fence(opened: Opened) -> None:
    opened.disk.fail(FSYNC, times=1)
    error = await fate(opened.journal.append(opened.made()))

    assert isinstance(error, NotStored)
    assert await fate(opened.journal.append(opened.made())) is None


async def test_a_failed_fsync_without_a_fence_ends_the_writer(opened: Opened) -> None:
    opened.disk.fail(FSYNC, times=2)
    error = await fate(opened.journal.append(opened.made()))
    await until(lambda: bool(opened.ended))

    assert isinstance(error, OutcomeUnknown)
    assert isinstance(opened.ended[0], JournalBroken)
    assert opened.writer.broken


async def test_a_broken_writer_refuses_callers_and_lets_ends_go(opened: Opened) -> None:
    opened.disk.fail(FSYNC, times=2)
    await fate(opened.journal.append(opened.made()))
    await until(lambda: bool(opened.ended))
    opened.journal.start(opened.made(), NOW)

    with pytest.raises(NotStored):
        opened.journal.append(opened.made())
    assert opened.writer._pending == []  # as nothing would ever empty it


async def test_an_error_in_a_callback_ends_the_writer_and_leaves_no_caller_waiting(tmp_path: Path) -> None:
    def faulty(invocation: Invocation, stored: bool) -> None:
        raise ZeroDivisionError

    async with writing(tmp_path) as opened:
        opened.journal.append(opened.made(), then=faulty)
        waiting = asyncio.ensure_future(fate(opened.journal.append(opened.made())))
        await until(lambda: bool(opened.ended))

        assert isinstance(opened.ended[0], ZeroDivisionError)
        assert opened.writer.broken
        assert await waiting is None  # stored by the same commit


async def test_a_writer_closed_during_a_failure_ends_and_leaves_no_caller_waiting(opened: Opened) -> None:
    opened.disk.fail(FULL)
    waiting = asyncio.ensure_future(fate(opened.journal.append(opened.made())))
    await until(lambda: bool(opened.writer.statistics().failure))
    opened.writer.close()

    assert isinstance(await waiting, OutcomeUnknown)
    await until(lambda: opened.ended == [None])
