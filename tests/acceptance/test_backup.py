"""Backups that a running engine makes, those of a stopped one, and the return to an earlier version."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from engine.cli.commands import run
from engine.cli.output import USAGE
from engine.maintenance.backup import place
from engine.runtimes.interpreters import WORKERS
from tests.acceptance.engine_process import ECHO, PROJECT, TALLY, EngineProcess, engine_on, rows
from tests.support.cli import functiond_here
from tests.support.credentials import credentials_file, token
from tests.support.documents import DOCS, block
from tests.support.http_app import HELLO, zipped
from tests.support.tmpfs import tmpfs

BACKUPS = f"/v2/{PROJECT}/fgs/backups"
PAD = "x" * 200_000
TMPFS = 24 << 20  #: bytes of the small disk


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with engine_on(tmp_path / "data") as engine:
        engine.create("echo", ECHO)
        yield engine


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "small", TMPFS):
        yield tmp_path / "small"


def fill(engine: EngineProcess, megabytes: int) -> None:
    """Enqueue payloads of this size, for a time at which no test runs any more."""
    for _ in range(megabytes * 5):
        engine.accepted("echo", {"pad": PAD}, X_Functiond_Delay="100000")


def lines(engine: EngineProcess, path: Path) -> list[Any]:
    """Make a backup and return the lines of the reply."""
    reply = engine.ask("POST", BACKUPS, {"path": str(path)})
    assert reply.status == 200, reply
    return [json.loads(line) for line in reply.body.splitlines()]


@contextmanager
def occupied(disk: Path) -> Iterator[None]:
    """Take the free space of a disk after a backup has checked it."""
    stop = Event()

    def occupy() -> None:
        with (disk / "more").open("wb", buffering=0) as file:
            while not stop.is_set():
                if (disk / "backup.partial" / "journal.db").exists():
                    try:
                        file.write(bytes(1 << 20))
                    except OSError:
                        return

    other = Thread(target=occupy)
    other.start()
    yield
    stop.set()
    other.join()


@contextmanager
def begun_backup(engine: EngineProcess, path: Path) -> Iterator[http.client.HTTPResponse]:
    """Begin a backup, and leave its connection at the end of the block."""
    with closing(http.client.HTTPConnection("127.0.0.1", engine.port, timeout=60)) as connection:
        connection.request("POST", BACKUPS, json.dumps({"path": str(path)}), {"Content-Type": "application/json"})
        yield connection.getresponse()


def test_every_202_before_a_backup_under_load_is_in_it(engine: EngineProcess, tmp_path: Path) -> None:
    fill(engine, 8)
    before, later, stop = [engine.accepted("echo", {"n": n}) for n in range(50)], list[str](), Event()

    def send() -> None:
        while not stop.is_set():
            later.append(engine.accepted("echo", {"n": len(later)}))

    clients = [Thread(target=send) for _ in range(4)]
    for client in clients:
        client.start()
    made = lines(engine, tmp_path / "backup")
    stop.set()
    for client in clients:
        client.join()

    assert made[-1]["state"] == "done"
    assert made[-1]["copied"] == made[-1]["total"] > 8_000_000
    with engine_on(tmp_path / "backup") as copy:
        assert all(copy.record("echo", request_id, wait=30)["status"] == "SUCCESS" for request_id in before)
        assert copy.stop() == 0
    assert rows(tmp_path / "backup", "PRAGMA integrity_check") == [("ok",)]
    assert rows(tmp_path / "backup", TALLY)
    assert all(engine.record("echo", request_id, wait=30)["status"] == "SUCCESS" for request_id in [*before, *later])
    assert len(later) > 4


def test_a_killed_engine_leaves_an_unfinished_folder_that_the_next_backup_replaces(
    engine: EngineProcess, tmp_path: Path
) -> None:
    fill(engine, 16)
    with begun_backup(engine, tmp_path / "backup"):
        engine.kill(children=True)

    left = {path.name for path in tmp_path.iterdir()} - {"data"}
    assert left == {"backup.partial"}
    engine.start()
    assert lines(engine, tmp_path / "backup")[-1]["state"] == "done"
    assert not (tmp_path / "backup.partial").exists()


def test_a_client_that_goes_away_ends_the_backup_and_the_engine_goes_on(engine: EngineProcess, tmp_path: Path) -> None:
    fill(engine, 16)
    with begun_backup(engine, tmp_path / "backup"):
        pass

    made = engine.ask("POST", BACKUPS, {"path": str(tmp_path / "other")})
    while made.status == 409:  # until the first has ended: it is small, so it may be complete before it is ended
        made = engine.ask("POST", BACKUPS, {"path": str(tmp_path / "other")})
    assert made.status == 200, made
    assert not (tmp_path / "backup.partial").exists()
    assert engine.record("echo", engine.accepted("echo", {}), wait=30)["status"] == "SUCCESS"


def test_an_engine_that_stops_ends_its_backup_and_removes_what_was_written(
    engine: EngineProcess, tmp_path: Path
) -> None:
    fill(engine, 24)
    with begun_backup(engine, tmp_path / "backup") as reply:
        assert engine.stop() == 0
        done = b'"done"' in reply.read()

    assert {path.name for path in tmp_path.iterdir()} == ({"data", "backup"} if done else {"data"})


def test_a_disk_that_fills_up_fails_the_backup_only(engine: EngineProcess, tmp_path: Path, small_disk: Path) -> None:
    fill(engine, 12)
    (small_disk / "other").write_bytes(bytes(TMPFS - (18 << 20)))
    made: list[Any] = [{"done": True}]
    for _ in range(20):
        if "error_code" in made[-1]:
            break
        shutil.rmtree(small_disk / "backup", ignore_errors=True)  # it was done before its space was taken
        with occupied(small_disk):
            made = lines(engine, small_disk / "backup")

    assert made[-1]["error_code"] == "FSS.0503"
    assert "free space there, or choose another destination" in made[-1]["error_msg"]
    assert {path.name for path in small_disk.iterdir()} == {"other", "more"}
    with suppress(OSError), (small_disk / "more").open("ab", buffering=0) as file:  # the space of the failed backup
        while file.write(bytes(1 << 16)):
            pass
    refused = engine.ask("POST", BACKUPS, {"path": str(small_disk / "backup")})
    assert (refused.status, "MiB are needed" in refused.json["error_msg"]) == (503, True)
    assert engine.record("echo", engine.accepted("echo", {}), wait=30)["status"] == "SUCCESS"


def test_destinations_that_cannot_be_used_are_refused_and_nothing_is_made(
    engine: EngineProcess, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "mine.partial").mkdir()
    (tmp_path / "mine.partial" / "file").touch()
    (tmp_path / "alias").symlink_to(tmp_path / "data")
    outside = Path(tempfile.mkdtemp(dir=tmp_path.parent))
    (tmp_path / "out").symlink_to(outside)
    needed = f'set storage.backup_dir = "{outside}"'
    refusals = {
        f"{WORKERS}/bk": (400, "must be below"),  # in the sandbox of each function
        f"{outside}/bk": (400, needed),
        f"{tmp_path}/out/bk": (400, needed),
        "out/bk": (400, needed),
        f"../{outside.name}/bk": (400, needed),
        "": (400, "must be below"),
        "/": (400, "must be a path"),
        f"{tmp_path}/data": (400, "must be outside the data directory"),
        f"{tmp_path}/data/backup": (400, "must be outside the data directory"),
        f"{tmp_path}/alias/backup": (400, "must be outside the data directory"),
        f"{tmp_path}": (400, "must be below"),
        f"{tmp_path}/file": (409, "exists already"),
        f"{tmp_path}/link": (409, "exists already"),
        f"{tmp_path}/none/backup": (400, "its parent folder"),
        f"{tmp_path}/file/backup": (400, "its parent folder"),
        f"{tmp_path}/{'x' * 300}/backup": (400, "its parent folder"),
        f"{tmp_path}/{'x' * 250}": (503, "File name too long"),
        f"{tmp_path}/mine": (409, "mine.partial exists already"),
    }
    before = sorted(tmp_path.iterdir())

    for path, (status, text) in refusals.items():
        reply = engine.ask("POST", BACKUPS, {"path": path})
        problem = json.loads(reply.body.splitlines()[-1])
        code = int(problem["error_code"].rpartition(".")[2])
        assert (code, text in problem["error_msg"]) == (status, True), (path, problem)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "mine.partial" / "file").exists()
    assert list(outside.iterdir()) == []
    assert not (WORKERS / "bk").exists()


def test_a_backup_has_the_packages_that_its_functions_use(engine: EngineProcess, tmp_path: Path) -> None:
    package = zipped(index__py=ECHO, part__py="x = 1\n")
    (tmp_path / "zipped.zip").write_bytes(package)
    assert functiond_here("deploy", tmp_path / "zipped.zip", url=engine.url).returncode == 0
    [used] = [row[0] for row in rows(tmp_path / "data", "SELECT body ->> '$.code.sha256' FROM function_version"
                                     " WHERE body ->> '$.name' = 'zipped'")]  # fmt: skip
    made = functiond_here("backup", tmp_path / "backup", url=engine.url)

    assert (made.returncode, made.stderr) == (0, "")
    assert "2 code packages" in made.stdout
    assert (tmp_path / "backup" / "code" / f"{used}.package").read_bytes() == package
    assert not (tmp_path / "backup" / "code" / used).exists()
    assert not (tmp_path / "backup" / "keys").exists()
    listed = json.loads((tmp_path / "backup" / "backup.json").read_bytes())["files"]
    assert listed == {
        str(path.relative_to(tmp_path / "backup")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "backup").rglob("*")
        if path.is_file() and path.name != "backup.json"
    }
    (tmp_path / "data" / "code" / f"{used}.package").unlink()
    lacking = functiond_here("backup", tmp_path / "lacking", "--json", url=engine.url)
    assert (lacking.returncode, json.loads(lacking.stdout)["missing"]) == (1, [used])
    assert f"code: {used}.package is missing\n  deploy the functions that use it again" in lacking.stderr


def test_a_backup_of_a_damaged_journal_fails_and_removes_no_whole_one(engine: EngineProcess, tmp_path: Path) -> None:
    fill(engine, 1)
    nightly = ("--keep", "2", "--json")
    first = functiond_here("backup", tmp_path / "b1", *nightly, url=engine.url)
    engine.kill(children=True)
    offline = (*nightly, "--data-dir", tmp_path / "data")
    sound = shutil.copytree(tmp_path / "data", tmp_path / "sound")
    others = [functiond_here("backup", tmp_path / name, *offline) for name in ("b2", "b3")]
    assert [run.returncode for run in (first, *others)] == [0, 0, 0], others
    assert {path.name for path in tmp_path.glob("b*")} == {"b2", "b3"}
    [package] = (tmp_path / "b3" / "code").glob("*.package")
    assert (tmp_path / "b2" / "code" / package.name).samefile(package)

    [[root]] = rows(tmp_path / "data", "SELECT rootpage FROM sqlite_schema WHERE name = 'payload'")
    [[size]] = rows(tmp_path / "data", "PRAGMA page_size")
    with closing(sqlite3.connect(tmp_path / "data" / "journal.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / "data" / "journal.db").open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * 512)
    for name in ("b4", "b5"):
        damaged = functiond_here("backup", tmp_path / name, *offline)
        assert (damaged.returncode, "Traceback" in damaged.stderr) == (1, False)
        assert re.search(r"functiond: journal: payload page \d+: ", damaged.stderr), damaged.stderr
        assert f"`functiond recover {tmp_path / 'data'}`" in damaged.stderr
    assert {path.name for path in tmp_path.glob("b*")} == {"b2", "b3", "b5"}
    assert functiond_here("restore", tmp_path / "b5", "--data-dir", tmp_path / "no").returncode == 1
    assert functiond_here("verify", tmp_path / "b3").returncode == 0

    shutil.rmtree(tmp_path / "data")
    sound.rename(tmp_path / "data")
    whole = functiond_here("backup", tmp_path / "b6", *offline)
    assert (whole.returncode, {path.name for path in tmp_path.glob("b*")}) == (0, {"b5", "b6"})


def test_a_damaged_file_of_the_last_backup_is_copied_anew(tmp_path: Path) -> None:
    code, links = tmp_path / "source", [tmp_path / name for name in ("one", "two", "three")]
    code.write_bytes(b"package")
    expected = hashlib.sha256(b"package").hexdigest()
    read = list[int]()
    assert place(code, links[0], tmp_path / "none", None, read.append) == expected
    assert place(code, links[1], links[0], expected, read.append) == expected
    assert links[1].samefile(links[0])
    links[1].write_bytes(b"Package")
    assert place(code, links[2], links[1], expected, read.append) == expected
    assert (links[2].read_bytes(), read) == (b"package", [7, 7, 7])


def test_keys_are_in_a_backup_only_if_they_are_asked_for(tmp_path: Path) -> None:
    admin, reader = "a-token-for-the-backup", "a-token-of-a-reader"
    settings = credentials_file(tmp_path, token(admin, PROJECT), token(reader, PROJECT, role="read"))
    environ = {**settings, "FUNCTIOND_TOKEN": admin, "FUNCTIOND_PROJECT": PROJECT}
    with engine_on(tmp_path / "data", **settings, FUNCTIOND_STORAGE__BACKUP_DIR="") as engine:
        engine.headers = {"X-Auth-Token": reader}
        assert engine.ask("POST", BACKUPS, {"path": "no"}).status == 403
        engine.headers = {"X-Auth-Token": admin}
        refused = engine.ask("POST", BACKUPS, {"path": "no", "with_key": True})
        without, copied = (
            functiond_here("backup", *given, "--json", url=engine.url, environ=environ)
            for given in (("without",), ("with", "--with-key"))
        )
        said = [line for line in engine.log if "backups are made in the data directory" in line]

    assert (refused.status, "never copied over the API" in refused.json["error_msg"]) == (400, True)
    assert [run.returncode for run in (without, copied)] == [0, 0], copied.stderr
    assert len(said) == 1
    folder = tmp_path / "data" / "backups"
    assert sorted(folder.iterdir()) == [Path(json.loads(run.stdout)["path"]) for run in (copied, without)]
    assert {path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())} == {0o700}
    assert not any(admin.encode() in file.read_bytes() for file in (folder / "without").rglob("*") if file.is_file())
    assert functiond_here("verify", folder / "with").returncode == 0
    restored = functiond_here("restore", folder / "with", "--data-dir", tmp_path / "restored", "--json")
    assert json.loads(restored.stdout)["keys"] == ["credentials.toml"]
    copy = tmp_path / "restored" / "keys" / "credentials.toml"
    assert copy.read_bytes() == (tmp_path / "credentials.toml").read_bytes()
    assert (copy.stat().st_mode & 0o777, copy.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_stopped_engine_is_backed_up_from_its_data_directory(engine: EngineProcess, tmp_path: Path) -> None:
    waiting = engine.accepted("echo", {}, X_Functiond_Delay="100000")
    refused = functiond_here("backup", tmp_path / "backup", "--data-dir", tmp_path / "data")
    assert refused.returncode == 2
    assert f"in use by process {engine.pid}: leave out --data-dir" in refused.stderr
    engine.kill(children=True)
    assert (tmp_path / "data" / "journal.db-wal").stat().st_size > 0

    made = functiond_here("backup", tmp_path / "backup", "--data-dir", tmp_path / "data", "--json")

    assert json.loads(made.stdout)["path"] == str(tmp_path / "backup")
    assert (tmp_path / "data" / "journal.db-wal").stat().st_size > 0
    with engine_on(tmp_path / "backup") as copy:
        assert copy.record("echo", waiting)["status"] == "WAIT"


def test_a_migrated_directory_is_refused_unchanged_and_the_backup_before_serves(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "before-upgrade"
    with closing(EngineProcess(data)) as engine:
        earlier = EngineProcess(tmp_path / "restored")
        engine.start().ask("POST", "/v2/project1/fgs/functions", {**HELLO, "func_name": "hello"})
        before = engine.accepted("hello")
        engine.record("hello", before, wait=30)
        assert run(["backup", str(backup), "--url", engine.url]) == 0
        after = engine.accepted("hello")
        engine.record("hello", after, wait=30)
        engine.stop()
        schema = migrate(data)

        stored = (data / "journal.db").read_bytes()
        with pytest.raises(AssertionError, match="the engine ended"):
            engine.start()
        assert engine.wait() == USAGE
        [said] = [line for line in engine.log if "newer" in line]
        assert documented(schema, data) in said
        assert (data / "journal.db").read_bytes() == stored

        assert run(["restore", str(backup), "--data-dir", str(earlier.data)]) == 0
        earlier.start()
        assert earlier.record("hello", before)["status"] == "SUCCESS"
        lost = earlier.ask("GET", f"/v2/project1/fgs/functions/hello/async-invocations/{after}")
        assert lost.status == 404
        earlier.close()


def migrate(data: Path) -> int:
    """Change the schema's version as the migration of a later functiond would, and return it."""
    with closing(sqlite3.connect(data / "journal.db")) as database:
        [version] = database.execute("PRAGMA user_version").fetchone()
        database.execute(f"PRAGMA user_version = {version + 1}")
    return int(version) + 1


def documented(schema: int, data: Path) -> str:
    """Return the documented error with the schema and the folder of the test."""
    said = block(DOCS / "running.md", "", "newer functiond").strip().removeprefix("functiond: ")
    return said.replace("/var/lib/functiond", str(data)).replace("schema 15", f"schema {schema}")
