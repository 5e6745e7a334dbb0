"""Lives of an engine under load: the engine is killed again and again, at a random moment or in place of a random call.

Each time a copy of its data directory is recovered and checked, then the engine starts again on the directory.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from msgspec import Struct

from bench.proof import promises as p
from bench.proof.checker import check, recover
from bench.proof.clients import Clients, prepare
from bench.proof.recording import Calls, Recorder
from bench.server import MAX_WAIT, Engine, ServerFailed

#: Settings of all engines of the proof: functions may run without a sandbox, and the disk needs no spare room.
ENVIRONMENT = {
    "FUNCTIOND_EXECUTOR__ISOLATION": "process",
    "FUNCTIOND_STORAGE__FREE_SPACE": "0",
    "FUNCTIOND_STORAGE__BALLAST": "0",
}
#: Largest number of writes and syncs, or seconds, after which an engine is killed.
CALLS, SECONDS = 600, 0.5


class Violation(Struct, frozen=True, kw_only=True):
    where: str  #: seed and state, death or fault
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class Lives:
    """Engine that is started again after each death, on the same data directory, with its clients."""

    def __init__(self, folder: Path, seed: int, *, record: bool) -> None:
        self.data, self.random = folder.resolve() / "data", Random(seed)
        self.recorder = Recorder(folder, self.data, record=record)
        self.server = self._start()
        self.clients = Clients(prepare(self.server), self.server.port, lambda: self.recorder.position)

    def _start(self) -> Engine:
        server = Engine(self.data, **ENVIRONMENT, **self.recorder.environment)
        server.wait_until_serving()
        return server

    def die(self) -> str:
        """Kill the engine at a random moment, or in place of a random write or sync. Return how."""
        if self.random.random() < 0.5:
            self.recorder.fail(Calls.WRITE | Calls.SYNC, self.random.randint(1, CALLS), 0)
            if self.server.wait() is None:
                raise ServerFailed(f"the engine made fewer than {CALLS} writes in {MAX_WAIT:g} s under load")
            return str(self.recorder.failed)
        time.sleep(self.random.uniform(0.05, SECONDS))  # the random moment of the kill, not a wait for a result
        return "SIGKILL"

    @contextmanager
    def dead(self) -> Iterator[None]:
        """Kill the engine unless it is dead, and start it again after the block."""
        with self.clients.pause():
            self.server.kill()
            self.recorder.restart()
            yield
            self.server = self._start()
            self.clients.port = self.server.port

    def close(self) -> None:
        self.server.kill()
        self.recorder.close()


@contextmanager
def lives(folder: Path, seed: int, *, record: bool = False) -> Iterator[Lives]:
    opened = Lives(folder, seed, record=record)
    try:
        yield opened
    finally:
        opened.close()


def kill_again(folder: Path, seed: int, deaths: int) -> Iterator[list[Violation]]:
    """Yield the violations after each of ``deaths`` kills of an engine under load."""
    with lives(folder, seed) as engine, engine.clients.sending(seed):
        for number in range(1, deaths + 1):
            how = engine.die()
            with engine.dead():
                problems = check_copy(engine.data, list(engine.clients.promises))
            mistakes, engine.clients.mistakes = engine.clients.mistakes, []
            where = f"seed {seed}, death {number} ({how})"
            yield [Violation(where=where, problem=problem) for problem in [*problems, *mistakes]]


def check_copy(data: Path, promises: Sequence[p.Any]) -> list[str]:
    """Return the violations in a copy of a dead engine's data directory, after the copy was recovered."""
    with temporary() as folder:
        copy = folder / "data"
        shutil.copytree(data, copy, ignore=transient)
        problem = recover(copy)
        return [problem] if problem else check(copy, p.due(promises, p.NEVER - 1))


def transient(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("tmp", "logs", "lock", "journal.db-shm")]


@contextmanager
def temporary() -> Iterator[Path]:
    """Yield a new folder, in memory if possible, because copies need no disk."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="functiond-proof-", dir=memory) as folder:
        yield Path(folder)


def until(true: Callable[[], bool], seconds: float = MAX_WAIT) -> bool:
    """Wait until ``true()`` returns True. Return False if it does not within ``seconds``."""
    deadline = time.perf_counter() + seconds
    while not true():
        if time.perf_counter() > deadline:
            return False
        time.sleep(0.01)
    return True
