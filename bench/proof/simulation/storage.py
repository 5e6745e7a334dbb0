"""Simulated storage: the double of the storage, with commits that take time, failures, and the survivors of a crash.

A commit takes some of the submitted writes, in the order of their calls, and lasts a while. At its end, the writes
change the tables, and their callers learn the results. A crash may come in between. Acknowledged writes then survive.
Of the others, the seed chooses how many survive, and these are always the first ones. The tables survive the process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import TypeVar

from engine.errors import NotStored, OutcomeUnknown
from tests.doubles.status_log import MemoryStatusLog
from tests.doubles.storage import MemoryStorage
from tests.doubles.tables import MemoryTables
from tests.doubles.writes import Apply, Done, MemoryWrites, answer_of, attempt

T = TypeVar("T")
FAILURE = "the simulated disk fails"
#: Seconds of a commit: usual, and of one in a hundred.
COMMIT, SLOW_COMMIT = 0.004, 0.6
#: Seconds after which callers of a failed commit learn that its outcome is unknown.
DOUBT = 5.0


class SimulatedStorage(MemoryStorage):
    """Storage of one simulated process."""

    def __init__(self, tables: MemoryTables, random: Random, *, node: int, retention: float) -> None:
        self.writes = Writes(random)
        super().__init__(node=node, idempotency_retention=retention, tables=tables, writes=self.writes)
        self.status_log = MemoryStatusLog(MemoryTables(), MemoryWrites())  # followed on the real storage only

    def end(self) -> None:
        """Apply the writes that survive the end of the process although nobody was told so."""
        self.writes.crash()


class Write:
    """Change of the tables, or a read in the order of the changes."""

    __slots__ = ("apply", "done", "keep")

    def __init__(self, apply: Apply, done: Done, *, keep: bool) -> None:
        self.apply, self.done = apply, done
        self.keep = keep  #: stored later if the disk fails


class Writes(MemoryWrites):
    """Writer of one simulated process. ``dead`` means that the process has crashed."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self._pending: deque[Write] = deque()
        self._batch: list[Write] = []
        self._doubtful: list[Write] = []  #: writes of a commit that failed, but may be on disk
        self._doubts = 0  #: callers that do not know the outcome yet
        self._waiting_for_end: asyncio.Future[None] | None = None
        self.dead = False

    @property
    def idle(self) -> bool:
        """True if every write is done and its caller knows."""
        return not (self._pending or self._batch or self._doubts or self.failure)

    def submit(self, apply: Apply, done: Done) -> None:
        self.check()
        self._add(Write(apply, done, keep=False))

    def keep(self, apply: Apply, done: Done) -> None:
        if not self.broken and not self.dead:
            self._add(Write(apply, done, keep=True))

    async def call(self, apply: Callable[[], T]) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.submit(apply, answer_of(future))
        return await future

    async def read(self, read: Callable[[], T]) -> T:
        await asyncio.sleep(self._random.choice((0.0, 0.001)))
        return read()

    # --- failures -------------------------------------------------------------------------------------------

    def fail_for(self, seconds: float, *, broken: bool = False) -> None:
        """Let writes fail for ``seconds``, or until a restart if ``broken``."""
        if self.failure or self.closed:
            return
        loop = asyncio.get_running_loop()
        batch, self._batch = self._batch, []
        refused = [write for write in self._pending if not write.keep]
        ambiguous = bool(batch) and self._random.random() < 0.5
        self._doubtful = batch if ambiguous else []
        callers = [write for write in batch if not write.keep]
        self._pending = deque(write for write in [*batch, *self._pending] if write.keep)
        if ambiguous:
            self._doubts = len(callers)
            delay = 0.0 if broken else self._random.choice((DOUBT, DOUBT / 10))
            loop.call_later(delay, self._resolve_doubts, callers)
            callers = []
        if broken:
            self._pending.clear()
            self.break_down(FAILURE)
        else:
            self.fail(FAILURE)
            loop.call_later(seconds, self._recover)
        for write in [*callers, *refused]:
            write.done(None, NotStored(FAILURE))

    def _resolve_doubts(self, callers: list[Write]) -> None:
        if self.dead:
            return
        self._doubts = 0
        error = OutcomeUnknown(self.failure) if self.failure else NotStored(FAILURE)
        for write in callers:
            write.done(None, error)

    def _recover(self) -> None:
        if not self.dead and not self.broken:
            self._doubtful = []
            self.heal()
            self._begin()

    # --- end ------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Refuse later writes, and return when all earlier ones are on disk, or are refused because the disk fails."""
        self.closed = True
        if self.failure:
            self._pending.clear()
        elif self._pending or self._batch:
            self._waiting_for_end = asyncio.get_running_loop().create_future()
            await self._waiting_for_end

    def crash(self) -> None:
        """Stop, and apply the writes that survive although nobody was told so."""
        self.dead = True
        lost = self._doubtful or [*self._batch, *self._pending]
        count = self._random.choice((0, len(lost), self._random.randint(0, len(lost))))
        for write in lost[:count]:
            attempt(write.apply)  # may be refused, as it would have been before the crash

    # --- commits --------------------------------------------------------------------------------------------

    def _add(self, write: Write) -> None:
        self._pending.append(write)
        if not self._batch and not self.failure:
            self._begin()

    def _begin(self) -> None:
        """Begin a commit at a later turn of the loop, so that other callers can join it."""
        if self._pending and not self._batch:
            self._batch = [self._pending.popleft()]
            asyncio.get_running_loop().call_soon(self._take)

    def _take(self) -> None:
        if self.dead or not self._batch:
            return
        count = len(self._pending) if self._random.random() < 0.8 else self._random.randint(0, len(self._pending))
        self._batch += [self._pending.popleft() for _ in range(count)]
        longest = SLOW_COMMIT if self._random.random() < 0.01 else COMMIT
        asyncio.get_running_loop().call_later(self._random.uniform(0.0, longest), self._finish, self._batch)

    def _finish(self, batch: list[Write]) -> None:
        if self.dead or batch is not self._batch:  # the disk failed meanwhile
            return
        self._batch = []
        results = [attempt(write.apply) for write in batch]
        for write, result in zip(batch, results, strict=True):
            write.done(*result)
        self._begin()
        if self._waiting_for_end is not None and not self._pending and not self._batch:
            self._waiting_for_end.set_result(None)
