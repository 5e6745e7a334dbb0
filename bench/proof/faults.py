"""Failing calls: any write, sync, open, removal or read of an engine fails once, at its start and under load.

The engine either goes on, or exits with the code that asks for a new start, and with a message. Every promise is kept.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from random import Random

from msgspec import Struct

from bench.proof import promises as p
from bench.proof.lives import ENVIRONMENT, Lives, Violation, check_copy, lives, temporary, transient, until
from bench.proof.recording import Calls, Recorder
from bench.server import Engine, ServerFailed
from engine.cli.output import RESTART

#: Errors by kind of call, and the largest number of the call that fails under load.
ERRORS = {
    Calls.WRITE: (errno.ENOSPC, errno.EIO),
    Calls.SYNC: (errno.EIO,),
    Calls.OPEN: (errno.EIO, errno.ENOSPC),
    Calls.UNLINK: (errno.EIO,),
    Calls.READ: (errno.EIO,),
}
SPREAD = {Calls.WRITE: 300, Calls.SYNC: 40, Calls.OPEN: 20, Calls.UNLINK: 8, Calls.READ: 40}
NONE, KILLED, STOPPED = "no directory", "the directory of a killed engine", "the directory of a stopped engine"
#: Answers after which an engine has gone on, and seconds in which they must come.
ANSWERS, MAX_WAIT = 20, 30.0


class Origin(Struct, frozen=True, kw_only=True):
    """Data directory on which engines start while calls fail, and the promises that it contains."""

    name: str
    data: Path
    promises: Sequence[p.Any]


class Fault(Struct, frozen=True, kw_only=True):
    """Call of an engine's start that fails."""

    origin: Origin
    kind: Calls
    number: int
    error: int

    def __str__(self) -> str:
        return f"start on {self.origin.name}, {self.kind.name} {self.number}, {errno.errorcode[self.error]}"


# --- at the start -------------------------------------------------------------------------------------------


def make_origins(folder: Path, seed: int) -> list[Origin]:
    """Create the directories on which engines start: none, one of a killed engine, and one of a stopped engine."""
    origins = [Origin(name=NONE, data=folder / "none", promises=[])]
    with lives(folder, seed) as engine:
        with engine.clients.sending(seed):
            until(lambda: len(engine.clients.promises) >= 50)
        engine.server.kill()
        for name, data in ((KILLED, folder / "killed"), (STOPPED, folder / "stopped")):
            shutil.copytree(engine.data, data, ignore=transient)
            origins.append(Origin(name=name, data=data, promises=list(engine.clients.promises)))
    server = Engine(folder / "stopped", **ENVIRONMENT)
    server.wait_until_serving()
    server.stop()
    return origins


def faults_of_starts(folder: Path, origins: Sequence[Origin]) -> list[Fault]:
    """Return all faults: one for each call of a regular start, and for each error."""
    faults = []
    for origin in origins:
        for kind, calls in _count_calls(folder, origin).items():
            numbers = range(1, calls + 1)
            faults += [Fault(origin=origin, kind=kind, number=n, error=e) for n in numbers for e in ERRORS[kind]]
    return faults


def sample(faults: Sequence[Fault], count: int, seed: int) -> list[Fault]:
    """Choose up to ``count`` faults at random, about the same number of each kind of call and origin."""
    random, groups = Random(seed), dict[tuple[str, Calls], list[Fault]]()
    for fault in random.sample(faults, len(faults)):
        groups.setdefault((fault.origin.name, fault.kind), []).append(fault)
    return [fault for turn in zip_longest(*groups.values()) for fault in turn if fault is not None][:count]


def _count_calls(folder: Path, origin: Origin) -> dict[Calls, int]:
    with temporary() as scratch:
        data = _copy(origin, scratch)
        recorder = Recorder(folder, data, record=False)
        server = Engine(data, **ENVIRONMENT, **recorder.environment)
        try:
            server.wait_until_serving()
            return {kind: recorder.calls(kind) for kind in ERRORS}
        finally:
            server.kill()
            recorder.close()


def fail_starts(folder: Path, faults: Sequence[Fault]) -> Iterator[list[Violation]]:
    """Start an engine for each fault, and yield the violations."""
    for fault in faults:
        with temporary() as scratch:
            problems = _fail_start(folder, _copy(fault.origin, scratch), fault)
        yield [Violation(where=str(fault), problem=problem) for problem in problems]


def _fail_start(folder: Path, data: Path, fault: Fault) -> list[str]:
    recorder = Recorder(folder, data, record=False)
    recorder.fail(fault.kind, fault.number, fault.error)
    server = Engine(data, **ENVIRONMENT, **recorder.environment)
    problems = list[str]()
    try:
        server.wait_until_serving()
        recorder.stop_failing()
        server.stop()
    except ServerFailed:
        problems = _check_exit(server, f"after {recorder.failed}")
    finally:
        server.kill()
        recorder.close()
    return problems + (check_copy(data, fault.origin.promises) if data.exists() else [])


def _copy(origin: Origin, scratch: Path) -> Path:
    data = scratch / "data"
    if origin.data.exists():
        shutil.copytree(origin.data, data, ignore=transient)
    return data


def _check_exit(server: Engine, what: str) -> list[str]:
    """Return the violations of an engine that has exited because of a fault."""
    problems, code = [], server.wait(MAX_WAIT)
    if code != RESTART:
        problems.append(f"the exit code {what} is {code}: {server.log[-400:]}")
    if "Traceback" in server.log:
        problems.append(f"a traceback {what}: {server.log[-1500:]}")
    return problems


# --- under load ---------------------------------------------------------------------------------------------


def fail_under_load(folder: Path, seed: int, count: int) -> Iterator[list[Violation]]:
    """Make ``count`` random calls of an engine under load fail, and yield the violations after each."""
    random = Random(seed)
    with lives(folder, seed) as engine, engine.clients.sending(seed):
        for number in range(1, count + 1):
            kind = random.choice(list(ERRORS))
            engine.recorder.fail(kind, random.randint(1, SPREAD[kind]), random.choice(ERRORS[kind]))
            problems = _fail_one(engine, last=number == count)
            mistakes, engine.clients.mistakes = engine.clients.mistakes, []
            where = f"seed {seed}, fault {number} under load ({kind.name})"
            yield [Violation(where=where, problem=problem) for problem in [*problems, *mistakes]]


def _fail_one(engine: Lives, *, last: bool) -> list[str]:
    """Wait for the effect of a fault: the engine goes on, or exits and is started again. Return the violations."""
    server, recorder, promises = engine.server, engine.recorder, engine.clients.promises
    until(lambda: recorder.failed is not None or server.wait(0) is not None, MAX_WAIT)
    before, problems = len(promises), list[str]()
    until(lambda: len(promises) > before + ANSWERS or server.wait(0) is not None, MAX_WAIT)
    what = f"after {recorder.failed}"
    if server.wait(0) is not None:
        problems = _check_exit(server, what)
    elif len(promises) <= before + ANSWERS:
        problems = [f"the engine answers no more {what}: {server.log[-400:]}"]
    elif not last:
        recorder.stop_failing()
        return problems
    with engine.dead():
        return [*problems, *check_copy(engine.data, list(promises))]
