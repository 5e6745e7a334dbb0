"""Status log: hands the states of asynchronous invocations on to log streams, for functions that have it enabled.

The storage keeps each change of a state from the transaction that makes it until it is in its log stream. Both ends are
one transaction each, so that a line is in the stream once, whenever the engine is killed. An engine that takes over
the storage goes on with the oldest entry.

Invocations never wait for their log. While the stream takes no lines (the disk is nearly full, or the streams have no
room), entries wait, up to the limit of the storage; later changes are counted and not logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

import anyio
import msgspec
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from msgspec import Struct

from engine.errors import Overloaded, Unavailable
from engine.functions.catalog import Catalog
from engine.logs.feed import LogBoard, StatusLine, StatusLines
from engine.logs.target import LogTarget, status_log_target_of
from engine.model import Function, State
from engine.model.urn import LATEST
from engine.protocols import StatusEntry, StatusLog, StatusTarget
from engine.scheduling.backlog import DiskGuard

log = structlog.get_logger("functiond.status_log")

PAUSE = 0.25  #: seconds for which further entries join the first one
PAGE = 500  #: entries that are handed on in one transaction
RETRY_DELAY = 5.0  #: seconds until the next try after an unexpected error
#: Numbers of the states in a line. The platform does not document its own.
SEQ_STATUS = {state: number for number, state in enumerate(State)}


class StatusLogState(Struct, frozen=True, kw_only=True):
    written: int  #: lines written since the start
    waiting: int  #: changes of states that are not in their stream yet, about
    dropped: int  #: changes that were not logged since the start
    problem: str  #: why lines wait; empty: they do not


class StatusLogWorker:
    """Service that moves entries of the status log to log streams. ``load`` must be called before it runs."""

    def __init__(self, entries: StatusLog, catalog: Catalog, board: LogBoard, disk: DiskGuard, region: str) -> None:
        self._entries, self._catalog, self._board, self._disk, self._region = entries, catalog, board, disk, region
        self._changed: set[int] = set()  #: functions whose settings may differ from those that the storage follows
        self._work = asyncio.Event()
        self._work.set()  # the storage may have entries of an earlier run of the engine
        self._written, self._problem = 0, ""

    async def load(self) -> None:
        """Let the storage log the versions whose settings demand it. Call this before invocations change."""
        known = await self._entries.load()
        wanted = {function.function_id for function in self._catalog.all() if self._target(function) is not None}
        for function_id in {*known, *wanted}:
            await self.follow(function_id)

    async def follow(self, function_id: int) -> None:
        """Apply the asynchronous settings of a function's versions. Return when they are in force.

        Of a deleted function, the last states are still logged.
        """
        if self._catalog.resolve(function_id, LATEST) is not None:
            targets = (self._target(version) for version in self._catalog.versions(function_id))
            await self._entries.follow(function_id, [target for target in targets if target is not None])

    def note_change(self, function_id: int, latest: Function | None) -> None:
        """Follow a function soon, because its versions may have changed."""
        self._changed.add(function_id)
        self._work.set()

    def wake(self) -> None:
        """Make ``run`` look for entries. Call this after entries were added, or when a service stores lines."""
        self._work.set()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            await self._work.wait()
            await anyio.sleep(PAUSE)
            self._work.clear()
            wait = await self._turn()
            if wait is not None:
                await anyio.sleep(wait)
                self._work.set()

    def state(self) -> StatusLogState:
        counts, problem = self._entries.statistics(), self._problem
        if not problem and counts.waiting and self._board.status_store is None:
            problem = "no service stores log streams"
        return StatusLogState(written=self._written, waiting=counts.waiting, dropped=counts.dropped, problem=problem)

    # --- inside ---------------------------------------------------------------------------------------------

    def _target(self, function: Function) -> StatusTarget | None:
        """Return the log stream for a version's states; None if they are not logged."""
        settings = self._catalog.settings_of(function.function_id, function.version)
        if settings is None or not settings.status_log:
            return None
        return StatusTarget(
            function_id=function.function_id,
            version=function.version,
            project=function.project,
            urn=str(function.urn(self._region)),
            log=status_log_target_of(function.project, settings.details),
        )

    async def _turn(self) -> float | None:
        """Apply changed settings and hand all entries on. Return seconds until the next try; None: all was done."""
        try:
            await self._follow_changed()
            while await self._move_page():
                pass
        except (Overloaded, Unavailable) as problem:
            self._note_problem(str(problem))
            return problem.retry_after
        except Exception as error:  # a log that cannot be written must not stop the engine
            log.exception("states of invocations are not in their log stream")
            self._note_problem(f"{type(error).__name__}: {error}")
            return RETRY_DELAY
        self._problem = ""
        return None

    async def _follow_changed(self) -> None:
        while self._changed:
            function_id = self._changed.pop()
            try:
                await self.follow(function_id)
            except BaseException:
                self._changed.add(function_id)
                raise

    async def _move_page(self) -> bool:
        """Hand the oldest entries on. Return whether there may be more."""
        store = self._board.status_store
        entries = await self._entries.read(PAGE) if store is not None else ()
        if store is None or not entries:
            return False
        await store.store(_lines(entries), partial(self._hand_over, entries[-1].entry_id, store.plugin))
        self._written += len(entries)
        return len(entries) == PAGE

    async def _hand_over(self, until: int, plugin: str, table: str, put: Mapping[str, bytes]) -> None:
        self._disk.check(sum(map(len, put.values())))
        await self._entries.hand_over(until, plugin, table, put)

    def _note_problem(self, problem: str) -> None:
        if not self._problem:
            log.warning("states of invocations wait for their log stream", problem=problem)
        self._problem = problem


def _lines(entries: Sequence[StatusEntry]) -> Sequence[StatusLines]:
    """Return the lines of entries by their streams. Lines of one stream keep their order."""
    by_stream: dict[tuple[str, LogTarget], list[StatusLine]] = {}
    for entry in entries:
        line = StatusLine(text=_text(entry), at=entry.at, request_id=entry.request_id)
        by_stream.setdefault((entry.target.project, entry.target.log), []).append(line)
    return [
        StatusLines(project=project, target=target, lines=tuple(lines))
        for (project, target), lines in by_stream.items()
    ]


def _text(entry: StatusEntry) -> str:
    """Return the JSON of a line, with the platform's fields in their order."""
    # Built by hand, because a struct for each line would take twice the time.
    urn = msgspec.json.encode(entry.target.urn).decode()
    message = msgspec.json.encode(entry.message).decode() if entry.message else '""'
    return (
        f'{{"function_urn":{urn},"request_id":"{entry.request_id}",'
        f'"seq_status":{SEQ_STATUS[entry.state]},"operation_timestamp":{int(entry.at * 1000)},'
        f'"error_code":{entry.code:d},"error_message":{message}}}'
    )
