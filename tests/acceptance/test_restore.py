"""Restores of backups, and checks of backups and data directories."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from engine.errors import BackupUnusable, DataDirectoryUnusable
from engine.maintenance.backup import BackupProgress, Backups
from engine.maintenance.restore import RestoreProgress, restore
from engine.maintenance.verification import verify
from engine.model.clock import SystemClock
from engine.protocols import CopySteps
from engine.storage import copy_offline
from tests.acceptance.engine_process import ECHO, PROJECT, engine_on, rows
from tests.support.cli import functiond_here
from tests.support.engine_process import functiond, functiond_on_a_terminal
from tests.support.http_app import encoded, zipped
from tests.support.tmpfs import tmpfs

TIMER = {"name": "tick", "schedule_type": "Rate", "schedule": "1h"}


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Return a backup, and the request ids of an ended and a waiting invocation in it."""
    folder = tmp_path_factory.mktemp("backed-up")
    with engine_on(folder / "data") as engine:
        engine.create("echo", ECHO)
        package = encoded(zipped(index__py=ECHO, inner__py="x = 1\n" * 100))
        engine.create("zipped", "", code_type="zip", func_code={"file": package})
        engine.trigger("echo", "TIMER", TIMER)
        ended, waiting = engine.accepted("echo", {"n": 1}), engine.accepted("zipped", {}, X_Functiond_Delay="100000")
        assert engine.record("echo", ended, wait=30)["status"] == "SUCCESS"
        assert engine.ask("POST", f"/v2/{PROJECT}/fgs/backups", {"path": str(folder / "backup")}).status == 200
    return folder / "backup", {ended: "SUCCESS", waiting: "WAIT"}


@pytest.fixture
def copy(backup: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    """Return a copy of the backup that the test may damage."""
    return Path(shutil.copytree(backup[0], tmp_path / "copy"))


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "journal.db")) as database, database:
        for sql in statements:
            database.execute(sql)


def problems(folder: Path) -> list[Any]:
    run = functiond_here("verify", folder, "--json")
    entries: list[Any] = json.loads(run.stdout)["problems"]
    assert (run.returncode, run.stderr) == (1 if entries else 0, "")
    return entries


def test_a_restored_directory_finds_all_request_ids_and_goes_on(
    backup: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder, ids = backup
    assert problems(folder) == []
    done = functiond_here("restore", folder, "--data-dir", tmp_path / "data")

    assert (done.returncode, done.stderr) == (0, "")
    assert "Two copies must not both accept work" in done.stdout
    assert problems(tmp_path / "data") == []
    with engine_on(tmp_path / "data") as engine:
        states = {
            request_id: engine.record(name, request_id)["status"]
            for request_id, name in zip(ids, ("echo", "zipped"), strict=True)
        }
        assert states == ids
        new = engine.accepted("zipped", {"n": 2})
        assert engine.record("zipped", new, wait=30)["result"] == '{"n": 2}'
        assert new[-12:] == next(iter(ids))[-12:]  # the same journal
        triggers = engine.ask("GET", f"/v2/{PROJECT}/fgs/triggers/echo").json
        assert [trigger["event_data"]["name"] for trigger in triggers] == ["tick"]
        in_use = functiond_here("verify", tmp_path / "data")
        assert (in_use.returncode, f"in use by process {engine.pid}" in in_use.stderr) == (2, True)


def test_a_restore_tells_its_progress(backup: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    steps, data = list[RestoreProgress](), tmp_path / "data"
    done = restore(backup[0], data, steps.append)

    copied = [path for path in data.rglob("*") if path.is_file() and path.name not in ("lock", ".journal")]
    assert list(dict.fromkeys(step.state for step in steps)) == ["check", "journal", "code"]
    checked = [step.copied for step in steps if step.state == "check"]
    steps = steps[len(checked) :]
    assert checked == sorted(checked)
    assert checked[-1] > (backup[0] / "journal.db").stat().st_size
    assert [step.copied for step in steps] == sorted(step.copied for step in steps)
    assert [step.files for step in steps] == sorted(step.files for step in steps)
    assert (done.files, done.bytes) == (len(copied), sum(path.stat().st_size for path in copied))
    assert (steps[-1].copied, steps[-1].total, steps[-1].files) == (done.bytes, done.bytes, done.files)


def test_a_restore_shows_its_progress_on_a_terminal_only(backup: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    piped = functiond_here("restore", backup[0], "--data-dir", tmp_path / "piped")
    code, shown = functiond_on_a_terminal("restore", backup[0], "--data-dir", tmp_path / "shown", TERM="xterm")
    quiet_code, quiet = functiond_on_a_terminal("restore", backup[0], "--data-dir", tmp_path / "json", "--json")

    assert (piped.returncode, code, quiet_code) == (0, 0, 0)
    assert re.search(r"restored .* in \d+ files, of ", piped.stdout)
    assert piped.stderr == ""
    assert re.search(r"restoring code, \d+ files .*100%", shown)
    assert "restoring" not in quiet
    assert json.loads(quiet)["files"] > 1


def test_a_backup_of_an_earlier_version_is_restored(copy: Path, tmp_path: Path) -> None:
    """Earlier versions copied the unpacked code, too, and wrote no checksums."""
    with zipfile.ZipFile(zip_in(copy)) as archive:
        archive.extractall(copy / "code" / zip_in(copy).stem)
    table = json.loads((copy / "backup.json").read_bytes())
    for name in ("files", "problems"):
        del table[name]
    (copy / "backup.json").write_text(json.dumps({**table, "format": 1}))

    assert problems(copy) == []
    done = restore(copy, tmp_path / "data")
    assert (done.packages, done.missing, problems(tmp_path / "data")) == (2, (), [])


@pytest.mark.parametrize("ended_in", ["", "code", "check"])
def test_a_backup_that_is_cancelled_leaves_nothing(ended_in: str, copy: Path, tmp_path: Path) -> None:
    """The check runs in a worker's thread, and ends with the backup."""
    states = list[str]()

    async def copy_storage(folder: Path, on_progress: Callable[[int, int], None]) -> CopySteps:
        await anyio.to_thread.run_sync(copy_offline, copy, folder, on_progress)
        return CopySteps()

    async def make() -> None:
        backups = Backups(copy, copy_storage, below=None, keep_free=0, clock=SystemClock(), version="1")
        with anyio.CancelScope() as scope:

            def note(progress: BackupProgress) -> None:
                states.append(progress.state)
                if progress.state == ended_in:
                    scope.cancel()

            await backups.make(await backups.destination(str(tmp_path / "made")), note)

    anyio.run(make)
    made = {path.name for path in tmp_path.iterdir() if path.name.startswith("made")}
    assert made == (set() if ended_in else {"made"})
    assert list(dict.fromkeys(states))[-1] == (ended_in or "check")


def test_a_restore_goes_to_an_empty_directory_only(backup: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, data = backup[0], tmp_path / "data"
    data.mkdir()
    (data / "mine").write_text("mine")
    refused = functiond_here("restore", folder, "--data-dir", data)
    inside = functiond_here("restore", folder, "--data-dir", folder / "data")
    absent = functiond_here("restore", tmp_path / "none", "--data-dir", tmp_path / "other")
    no_backup = functiond_here("restore", data, "--data-dir", tmp_path / "other")

    assert [run.returncode for run in (refused, inside, absent, no_backup)] == [1] * 4
    assert "name an empty data directory" in refused.stderr
    assert "must be outside the backup" in inside.stderr
    assert "name a backup that `functiond backup` has made" in absent.stderr
    assert "has no backup.json" in no_backup.stderr
    assert [path.name for path in data.iterdir()] == ["mine"]
    assert not (tmp_path / "other").exists()
    (data / "mine").unlink()
    assert functiond_here("restore", folder, "--data-dir", data).returncode == 0


@pytest.mark.parametrize("part", ["unfinished", "journal", "package", "manifest", "used"])
def test_a_backup_that_is_not_whole_is_not_restored(part: str, copy: Path, tmp_path: Path) -> None:
    damage: dict[str, tuple[Callable[[], object], str]] = {
        "unfinished": ((copy / ".unfinished").touch, "was not finished"),
        "journal": (lambda: overwrite(copy / "journal.db"), "`functiond verify` shows all"),
        "package": (lambda: flip(zip_in(copy), b"inner.py"), f"{zip_in(copy).name} differs from its SHA-256"),
        "manifest": (lambda: (copy / "backup.json").write_text("{"), "backup.json cannot be read"),
        "used": (lambda: (copy / "journal.db-wal").write_bytes(bytes(100)), "an engine was started on it"),
    }
    spoil, told = damage[part]
    spoil()
    done = functiond_here("restore", copy, "--data-dir", tmp_path / "data")

    assert (done.returncode, told in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "data").exists()
    if part == "package":
        forced = functiond_here("restore", copy, "--data-dir", tmp_path / "data", "--force")
        assert (forced.returncode, {problem["part"] for problem in problems(tmp_path / "data")}) == (0, {"code"})


@pytest.mark.parametrize("part", ["backup.json", "journal.db", "code", "code/*.package", "code/*/index.py", "keys"])
def test_nothing_is_restored_through_a_link_and_verify_names_it(part: str, copy: Path, tmp_path: Path) -> None:
    """The link leads to what it replaces, so that a restore which follows it succeeds."""
    (copy / "keys").mkdir()
    (copy / "keys" / "tls_key.pem").touch()
    link = next(iter(sorted(copy.glob(part))))
    link.rename(tmp_path / "elsewhere")
    link.symlink_to(tmp_path / "elsewhere")

    [problem] = verify(copy)
    for force in (False, True):
        with pytest.raises(BackupUnusable, match=f"{link} is neither file nor folder"):
            restore(copy, tmp_path / "data", force=force)
    assert (problem.part, f"{link} is neither file nor folder" in problem.problem) == ("backup", True)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["../../taken", ".."])
def test_a_backup_whose_packages_are_paths_creates_nothing_elsewhere(name: str, copy: Path, tmp_path: Path) -> None:
    change(copy, f"UPDATE function_version SET body = json_set(body, '$.code.sha256', '{name}')")
    (copy / "code" / name).mkdir(parents=True, exist_ok=True)
    (copy / "code" / f"{name}.package").touch()
    before = sorted(tmp_path.rglob("*"))

    assert [problem for problem in verify(copy) if "which is no SHA-256" in problem.problem]
    with pytest.raises(DataDirectoryUnusable):
        restore(copy, tmp_path / "data", force=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_restore_that_was_killed_leaves_a_directory_that_no_engine_starts_on(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "journal.db.restoring").touch()
    started = functiond("serve", "--data-dir", tmp_path / "data", "--port", "0")

    assert (started.returncode, "a restore into it was not finished" in started.stderr) == (2, True)


def test_a_restore_without_room_leaves_nothing(backup: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", 2 << 20):
        done = functiond_here("restore", backup[0], "--data-dir", tmp_path / "small" / "data")
        left = list((tmp_path / "small").iterdir())

    assert (done.returncode, "MiB are needed; free space there" in done.stderr) == (1, True)
    assert left == []


def test_verify_finds_each_kind_of_problem_and_names_the_next_step(copy: Path) -> None:
    [[key]] = rows(copy, "SELECT key FROM invocation WHERE state = 1")
    [[ended]] = rows(copy, "SELECT key FROM invocation WHERE state = 3")
    change(
        copy,
        f"DELETE FROM payload WHERE key = {key}",
        f"INSERT INTO payload (key, body) VALUES ({ended} + 1, x'7b7d')",
        "UPDATE tally SET rows = rows + 7 WHERE function_id = 0",
        "INSERT INTO cursor (trigger_id, name, position) VALUES ('no-trigger', 'a', x'00')",
    )
    (zip_in(copy)).unlink()
    [source] = [file for file in (copy / "code").glob("*/index.py") if not (file.parent / "inner.py").exists()]
    source.write_text("raise SystemExit")
    pairs = {(problem["part"], problem["problem"].split(":")[0][:30]) for problem in problems(copy)}
    told = functiond_here("verify", copy)

    parts = ["backup", "backup", "backup", "code", "code", "cursor", "invocation", "payload", "tally"]
    assert sorted(part for part, _ in pairs) == parts
    assert told.returncode == 1
    assert f"payload: the payload of the unfinished invocation {key} is missing" in told.stdout
    assert "index.py differs from the source received" in told.stdout
    assert f"backup: {source.relative_to(copy)} differs from its SHA-256 in backup.json" in told.stdout
    assert "backup: journal.db differs from its SHA-256 in backup.json" in told.stdout
    assert "the counter of ended invocations says 8 rows" in told.stdout
    assert told.stdout.count("\n  ") == len(pairs)
    assert told.stdout.count("functiond restore") + told.stdout.count("use another backup") == len(pairs)


def test_verify_finds_bytes_that_changed_in_payloads_and_results(copy: Path) -> None:
    [[key]] = rows(copy, "SELECT key FROM invocation WHERE state = 3")
    change(
        copy,
        f"UPDATE payload SET body = x'7b226e223a20397d' WHERE key = {key}",  # {"n": 9}
        f"UPDATE result SET body = x'7b226e223a20397d' WHERE key = {key}",
    )

    assert [(problem["part"], problem["problem"]) for problem in problems(copy)] == [
        ("backup", "journal.db differs from its SHA-256 in backup.json"),
        ("payload", f"the payload of the invocation {key} differs from its checksum"),
        ("result", f"the result or log of the invocation {key} differs from its checksum"),
    ]


def test_verify_survives_damaged_pages_and_files_of_other_programs(copy: Path, tmp_path: Path) -> None:
    overwrite(copy / "journal.db")
    assert {problem["part"] for problem in problems(copy)} & {"journal", "catalog"}
    (copy / "journal.db").write_text("no database")
    assert "journal" in {problem["part"] for problem in problems(copy)}
    other = functiond_here("verify", tmp_path)
    assert (other.returncode, "has no journal.db" in other.stderr) == (2, True)


def zip_in(folder: Path) -> Path:
    [package] = [file for file in (folder / "code").glob("*.package") if file.read_bytes().startswith(b"PK")]
    return package


def overwrite(file: Path) -> None:
    """Damage two pages of a database."""
    content = file.read_bytes()
    file.write_bytes(content[:8192] + b"\xff" * 8192 + content[16384:])


def flip(file: Path, near: bytes) -> None:
    """Change a byte behind each occurrence of ``near``."""
    content = bytearray(file.read_bytes())
    at = content.find(near)
    assert at >= 0
    while at >= 0:
        content[at] ^= 0x20
        at = content.find(near, at + 1)
    file.write_bytes(content)
