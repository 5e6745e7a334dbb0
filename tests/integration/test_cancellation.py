"""Cancellation of the engine at every step of a script. Nothing acknowledged is lost, nothing is half written."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec import Struct, field

from engine.app.lifecycle import run_engine
from engine.app.parts import EngineParts
from engine.model import AsyncSettings, DestinationSpec
from engine.storage import StorageOptions, open_storage
from engine.storage.data_directory import locked
from engine.storage.sqlite import writer
from plugins.function import plugin as function_plugin
from tests.acceptance.engine_process import REAL_TALLY, TALLY
from tests.doubles import InlineContext
from tests.support.executing import function
from tests.support.inline_engine import PROJECT, SETTINGS, accept, run_inline, urn_of
from tests.support.triggering import settings_of

NAMES = {"plain": 1, "flaky": 2, "chain": 3, "sink": 4}
#: Invocations and deliveries that the next engine must end, except the invocation delayed by ten minutes.
UNENDED = """
SELECT key, state FROM invocation WHERE state < 3 AND due - first_due < 100 AND first_due < (key >> 15) / 1000 + 100
UNION ALL SELECT key, -1 FROM owed
"""


class Story(Struct):
    """Observations of an engine from outside; they outlive it."""

    acked: list[int] = field(default_factory=list)  #: keys
    cancelled: list[int] = field(default_factory=list)
    runs: Counter[int] = field(default_factory=Counter)  #: by key
    complete: bool = False


class SteppingLoop(asyncio.SelectorEventLoop):
    """Event loop that calls ``cancel`` in turn number ``last`` after ``cancel`` was set."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self._left = last
        self.cancel: Callable[[], object] | None = None

    def _run_once(self) -> None:  # the only method called in every turn
        if self.cancel is not None:
            self._left -= 1
            if self._left == 0:
                self.call_soon(self.cancel)
        super()._run_once()  # type: ignore[misc]


# --- the script ---------------------------------------------------------------------------------------------


def handlers_of(story: Story) -> dict[str, Any]:
    async def note(event: Any, context: InlineContext) -> Any:
        story.runs[context.invocation.key] += 1
        await asyncio.sleep(0)
        return event

    async def flaky(event: Any, context: InlineContext) -> None:
        await note(event, context)
        if story.runs[context.invocation.key] == 1:
            raise ValueError("the first time")

    return {"plain": note, "flaky": flaky, "chain": note, "sink": note}


async def script(running: EngineParts, story: Story) -> None:
    """Exercise every feature of the engine once."""

    async def send(name: str, **fields: Any) -> int:
        story.acked.append(key := await accept(running, name, **fields))
        return key

    for name in ("plain", "flaky", "chain"):
        await send(name)
    for _ in range(2):
        await send("plain", idempotency_key="key")
    await send("plain", delay=0.01)
    far = await send("plain", delay=600.0)
    async with anyio.create_task_group() as callers:
        for _ in range(3):
            callers.start_soon(send, "plain")
    if await running.dispatcher.cancel(far):
        story.cancelled.append(far)
    for key in story.acked:
        if key != far:
            await running.dispatcher.ended(key, 60)
    story.complete = True


@asynccontextmanager
async def an_engine(directory: Path, story: Story, patch: pytest.MonkeyPatch) -> AsyncIterator[EngineParts]:
    """Run a complete engine on a real file; its pool starts no processes."""
    run_inline(patch, handlers_of(story))
    patch.setattr(writer, "GATHER_IDLE_TURNS", 1)  # more idle turns would only add equivalent steps
    async with run_engine(settings_of(directory, **SETTINGS), plugins=[function_plugin]) as running:
        yield running


async def prepare(directory: Path) -> None:
    """Create a data directory with the functions of the script."""
    sink = DestinationSpec(destination="FunctionGraph", param=json.dumps({"func_urn": str(urn_of("sink"))}))
    with locked(directory):
        async with open_storage(StorageOptions(directory=directory)) as storage:
            for name, number in NAMES.items():
                assert await storage.catalog.new_function_id() == number
                await storage.catalog.put_functions([function(name, function_id=number, project=PROJECT)])
            await storage.catalog.put_settings(2, "latest", AsyncSettings(max_retries=2))
            await storage.catalog.put_settings(3, "latest", AsyncSettings(on_success=sink))


# --- an engine and its successor ---------------------------------------------------------------------------------


def run_cancelled(directory: Path, patch: pytest.MonkeyPatch, how: str, steps: int) -> Story:
    """Run the script until it is cancelled or complete."""
    story = Story()
    loop = SteppingLoop(steps)

    async def run() -> None:
        with anyio.CancelScope() as scope:
            if how == "scope":
                loop.cancel = scope.cancel
            async with an_engine(directory, story, patch) as running:
                await script(running, story)

    async def main() -> None:
        task = asyncio.ensure_future(run())
        if how == "task":
            loop.cancel = task.cancel
        done, _ = await asyncio.wait([task], timeout=60)
        assert done, f"cancelled at step {steps}, the engine does not end"
        await database_threads_end()
        if not task.cancelled():
            task.result()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    return story


async def database_threads_end() -> None:
    """Wait for the threads of database connections.

    A thread whose connection was cancelled while opening ends by itself, but calls the loop, which must still run.
    """
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, 60)
            assert not thread.is_alive(), "a database thread still runs"


def run_next(directory: Path, patch: pytest.MonkeyPatch, story: Story) -> None:
    """Run another engine on the directory until it has ended everything that was accepted."""

    async def run() -> None:
        async with an_engine(directory, story, patch) as running:
            while rows := read(directory, UNENDED):
                for key, _ in rows:
                    await running.dispatcher.ended(key, 60)
                await asyncio.sleep(0.001)  # invocations started by a delivery have unknown ids

    with asyncio.Runner() as runner:
        runner.run(run())


def read(directory: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{directory}/journal.db?mode=ro", uri=True, timeout=30)) as database:
        return database.execute(sql).fetchall()


def check_file(directory: Path, story: Story) -> None:
    """Check the invariants of a file that an engine has closed in order."""
    states = dict(read(directory, "SELECT key, state FROM invocation"))
    assert set(story.acked) <= set(states)
    assert all(states[key] == 4 for key in story.cancelled)
    assert 2 not in states.values(), "a row runs without an engine"
    assert sorted(read(directory, TALLY)) == sorted(read(directory, REAL_TALLY))
    assert read(directory, "SELECT key FROM invocation EXCEPT SELECT key FROM payload") == []
    assert read(directory, "SELECT key FROM payload EXCEPT SELECT key FROM invocation") == []
    assert read(directory, "SELECT 1 FROM owed JOIN invocation USING (key) WHERE state < 3") == []
    assert read(directory, "SELECT count(*) FROM idempotency JOIN invocation USING (key)") == read(
        directory, "SELECT count(*) FROM idempotency"
    )
    assert read(directory, "SELECT max(deaths) FROM invocation") in ([(0,)], [(None,)])


def check_end(directory: Path, story: Story) -> None:
    """Check that the next engine has ended everything."""
    ended = read(directory, "SELECT key, function_id FROM invocation WHERE state = 3")
    runs = [story.runs[key] for key, _ in ended]
    assert read(directory, UNENDED) == []
    assert all(runs)
    assert [function_id for _, function_id in ended].count(4) == [function_id for _, function_id in ended].count(3)


def cancel_at(step: int, how: str, prepared: Path, tmp_path: Path, patch: pytest.MonkeyPatch) -> Story:
    directory = tmp_path / str(step)
    shutil.copytree(prepared, directory)
    story = run_cancelled(directory, patch, how, step)
    check_file(directory, story)
    if not story.complete:
        run_next(directory, patch, story)
        check_file(directory, story)
    check_end(directory, story)
    shutil.rmtree(directory)
    return story


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    directory = tmp_path / "prepared"
    with asyncio.Runner() as runner:
        runner.run(prepare(directory))
    return directory


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("how", "first", "stride"),  # "task": cancelled once; "scope": cancelled at every later await
    [
        ("scope", 13, 47),
        # Together these cover every second step.
        pytest.param("task", 2, 4, marks=pytest.mark.long),
        pytest.param("scope", 4, 4, marks=pytest.mark.long),
    ],
)
def test_an_engine_cancelled_at_any_step_leaves_all_in_order(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, first: int, stride: int
) -> None:
    step, story = first, cancel_at(first, how, prepared, tmp_path, monkeypatch)
    while not story.complete:
        step += stride
        story = cancel_at(step, how, prepared, tmp_path, monkeypatch)

    assert step > 100, "the script has more steps than this"
