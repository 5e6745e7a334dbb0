"""Access of other users to the data of an engine: modes of files, and secrets on disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli.output import USAGE
from engine.embedded import Engine
from tests.acceptance.engine_process import BASE, EngineProcess, urn_of
from tests.support.engine_process import ROOT
from tests.support.programs import needs

OTHER = 4242
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
WRITES = """
import os

def handler(event, context):
    open(event, "w").close()
    return os.stat(event).st_mode & 0o777
"""


def become(user: int) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]


@pytest.fixture(params=[0, 65534], ids=["root", "nobody"])
def engine(request: pytest.FixtureRequest) -> Iterator[EngineProcess]:
    """Yield an engine of a user that does not run yet. Its directory exists and is open to all, as is the one above."""
    above = Path(tempfile.mkdtemp(prefix="at-rest-"))
    data = above / "data"
    data.mkdir()
    for folder in (above, data):
        folder.chmod(0o755)
        os.chown(folder, request.param, request.param)
    engine = EngineProcess(data, PATH="/usr/bin:/bin", FUNCTIOND_EXECUTOR__PYTHON="/usr/bin/python3")
    engine.prefix = become(request.param) if request.param else []
    yield engine
    engine.close()
    shutil.rmtree(above)


def open_entries(folder: Path) -> list[str]:
    return [path.name for path in (folder, *folder.glob("*.*")) if path.stat().st_mode & 0o077]


@AS_ROOT
@needs("setpriv")
def test_another_user_reads_neither_the_journal_nor_a_backup(engine: EngineProcess) -> None:
    (engine.data / "journal.db").touch(0o644)
    os.chown(engine.data / "journal.db", *2 * [engine.data.stat().st_uid])
    engine.start().create("writes", WRITES)
    assert engine.ask("POST", "/v2/project1/fgs/backups", {"path": "saved"}).status == 200
    written = engine.ask("POST", f"{BASE}/{urn_of('writes')}/invocations", str(engine.data.parent / "written"))

    reader = subprocess.run([*become(OTHER), "cat", engine.data / "journal.db"], capture_output=True, text=True)
    assert (reader.returncode, reader.stdout) == (1, "")
    assert "Permission denied" in reader.stderr
    assert (open_entries(engine.data), open_entries(engine.data.parent / "saved")) == ([], [])
    assert sum("data directory was open to other users" in line for line in engine.log) == 1
    assert written.json == 0o644  # functions keep the umask that the engine was started with


@AS_ROOT
@needs("setpriv")
def test_a_directory_of_another_user_that_is_open_is_refused_with_the_command(engine: EngineProcess) -> None:
    engine.data.chmod(0o777)
    os.chown(engine.data, OTHER, OTHER)
    if not engine.prefix:
        engine.start()  # root closes it
        assert open_entries(engine.data) == []
        return
    with pytest.raises(AssertionError, match=f"chown 65534 {engine.data} && chmod 700 {engine.data}"):
        engine.start()
    assert engine.wait() == USAGE
    assert f"chmod 700 {engine.data}" in doctor_of(engine.data)


def doctor_of(data: Path) -> str:
    command = [
        *become(65534),
        sys.executable,
        "-m",
        "engine",
        "doctor",
        "--data-dir",
        data,
        "--url",
        "http://127.0.0.1:9",
    ]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"PATH": "/usr/bin:/bin"})
    return run.stdout


def test_an_engine_in_a_program_closes_its_data_and_leaves_the_umask(tmp_path: Path) -> None:
    tmp_path.joinpath("data").mkdir(mode=0o755)
    before = os.umask(0o022)
    try:
        with Engine.running(settings={"storage.data_dir": str(tmp_path / "data"), "storage.ballast": 1}):
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("data/journal.db*")}
            during = os.umask(0o022)
    finally:
        os.umask(before)

    assert during == 0o022
    assert set(modes.values()) == {0o600}
    assert tmp_path.joinpath("data").stat().st_mode & 0o777 == 0o700
