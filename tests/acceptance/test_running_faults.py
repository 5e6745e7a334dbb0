"""Disks that fail while an engine runs: it goes on when they work again, or leaves with a message for a new start."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.proof.recording import Calls, Recorder
from tests.acceptance.engine_process import EngineProcess, engine_on
from tests.support.programs import program
from tests.support.small_disk import NoSmallDisk, small_disk

pytestmark = pytest.mark.long

SOURCE = "def handler(event, context):\n    print('x' * 9000)\n    return 1\n"


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    program("gcc")
    made = Recorder(tmp_path, tmp_path / "data", record=False)
    yield made
    made.close()


@pytest.fixture
def engine(recorder: Recorder, tmp_path: Path) -> Iterator[EngineProcess]:
    with engine_on(tmp_path / "data", FUNCTIOND_STORAGE__BALLAST=str(1 << 20), **recorder.environment) as engine:
        engine.create("one", SOURCE)
        yield engine


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC, errno.EIO])
def test_a_disk_that_takes_no_write_stops_intake_until_it_does(
    error: int, engine: EngineProcess, recorder: Recorder
) -> None:
    before = engine.accepted("one", {}, X_Functiond_Delay="1")
    recorder.fail(Calls.WRITE | Calls.OPEN | Calls.UNLINK, 1, error, repeat=True)
    refused, unhealthy = engine.send("one"), engine.ask("GET", "/healthz")
    assert (refused.status, unhealthy.status) == (503, 503)

    recorder.stop_failing()
    assert engine.record("one", before, wait=30)["status"] == "SUCCESS"
    assert engine.record("one", engine.accepted("one"), wait=30)["status"] == "SUCCESS"
    assert engine.ask("GET", "/healthz").status == 200
    assert engine.stop() == 0
    assert not [line for line in engine.log if "Traceback" in line or "exception" in line]


def test_a_file_system_that_turns_read_only_loses_no_promise(tmp_path: Path) -> None:
    with ExitStack() as stack:
        try:
            disk = stack.enter_context(small_disk(tmp_path / "disk"))
        except NoSmallDisk as problem:
            pytest.skip(f"the machine gives no small file system: {problem}")
        engine = EngineProcess(disk.folder / "data", FUNCTIOND_STORAGE__BALLAST=str(1 << 20))
        engine.prefix = disk.prefix
        stack.callback(engine.close)
        engine.start().create("one", SOURCE)
        accepted = [engine.accepted("one", {}, X_Functiond_Delay=delay) for delay in ("0", "5", "5", "3600")]
        engine.record("one", accepted[0], wait=60)  # a commit that waits for the disk when it fails ends the engine
        disk.fail()
        refused, unhealthy = engine.send("one"), engine.ask("GET", "/healthz")
        assert (refused.status, unhealthy.status) == (503, 503)
        assert engine.record("one", accepted[-1])["status"] == "WAIT"
        engine.stop()
        assert not [line for line in engine.log if "Traceback" in line or "exception" in line]

        disk.unmount()
        disk.mount()
        engine.start()
        states = [engine.record("one", request_id, wait=30)["status"] for request_id in accepted[:-1]]
        assert states == ["SUCCESS"] * 3
        assert engine.record("one", accepted[-1])["status"] == "WAIT"
        assert engine.record("one", engine.accepted("one"), wait=30)["status"] == "SUCCESS"
        assert engine.ask("GET", "/healthz").status == 200


def test_a_disk_that_syncs_nothing_ends_the_engine_with_a_message_for_a_new_start(
    engine: EngineProcess, recorder: Recorder
) -> None:
    before = engine.accepted("one", {}, X_Functiond_Delay="1")
    recorder.fail(Calls.SYNC, 1, errno.EIO, repeat=True)
    assert engine.send("one").status == 503

    assert engine.wait() == 3
    assert "disk I/O error (start the engine again: it recovers from disk)" in engine.log[-1]
    assert not [line for line in engine.log if "Traceback" in line or "exception" in line]
    recorder.restart()
    engine.start()
    assert engine.record("one", before, wait=30)["status"] == "SUCCESS"
