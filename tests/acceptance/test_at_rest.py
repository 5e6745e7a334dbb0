"""Access of other users to the data of an engine: modes of files, and secrets on disk."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.cli.output import USAGE
from engine.embedded import Engine
from engine.http.api.secrets import is_secret
from engine.storage.sqlite.checkpoints import Checkpoints
from engine.storage.sqlite.encryption import Encryption
from tests.acceptance.engine_process import BASE, EngineProcess, engine_on, urn_of
from tests.support.cli import functiond_here
from tests.support.programs import can_others_read, needs

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
    if request.param and not can_others_read(Path(__file__).parent):
        pytest.skip("other users cannot read these sources")
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


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def open_entries(folder: Path) -> list[str]:
    return [path.name for path in (folder, *entries(folder)) if path.stat().st_mode & 0o077]


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
    with pytest.raises(AssertionError, match=f"run `chown 65534 {engine.data} && chmod 700 {engine.data}` as root"):
        engine.start()
    assert engine.wait() == USAGE


async def test_an_engine_in_a_program_closes_its_data_and_leaves_the_umask(tmp_path: Path) -> None:
    tmp_path.joinpath("data").mkdir(mode=0o755)
    before = os.umask(0o022)
    try:
        async with Engine(settings={"storage.data_dir": str(tmp_path / "data"), "storage.ballast": 1}).run():
            modes = {
                path.name: path.stat().st_mode & 0o777 for path in entries(tmp_path / "data") if "journal" in path.name
            }
            during = os.umask(0o022)
    finally:
        os.umask(before)

    assert during == 0o022
    assert set(modes.values()) == {0o600}
    assert tmp_path.joinpath("data").stat().st_mode & 0o777 == 0o700


# --- secrets ------------------------------------------------------------------------------------------------

PASSWORD, SIGNING = "correct-horse-battery", "whsec-of-the-sender-0123"
TELLS = "import os\n\ndef handler(event, context):\n    return [os.environ.get('DB'), context.getUserData('DB')]\n"
CODE = b64encode(TELLS.encode()).decode()


def holding(folder: Path) -> list[str]:
    """Return the names of the files in a folder that have a secret."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if any(text.encode() in path.read_bytes() for text in (PASSWORD, SIGNING))]


def with_secrets(engine: EngineProcess) -> EngineProcess:
    engine.create("tells", TELLS, encrypted_user_data=json.dumps({"DB": PASSWORD}))
    engine.trigger("tells", "WEBHOOK", {"name": "hook", "secret": SIGNING})
    return engine


def answer(engine: EngineProcess) -> object:
    return engine.ask("POST", f"{BASE}/{urn_of('tells')}/invocations", {}).json


def make_plain(data: Path) -> None:
    """Store secrets as an earlier engine did: plain, also in free pages and in the write-ahead log."""
    with closing(sqlite3.connect(data / "journal.db", isolation_level=None)) as db:
        Encryption(data / "key", is_secret).start(data / "journal.db", Checkpoints(data / "journal.db"), db)
        for table, where, key in (
            ("function_version", "version = 'latest'", "'function', function_id, version"),
            ("resource", "kind = 'trigger'", "kind, owner, id"),
        ):
            [[body]] = db.execute(f"SELECT decrypted({key}, body) FROM {table} WHERE {where}")
            for filler in (b" " * 20_000, b""):
                db.execute(f"UPDATE {table} SET body = ?, sum = NULL WHERE {where}", (body + filler,))
        db.execute("PRAGMA user_version = 13")
    (data / "key").unlink()


def test_secrets_of_an_earlier_engine_are_nowhere_in_the_directory_after_a_start(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        with_secrets(engine).stop()
        stored = holding(tmp_path)
        make_plain(engine.data)
        plain = holding(tmp_path)
        engine.start()
        after = holding(tmp_path)
        assert engine.ask("POST", "/v2/project1/fgs/backups", {"path": "saved"}).status == 200
        assert answer(engine) == [PASSWORD, PASSWORD]
        shown = engine.ask("GET", f"{BASE}/{urn_of('tells')}/config").json
        engine.ask("PUT", f"{BASE}/{urn_of('tells')}/config", {**shown, "memory_size": 256})
        assert answer(engine) == [PASSWORD, PASSWORD]
        engine.kill()
        killed = holding(tmp_path)
        assert engine.start().ask("GET", f"{BASE}/{urn_of('tells')}/config").json["memory_size"] == 256
        assert answer(engine) == [PASSWORD, PASSWORD]
        log = "".join(engine.log)

    assert (stored, plain, after, killed) == ([], ["journal.db"], [], [])
    assert not any(text in log for text in (PASSWORD, SIGNING))
    assert ((engine.data / "key").stat().st_mode & 0o777, (tmp_path / "saved/key").exists()) == (0o600, False)


def test_a_restore_without_the_key_says_what_is_lost_and_the_key_brings_it_back(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        with_secrets(engine)
        assert engine.ask("POST", "/v2/project1/fgs/backups", {"path": "saved"}).status == 200
    key, data = (tmp_path / "data/key").read_bytes(), tmp_path / "restored"
    told = functiond_here("restore", tmp_path / "saved", "--data-dir", data).stdout
    verified = functiond_here("verify", data)
    with engine_on(data) as engine:
        [line] = [json.loads(line) for line in engine.log if "secrets cannot be decrypted" in line]
        degraded = engine.ask("GET", "/healthz").json
        assert answer(engine) == [None, None]
        engine.ask("PUT", f"{BASE}/{urn_of('tells')}/code", {"code_type": "inline", "func_code": {"file": CODE}})
        [unread] = [json.loads(line) for line in engine.log if "trigger cannot be read" in line]
        engine.stop()
        (data / "key").write_bytes(key)
        assert answer(engine.start()) == [PASSWORD, PASSWORD]
        assert "secrets" not in engine.ask("GET", "/healthz").json
        engine.stop()
        (data / "key").write_bytes(b64encode(bytes(32)))
        with pytest.raises(AssertionError, match=f"{data}/key: has another key than the secrets of function"):
            engine.start()
        engine.wait()

    for text in (told, verified.stdout, line["of"]):
        assert "function project1/tells:latest" in text
        assert " of project1/tells" in text.replace("function project1/tells", "")
    assert (verified.returncode, "event_data.secret" in unread["problem"]) == (1, True)
    assert degraded["status"] == "degraded"
    assert degraded["secrets"].startswith("of 2 functions and triggers")


def test_a_key_file_elsewhere_is_made_and_must_be_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "functiond"
    file.parent.mkdir()
    with engine_on(tmp_path / "data", FUNCTIOND_STORAGE__KEY_FILE=str(file)) as engine:
        with_secrets(engine).stop()
        file.chmod(0o644)
        with pytest.raises(AssertionError, match=f"chmod 600 {file}"):
            engine.start()
        engine.wait()
        file.chmod(0o600)
        assert answer(engine.start()) == [PASSWORD, PASSWORD]
    assert not (tmp_path / "data/key").exists()


def test_the_text_of_another_row_is_not_decrypted(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        with_secrets(engine).create("other", TELLS, encrypted_user_data='{"DB": "another"}')
        engine.stop()
        with closing(sqlite3.connect(engine.data / "journal.db", isolation_level=None)) as db:
            moved = (
                "(SELECT json_extract(CAST(body AS TEXT), '$.encrypted') FROM function_version WHERE function_id = 1)"
            )
            body = f"CAST(json_set(CAST(body AS TEXT), '$.encrypted', {moved}) AS BLOB)"
            db.execute(f"UPDATE function_version SET body = {body}, sum = NULL WHERE function_id = 2")
        engine.start()
        assert engine.ask("POST", f"{BASE}/{urn_of('other')}/invocations", {}).json == [None, None]
        assert answer(engine) == [PASSWORD, PASSWORD]
        assert engine.ask("GET", "/healthz").json["secrets"].startswith("of 1 functions")


def test_a_field_that_counts_as_secret_from_now_on_joins_those_that_are_encrypted(tmp_path: Path) -> None:
    path, key = tmp_path / "journal.db", "'trigger', 'function:1', 't'"
    with engine_on(tmp_path) as engine:
        engine.stop()

    def started(db: sqlite3.Connection, *names: str) -> bytes:
        Encryption(tmp_path / "key", names.__contains__).start(path, Checkpoints(path), db)
        return bytes(db.execute("SELECT body FROM resource WHERE id = 't'").fetchone()[0])

    plain = {"data": {"url": "/", "pin": "1234", "password": PASSWORD}}
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"INSERT INTO resource (kind, owner, id, body) VALUES ({key}, ?)", (json.dumps(plain).encode(),))
        before, after, again = started(db, "password"), started(db, "password", "pin"), started(db, "password", "pin")
        [[body]] = db.execute(f"SELECT decrypted({key}, body) FROM resource WHERE id = 't'")
        (tmp_path / "key").unlink()
        lost = started(db, "password", "pin", "url")

    assert json.loads(body) == plain
    assert (b"pin" in before, b"pin" in after, again == after, lost == after) == (True, False, True, True)


def test_a_key_that_decrypts_some_secrets_starts_and_keeps_the_others(tmp_path: Path) -> None:
    with engine_on(tmp_path) as engine:
        with_secrets(engine).create("other", TELLS, encrypted_user_data='{"DB": "another"}')
        engine.stop()
        old = (tmp_path / "key").rename(tmp_path / "old")
        shown = engine.start().ask("GET", f"{BASE}/{urn_of('other')}/config").json
        shown["encrypted_user_data"] = '{"DB": "new"}'
        assert engine.ask("PUT", f"{BASE}/{urn_of('other')}/config", shown).status == 200
        engine.stop()
        new = (tmp_path / "key").rename(tmp_path / "new")
        old.rename(tmp_path / "key")
        engine.start()
        [line] = [json.loads(line) for line in engine.log if "secrets cannot be decrypted" in line]
        assert answer(engine) == [PASSWORD, PASSWORD]
        engine.stop()
        new.rename(tmp_path / "key")
        engine.start()
        assert engine.ask("POST", f"{BASE}/{urn_of('other')}/invocations", {}).json == ["new", "new"]
    assert line["of"] == "function project1/other:latest"


def test_plain_secrets_of_what_was_deleted_before_the_upgrade_are_gone_after_a_start(tmp_path: Path) -> None:
    with engine_on(tmp_path) as engine:
        with_secrets(engine).stop()
        make_plain(tmp_path)
        with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as db:
            db.execute("PRAGMA secure_delete = OFF")
            for table in ("resource", "function_version", "function"):
                db.execute(f"DELETE FROM {table}")
        plain, logs = holding(tmp_path), ["".join(engine.log)]
        for _ in range(2):
            logs.append("".join(engine.start().log))
            engine.stop()
    assert (plain, holding(tmp_path)) == (["journal.db"], [])
    assert ["rewriting the journal" in log for log in logs] == [False, True, False]
