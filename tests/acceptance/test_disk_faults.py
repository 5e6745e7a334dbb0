"""Faults of data directories and disks: an engine does not start, or goes on when they work again, or ends.

Each fault at the start ends with one line that tells the next step, and with an exit code. 3: a new start can succeed
without a change, for example when the disk has room again. 2: something must be changed.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from bench.proof.recording import Calls, Recorder
from tests.acceptance.engine_process import BASE, EngineProcess, engine_on, urn_of
from tests.support.engine_process import CLEAN, ROOT
from tests.support.programs import needs, program
from tests.support.small_disk import NoSmallDisk, small_disk
from tests.support.tmpfs import fill, tmpfs

pytestmark = pytest.mark.long

SOURCE = "def handler(event, context):\n    return 1\n"
NOBODY = 65534
MOVE = "move it away"
RESTORE = "restore a backup with `functiond restore`, or recover"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the directory of a stopped engine with one function, its settings, an alias, a trigger and a topic."""
    data = tmp_path_factory.mktemp("template") / "data"
    with engine_on(data) as engine:
        engine.create("one", SOURCE)
        engine.configure("one", max_async_retry_attempts=1)
        alias = engine.ask("POST", f"{BASE}/{urn_of('one')}/aliases", {"name": "prod", "version": "latest"})
        timer = {"name": "t", "schedule_type": "Rate", "schedule": "1h"}
        engine.trigger("one", "TIMER", timer)
        assert alias.status == 200, alias
        engine.accepted("one")
        assert engine.stop() == 0
    (data / "logs").mkdir(exist_ok=True)
    return data


@pytest.fixture
def data(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "data"))


def start(data: Path, *options: str | Path, **how: Any) -> tuple[int, str]:
    """Start an engine that is expected to end. Return its exit code and its standard error."""
    command = [*how.pop("command", ()), sys.executable, "-m", "engine", "serve", "--port", "0", "--data-dir", str(data)]
    command += map(str, options)
    environment = {**CLEAN, "FUNCTIOND_LOG__LEVEL": "error", "FUNCTIOND_EXECUTOR__ISOLATION": "process"}
    environment |= how.pop("environ", {})
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=60, **how)
    return ended.returncode, ended.stderr


def check(ended: tuple[int, str], code: int, *words: str) -> None:
    """Check exit code and message: the last line of the output, which has no traceback."""
    found, output = ended
    assert "Traceback" not in output, output
    message = output.splitlines()[-1]
    assert message.startswith("functiond: "), output
    assert found == code, output
    for word in words:
        assert word in message, output


def folder_at(name: str) -> Callable[[Path], object]:
    def make(data: Path) -> None:
        (data / name).unlink(missing_ok=True)
        (data / name).mkdir()

    return make


def file_at(name: str) -> Callable[[Path], object]:
    def make(data: Path) -> None:
        shutil.rmtree(data / name, ignore_errors=True)
        (data / name).write_text("")

    return make


def sql(*statements: str) -> Callable[[Path], object]:
    def make(data: Path) -> None:
        with closing(sqlite3.connect(data / "journal.db", isolation_level=None)) as database:
            for statement in statements:
                database.execute(statement)

    return make


def garbled(table: str, condition: str = "1") -> Callable[[Path], object]:
    return sql(f"UPDATE {table} SET body = x'7b22' WHERE {condition}")


#: Changes of a data directory before a start, and words of the message that ends the start.
FAULTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    **{
        f"directory {name}": (folder_at(name), (f"/data/{name}: ", "Is a directory", MOVE))
        for name in ("journal.db", "journal.db-wal", "ballast", "lock")
    },
    **{f"file {name}": (file_at(name), (f"/data/{name}: ", "Not a directory", MOVE)) for name in ("code", "tmp", ".")},
    "function": (garbled("function_version"), ("version latest of function 1", RESTORE)),
    "settings": (garbled("async_settings"), ("settings of version latest", RESTORE)),
    "alias": (garbled("resource", "kind = 'alias'"), ("the alias prod of", RESTORE)),
    "trigger": (garbled("resource", "kind = 'trigger'"), ("the trigger ", RESTORE)),
    "number": (sql("UPDATE meta SET value = 'x' WHERE name = 'node'"), ("the table meta", RESTORE)),
    "without meta": (sql("DROP TABLE meta"), ("damaged, without", "meta", RESTORE)),
    "without resource": (sql("DROP TABLE resource"), ("damaged, without", "resource", RESTORE)),
    "without index": (sql("DROP INDEX ready"), ("damaged, without index ready", RESTORE)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_directory_ends_the_start_with_one_line(name: str, data: Path) -> None:
    make, words = FAULTS[name]
    if name == "file .":
        shutil.rmtree(data)
        data.write_text("")
        check(start(data), 2, f"{data}: Not a directory", MOVE)
        return
    make(data)

    check(start(data), 2, *words)


def test_a_row_of_a_plugin_that_cannot_be_decoded_stops_the_plugin_and_not_the_engine(data: Path) -> None:
    sql("INSERT INTO plugin_row (plugin, name, key, value) VALUES ('smn', 'topics', 'project1/t', x'7b')")(data)
    with engine_on(data) as engine:
        assert engine.record("one", engine.accepted("one"), wait=30)["status"] == "SUCCESS"
        assert engine.stop() == 0

    [line] = [json.loads(line) for line in engine.log if "service failed" in line][:1]
    assert line["problem"].startswith("the row project1/t of the table topics cannot be read: ")
    assert RESTORE in line["problem"]


# --- files of settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--config", "auth.file", "--tls-key"])
def test_a_directory_in_place_of_a_file_with_settings_is_told(option: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    options = {
        "--config": ("--config", folder),
        "auth.file": (),
        "--tls-key": ("--tls-cert", folder, "--tls-key", folder),
    }
    environ = {"FUNCTIOND_AUTH__FILE": str(folder)} if option == "auth.file" else {}

    check(start(tmp_path / "data", *options[option], environ=environ), 2, str(folder))


# --- permissions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "journal.db", "logs", "lock"])
def test_a_file_of_another_user_is_told_with_the_user_to_give_access(name: str, data: Path) -> None:
    """Root may access all files, so that the engine runs without this right of root."""
    command: list[str] = []
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        os.chown(data / name, NOBODY, NOBODY)
    (data / name).chmod(0)

    ended = start(data, command=command)

    (data / name).chmod(0o700)
    check(ended, 2, f"{data / name}: Permission denied", f"give user {os.geteuid()} access")


# --- disks --------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], object]]:
    with tmpfs(tmp_path / "disk", 24 << 20) as mount:
        yield mount


def test_a_disk_that_is_mounted_read_only_is_told(
    disk: Callable[[str], object], template: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(template, tmp_path / "disk" / "data")
    disk("remount,ro")

    check(start(data), 2, "Read-only file system", "kernel's log")


@pytest.mark.parametrize("kind", ["new", "stopped"])
def test_a_full_disk_ends_the_start_with_the_code_for_a_new_start(
    kind: str, disk: Callable[[str], object], template: Path, tmp_path: Path
) -> None:
    data = tmp_path / "disk" / "data"
    if kind == "stopped":
        shutil.copytree(template, data)
    fill(tmp_path / "disk")

    check(start(data), 3, "free some space, then start the engine again")


def test_a_full_disk_with_a_ballast_starts(disk: Callable[[str], object], template: Path, tmp_path: Path) -> None:
    data = shutil.copytree(template, tmp_path / "disk" / "data")
    (data / "ballast").write_bytes(bytes(4 << 20))
    (data / "lock").unlink()
    fill(tmp_path / "disk")
    with engine_on(data, FUNCTIOND_STORAGE__BALLAST=str(4 << 20)) as engine:
        assert engine.ask("GET", "/healthz").status == 200
        assert not (data / "ballast").exists()
        assert engine.record("one", engine.accepted("one"), wait=30)["status"] == "SUCCESS"


def test_a_failed_write_ends_the_start_with_the_code_for_a_new_start(data: Path) -> None:
    """Let all writes to files fail. SQLite reports this as an I/O error."""
    ended = start(data, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)))

    check(ended, 3, str(data), "I/O error", "then start the engine again")


@needs("gcc")
@pytest.mark.parametrize("number", [7, 10])
def test_a_read_that_fails_once_is_not_taken_for_damage(number: int, data: Path, tmp_path: Path) -> None:
    """Let one of the first reads of the journal fail. SQLite reports this as a damaged page."""
    with closing(Recorder(tmp_path, data, record=False)) as recorder:
        recorder.fail(Calls.READ, number, errno.EIO)
        with engine_on(data, **recorder.environment) as engine:
            assert str(recorder.failed) == "pread /journal.db"
            assert engine.record("one", engine.accepted("one"), wait=30)["status"] == "SUCCESS"
            assert engine.ask("GET", "/healthz").json["status"] == "ok"
            assert not [line for line in engine.log if "Traceback" in line or "damaged" in line]


LOUD = "def handler(event, context):\n    print('x' * 9000)\n    return 1\n"


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    program("gcc")
    made = Recorder(tmp_path, tmp_path / "data", record=False)
    yield made
    made.close()


@pytest.fixture
def engine(recorder: Recorder, tmp_path: Path) -> Iterator[EngineProcess]:
    with engine_on(tmp_path / "data", FUNCTIOND_STORAGE__BALLAST=str(1 << 20), **recorder.environment) as engine:
        engine.create("one", LOUD)
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
        engine.start().create("one", LOUD)
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
