"""Full and failing disks. No unstored work is acknowledged, no result is lost, and the engine recovers by itself."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.engine_process import (
    ECHO,
    HELD,
    REAL_TALLY,
    TALLY,
    EngineProcess,
    begun,
    engine_on,
    held_event,
    make_due,
    rows,
    until,
)
from tests.support.tmpfs import fill, tmpfs

pytestmark = pytest.mark.long

#: Engine whose fsync fails as long as the file named by BROKEN_DISK exists.
BROKEN = """
import os, sqlite3, sys
from engine.storage.sqlite import batch
from engine.storage.sqlite import database

class BrokenDisk(batch.WritingConnection):
    def execute(self, sql, *values):
        if sql == "COMMIT" and os.path.exists(os.environ["BROKEN_DISK"]):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return super().execute(sql, *values)

database.WritingConnection = BrokenDisk
sys.argv[0] = "engine"
from engine.cli import main
main()
"""
#: Causes or repairs a fault of a running engine.
Fault = Callable[[EngineProcess], object]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "small", 64 << 20):
        yield tmp_path / "small"


def empty(folder: Path) -> None:
    (folder / "filler").unlink()


def limit_files(engine: EngineProcess) -> None:
    """Limit the file size of the engine, so that writes fail as on a full disk."""
    log = engine.data / "journal.db-wal"
    resource.prlimit(engine.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))


def unlimit_files(engine: EngineProcess) -> None:
    resource.prlimit(engine.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def failing(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[EngineProcess, Fault, Fault]]:
    """Yield an engine with the functions that make its disk fail and repair it."""
    if kind == "limit":
        with engine_on(tmp_path / "data") as engine:
            yield engine, limit_files, unlimit_files
    else:
        disk: Path = request.getfixturevalue("small_disk")
        with engine_on(disk / "data") as engine:
            yield engine, lambda _: fill(disk), lambda _: empty(disk)


both = pytest.mark.parametrize("kind", ["tmpfs", "limit"])


def send_until(engine: EngineProcess, status: int, name: str = "echo", **headers: str) -> tuple[list[str], int]:
    """Send until the reply has this status; return the ids accepted meanwhile and the Retry-After in seconds."""
    accepted: list[str] = []
    while True:
        reply = engine.send(name, {"pad": "x" * 2000}, **headers)
        if reply.status == 202:
            accepted.append(reply.json["request_id"])
        if reply.status == status:
            return accepted, int(reply.headers.get("retry-after", 0))
        assert reply.status in (202, 503), reply


@both
def test_whatever_got_a_202_is_there_after_a_full_disk_and_a_kill(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with failing(kind, tmp_path, request) as (engine, fail, mend):
        engine.create("echo", ECHO)
        before = [engine.accepted("echo") for _ in range(5)]
        fail(engine)
        accepted, retry_after = send_until(engine, 503)
        engine.kill()
        if kind == "tmpfs":
            mend(engine)
        engine.start()

        assert retry_after >= 1
        for request_id in before + accepted:
            assert engine.record("echo", request_id, wait=30)["status"] == "SUCCESS"


@both
def test_a_full_engine_accepts_again_without_a_restart_once_there_is_room(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with failing(kind, tmp_path, request) as (engine, fail, mend):
        engine.create("echo", ECHO)
        fail(engine)
        accepted: list[str] = []

        def unhealthy() -> bool:
            accepted.extend(send_until(engine, 503)[0])
            return engine.ask("GET", "/healthz").status == 503  # unless a checkpoint has just made room

        until(unhealthy)
        mend(engine)
        again, _ = send_until(engine, 202)

        assert engine.ask("GET", "/healthz").status == 200
        for request_id in accepted + again:
            assert engine.record("echo", request_id, wait=30)["status"] == "SUCCESS"
        assert engine.stop() == 0
        assert sorted(rows(engine.data, TALLY)) == sorted(rows(engine.data, REAL_TALLY))


def test_ends_that_came_while_the_disk_was_full_are_not_lost(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("echo", ECHO)
        engine.create("held", HELD)
        held = [engine.accepted("held", held_event(tmp_path)) for _ in range(4)]
        limit_files(engine)
        send_until(engine, 503)
        (tmp_path / "gate").touch()
        unlimit_files(engine)

        ends = [engine.record("held", request_id, wait=30) for request_id in held]
        assert [(end["status"], end["result"]) for end in ends] == [("SUCCESS", "ended")] * 4
        assert sorted((tmp_path / "runs").read_text().split()) == sorted(held)


def test_an_engine_stops_in_order_while_the_disk_is_full_and_nothing_is_lost(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("echo", ECHO)
        limit_files(engine)
        accepted, _ = send_until(engine, 503)

        assert engine.stop() == 0
        engine.start()  # the limit applied to the old process only
        for request_id in accepted:
            assert engine.record("echo", request_id, wait=30)["status"] == "SUCCESS"


def test_below_the_watermark_new_work_is_refused_and_old_work_runs(small_disk: Path, tmp_path: Path) -> None:
    with engine_on(small_disk / "data", FUNCTIOND_STORAGE__FREE_SPACE=str(32 << 20)) as engine:
        engine.create("held", HELD)
        held = engine.accepted("held", held_event(tmp_path))
        fill(small_disk, leave=16 << 20)
        send_until(engine, 503, "held")  # the free space is checked at intervals only
        refused, ready = engine.send("held", held_event(tmp_path)), engine.ask("GET", "/readyz")
        (tmp_path / "gate").touch()

        assert (refused.status, ready.status) == (503, 503)
        assert int(refused.headers["retry-after"]) >= 1
        assert engine.record("held", held, wait=30)["status"] == "SUCCESS"
        empty(small_disk)
        send_until(engine, 202, "held")


def test_a_ballast_gives_room_for_ends_when_the_disk_is_full(small_disk: Path, tmp_path: Path) -> None:
    with engine_on(small_disk / "data", FUNCTIOND_STORAGE__BALLAST=str(2 << 20)) as engine:
        engine.create("held", HELD)
        engine.create("echo", ECHO)
        held = engine.accepted("held", held_event(tmp_path))
        assert (engine.data / "ballast").stat().st_size == 2 << 20
        begun(tmp_path, 1)  # a start on a full disk would be another matter
        fill(small_disk)
        send_until(engine, 503, X_Functiond_Delay="600")  # no end of these takes the room of the ballast before
        (tmp_path / "gate").touch()

        assert engine.record("held", held, wait=30)["status"] == "SUCCESS"
        assert not (engine.data / "ballast").exists()


def test_a_failed_fsync_ends_the_process_for_a_new_start_that_reads_the_file(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    with closing(EngineProcess(tmp_path / "data", BROKEN_DISK=str(broken))) as engine:
        engine.program = ["-c", BROKEN]
        engine.start()
        engine.create("echo", ECHO)
        accepted = [engine.accepted("echo", {"n": n}, X_Functiond_Delay="600") for n in range(5)]
        broken.touch()
        reply = engine.send("echo")

        assert (reply.status, reply.json["error_code"]) == (503, "FSS.0503")
        assert engine.wait() == 3
        broken.unlink()
        make_due(engine.data)
        engine.start()
        assert [engine.record("echo", request_id, wait=30)["status"] for request_id in accepted] == ["SUCCESS"] * 5
