"""Return to an earlier version of functiond: what engine/docs/running.md says about its data directory."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from engine.cli.commands import run
from engine.cli.output import USAGE
from tests.acceptance.engine_process import EngineProcess
from tests.support.documents import DOCS, block
from tests.support.http_app import HELLO


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
