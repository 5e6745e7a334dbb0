"""Reload of the credentials of a serving engine by SIGHUP."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from msgspec import Struct

from engine.deploy.client import ApiError, Client
from tests.support.credentials import credentials_file, token
from tests.support.engine_process import CLEAN, ROOT

OLD, NEW = "the-token-of-before", "the-token-of-after"


class Engine(Struct):
    process: subprocess.Popen[str]
    log: IO[str]
    url: str
    file: Path  #: credentials file of the engine

    def hang_up(self) -> Any:
        """Send SIGHUP and return the log line that follows."""
        self.process.send_signal(signal.SIGHUP)
        return said(self.log, "credentials")

    def admits(self, token: str) -> bool:
        try:
            Client(self.url, "p1", "").send("GET", "", headers={"X-Auth-Token": token})
        except ApiError as refusal:
            return refusal.status != 401
        return True


def said(log: IO[str], event: str) -> Any:
    """Return the next log line whose event starts with ``event``."""
    return next(line for text in log if (line := json.loads(text))["event"].startswith(event))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    settings = credentials_file(tmp_path, token(OLD, "p1"))
    command = [sys.executable, "-m", "engine", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    environ = {**CLEAN, "FUNCTIOND_LOG__FORMAT": "json", **settings}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environ, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        try:
            url = said(process.stderr, "serving")["url"]
            yield Engine(process=process, log=process.stderr, url=url, file=tmp_path / "credentials.toml")
        finally:
            process.terminate()


def test_new_credentials_hold_and_the_old_ones_end_without_a_restart(engine: Engine) -> None:
    before = engine.admits(OLD), engine.admits(NEW)

    credentials_file(engine.file.parent, token(NEW, "p1"))
    line = engine.hang_up()

    assert (line["event"], line["tokens"]) == ("credentials replaced", 1)
    assert (before, (engine.admits(OLD), engine.admits(NEW))) == ((True, False), (False, True))


def test_bad_credentials_change_nothing_and_are_told(engine: Engine) -> None:
    problems = []

    for text, mode in (("no toml", 0o600), ("[[tokens]]\ntoken = 'short'", 0o600), (f"# {NEW}", 0o644), ("", 0o600)):
        engine.file.write_text(text)
        engine.file.chmod(mode)
        problems.append(engine.hang_up()["problem"])
    engine.file.unlink()
    problems.append(engine.hang_up()["problem"])

    for problem, reason in zip(problems, ("TOML", "length", "chmod 600", "no credentials", "cannot read"), strict=True):
        assert reason in problem
    assert (engine.admits(OLD), engine.admits(NEW)) == (True, False)
