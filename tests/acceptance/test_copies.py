"""Copied and moved data directories. A copy belongs to another engine; a moved one to the same."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.engine_process import EngineProcess, begun, engine_on, held_event, is_alive, rows

pytestmark = pytest.mark.long

#: Writes its process id, and returns when a file appears.
HELD = """
import os, time

def handler(event, context):
    with open(event["runs"], "a") as file:
        file.write("%d\\n" % os.getpid())
    while not os.path.exists(event["gate"]):
        time.sleep(0.02)
"""
#: Leaves a child process in a session of its own.
LEAVES = """
import subprocess

def handler(event, context):
    left = subprocess.Popen(["sleep", "300"], start_new_session=True, stdout=subprocess.DEVNULL)
    return left.pid
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with engine_on(tmp_path / "data") as engine:
        yield engine


def copied(data: Path) -> Path:
    copy = data.with_name("copy")
    subprocess.run(["cp", "-a", data, copy], check=True)
    return copy


def hold(engine: EngineProcess, folder: Path, count: int) -> list[str]:
    """Start runs that end when ``folder``/gate exists; return their request ids."""
    ids = [engine.accepted("held", held_event(folder)) for _ in range(count)]
    running(folder, count)
    return ids


def running(folder: Path, count: int) -> list[int]:
    """Wait until ``count`` runs have started; return their process ids."""
    return [int(line) for line in begun(folder, count)]


def leave(engine: EngineProcess) -> int:
    """Kill the engine; return the process that still runs."""
    engine.create("leaves", LEAVES)
    left = int(json.loads(engine.record("leaves", engine.accepted("leaves"), wait=30)["result"]))
    engine.kill()
    assert is_alive(left)
    return left


@pytest.mark.parametrize("copy_of", ["a stopped engine", "a running engine"])
def test_the_start_of_a_copy_ends_nothing_of_the_original(engine: EngineProcess, tmp_path: Path, copy_of: str) -> None:
    engine.create("held", HELD)
    if copy_of == "a stopped engine":
        engine.stop()
        data = copied(engine.data)
        engine.start()
        ids = hold(engine, tmp_path, 4)
    else:
        ids = hold(engine, tmp_path, 4)
        data = copied(engine.data)
    originals = running(tmp_path, 4)

    with engine_on(data):
        alive = [is_alive(pid) for pid in originals]
        (tmp_path / "gate").touch()
        ended = [engine.record("held", request_id, wait=30)["status"] for request_id in ids]

    assert (alive, ended) == ([True] * 4, ["SUCCESS"] * 4)
    assert rows(engine.data, "SELECT DISTINCT attempt, deaths FROM invocation") == [(1, 0)]


@pytest.mark.parametrize("moved", [False, True], ids=["in its place", "moved"])
def test_what_a_killed_engine_left_is_ended_by_its_own_next_start_only(engine: EngineProcess, moved: bool) -> None:
    left = leave(engine)
    with engine_on(copied(engine.data)):
        alive = is_alive(left)
    if moved:
        engine.data = engine.data.rename(engine.data.with_name("moved"))
    engine.start()

    assert (alive, is_alive(left)) == (True, False)
