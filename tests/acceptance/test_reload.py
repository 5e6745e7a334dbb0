"""Reload of the credentials of a serving engine by SIGHUP."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.cli.output import USAGE
from tests.acceptance.engine_process import BASE, EngineProcess, engine_on, until
from tests.support.credentials import credentials_file, token

OLD, NEW = "the-token-of-before", "the-token-of-after"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with engine_on(tmp_path / "data", **credentials_file(tmp_path, token(OLD, "p1"))) as engine:
        yield engine


def told(engine: EngineProcess) -> list[Any]:
    """Return the log lines about credentials."""
    return [line for line in map(json.loads, list(engine.log)) if line["event"].startswith("credentials")]


def hang_up(engine: EngineProcess) -> Any:
    """Send SIGHUP and return the log line that follows."""
    before = len(told(engine))
    engine.signal(signal.SIGHUP)
    return until(lambda: told(engine)[before:])[0]


def admits(engine: EngineProcess, token: str) -> bool:
    return engine.ask("GET", BASE, headers={"X-Auth-Token": token}).status != 401


def test_new_credentials_hold_and_the_old_ones_end_without_a_restart(engine: EngineProcess) -> None:
    before = admits(engine, OLD), admits(engine, NEW)

    credentials_file(engine.data.parent, token(NEW, "p1"))
    line = hang_up(engine)

    assert (line["event"], line["tokens"]) == ("credentials replaced", 1)
    assert (before, (admits(engine, OLD), admits(engine, NEW))) == ((True, False), (False, True))


@pytest.mark.parametrize("other", ["p1", "p2"])
def test_two_projects_without_a_sandbox_are_refused_at_the_start_and_by_a_reload(other: str, tmp_path: Path) -> None:
    environment = {"FUNCTIOND_EXECUTOR__ISOLATION": "auto", "PATH": str(tmp_path)}  # without bwrap
    both = (token(OLD, "p1"), token(NEW, other))
    with engine_on(tmp_path / "data", **credentials_file(tmp_path, token(OLD, "p1")), **environment) as engine:
        credentials_file(tmp_path, *both)
        line = hang_up(engine)
        assert (admits(engine, OLD), admits(engine, NEW)) == (True, other == "p1")
        engine.stop()
        if other == "p1":
            assert line["event"] == "credentials replaced"
            engine.start()
        else:
            assert "install bubblewrap" in line["problem"]
            with pytest.raises(AssertionError, match=r"of 2 projects.*bubblewrap is not installed.*= ..process.."):
                engine.start()
            assert engine.wait() == USAGE


def test_bad_credentials_change_nothing_and_are_told(engine: EngineProcess) -> None:
    problems, file = [], engine.data.parent / "credentials.toml"

    for text, mode in (("no toml", 0o600), ("[[tokens]]\ntoken = 'short'", 0o600), (f"# {NEW}", 0o644), ("", 0o600)):
        file.write_text(text)
        file.chmod(mode)
        problems.append(hang_up(engine)["problem"])
    file.unlink()
    problems.append(hang_up(engine)["problem"])

    for problem, reason in zip(problems, ("TOML", "length", "chmod 600", "no credentials", "cannot read"), strict=True):
        assert reason in problem
    assert (admits(engine, OLD), admits(engine, NEW)) == (True, False)
