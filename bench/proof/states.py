"""Crash states: a recorded engine under load, and the states of its disk that a crash may leave at each point.

Each state is opened by the engine's own recovery, and some by a start of the engine. Afterwards every promise that was
made before the point must be kept. A recording with a violation is kept, and one of its states can be checked alone:
``python -m bench.proof.states FOLDER POINT KIND SEED``.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

import msgspec
from msgspec import Struct

from bench.proof import promises as p
from bench.proof.checker import check, recover
from bench.proof.disk import Disk, Kind, write_image
from bench.proof.lives import ENVIRONMENT, Violation, lives, temporary, until
from bench.proof.recording import Operation, read_operations
from bench.server import MAX_WAIT, ServerFailed, engine


class Point(Struct, frozen=True, kw_only=True):
    """Crash state: a position in a recording, the kind of crash, and the seed of its random parts."""

    position: int
    kind: Kind
    seed: int

    def __str__(self) -> str:
        return f"{self.position} {self.kind} {self.seed}"


class Recording(Struct, frozen=True, kw_only=True):
    """Folder with the recording of one engine and the promises to its clients."""

    folder: Path
    data: str  #: data directory of the recorded engine
    seed: int

    @property
    def promises(self) -> list[p.Any]:
        return p.read(self.folder / "promises.json")

    def operations(self) -> Iterator[Operation]:
        return read_operations(self.folder / "recording", self.data)


def record(folder: Path, seed: int, requests: int, deaths: int = 2) -> Recording:
    """Record engines on a new data directory while clients send ``requests`` requests.

    The engine is killed ``deaths`` times meanwhile, and at the end.
    """
    with lives(folder, seed, record=True) as engine:
        with engine.clients.sending(seed):
            for _ in range(deaths):
                engine.die()
                with engine.dead():
                    pass
            if not until(lambda: _has_all_kinds(engine.clients.promises, requests)):
                raise ServerFailed(f"the engine did not answer {requests} requests of all kinds in {MAX_WAIT:g} s")
        data, clients = engine.data, engine.clients
    if clients.mistakes:
        raise ServerFailed(f"the proof got wrong answers: {clients.mistakes[:3]}")
    p.save(clients.promises, folder / "promises.json")
    (folder / "origin.json").write_bytes(msgspec.json.encode([str(data), seed]))
    return load(folder)


def load(folder: Path) -> Recording:
    """Return the recording in a folder, which may have been moved."""
    data, seed = msgspec.json.decode((folder / "origin.json").read_bytes())
    return Recording(folder=folder, data=data, seed=seed)


def _has_all_kinds(promises: Sequence[p.Any], count: int) -> bool:
    return len(promises) >= count and len({type(promise) for promise in [*promises]}) == len(p.KINDS)


def choose(recording: Recording, count: int, starts: int = 0) -> tuple[list[Point], list[Point]]:
    """Return the states to check by the engine's recovery, and those to check by a start.

    Half of the points are those at which a promise was made, as anything that is not durable there is lost. The others
    lie between any two operations.
    """
    random = Random(recording.seed)
    after = [operation.position for operation in recording.operations()]
    promised = [promise.position for promise in recording.promises]
    kinds = [kind for kind in Kind for _ in range(4 if kind.startswith("torn") else 2 if kind != Kind.ALL else 1)]

    def draw(number: int) -> Point:
        position = random.choice(promised if number % 2 else after)
        return Point(position=position, kind=random.choice(kinds), seed=random.randrange(1 << 32))

    points = [draw(number) for number in range(count + starts)]
    return sorted(points[:count], key=_position), sorted(points[count:], key=_position)


def check_all(recording: Recording, points: Sequence[Point], processes: int = 1) -> Iterator[list[Violation]]:
    """Yield the violations of each state, which are checked in several processes."""
    if processes == 1:
        yield from _check_some(recording, points, start=False)
        return
    chunks = [points[number::processes] for number in range(processes)]
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        for violations in pool.map(_check_list, [recording] * processes, chunks):
            yield from violations


def start_all(recording: Recording, points: Sequence[Point]) -> Iterator[list[Violation]]:
    """Yield the violations of each state after a start and a regular stop of the engine."""
    return _check_some(recording, points, start=True)


def _check_list(recording: Recording, points: Sequence[Point]) -> list[list[Violation]]:
    return list(_check_some(recording, points, start=False))


def _check_some(recording: Recording, points: Sequence[Point], *, start: bool) -> Iterator[list[Violation]]:
    """Yield the violations of each state. ``points`` are sorted by position."""
    disk, promises, operations = Disk(), recording.promises, recording.operations()
    upcoming = next(operations, None)
    for point in points:
        while upcoming is not None and upcoming.position <= point.position:
            disk.apply(upcoming)
            upcoming = next(operations, None)
        problems = _check_one(disk, point, p.due(promises, point.position), start=start)
        where = f"seed {recording.seed}, state {point}"
        yield [Violation(where=where, problem=problem) for problem in problems]


def _check_one(disk: Disk, point: Point, promises: Sequence[p.Any], *, start: bool) -> list[str]:
    with temporary() as folder:
        directory = folder / "data"
        write_image(disk.image(point.kind, Random(point.seed)), directory)
        problem = _start(directory) if start else recover(directory)
        return [problem] if problem else check(directory, promises)


def _start(directory: Path) -> str:
    try:
        with engine(directory, **ENVIRONMENT):
            pass
    except ServerFailed as failure:
        return f"the engine does not start: {failure}"
    return ""


def _position(point: Point) -> int:
    return point.position


def keep(recording: Recording) -> Path:
    """Copy a recording to a new folder, from which its states can be checked again, and return the folder."""
    kept = Path(tempfile.mkdtemp(prefix="functiond-violation-"))
    for name in ("recording", "promises.json", "origin.json"):
        shutil.copy(recording.folder / name, kept / name)
    return kept


def main(folder: str, position: str, kind: str, seed: str) -> int:
    """Check one state of a recording that was kept, and print its violations."""
    point = Point(position=int(position), kind=Kind(kind), seed=int(seed))
    violations = [
        str(violation) for some in _check_some(load(Path(folder)), [point], start=False) for violation in some
    ]
    print("\n".join(violations) or "no violation")
    return bool(violations)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
