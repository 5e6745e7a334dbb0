"""Command line in this process, for an engine in another: much faster than a process for each command."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from engine.cli.commands import run
from tests.support.engine_process import CLEAN


def functiond_here(
    *arguments: str | Path, url: str = "", stdin: str = "", environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command in this process."""
    given, out, error = [*map(str, arguments)], StringIO(), StringIO()
    source = TextIOWrapper(BytesIO(stdin.encode()))
    environment = {**CLEAN, **({"FUNCTIOND_URL": url} if url else {}), **(environ or {})}
    with (
        redirect_stdout(out),
        redirect_stderr(error),
        mock.patch.object(sys, "stdin", source),
        mock.patch.dict(os.environ, environment, clear=True),
    ):
        code = run(given)
    return subprocess.CompletedProcess(given, code, out.getvalue(), error.getvalue())


class Cli:
    """Commands with the URL of an engine, and a project."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str], project: str = "default") -> None:
        self.project, self._url, self._capsys = project, url, capsys

    def of_project(self, project: str) -> Cli:
        return Cli(self._url, self._capsys, project)

    def __call__(self, *arguments: object) -> str:
        """Run a command and return its standard output."""
        code, out, error = self.run(*arguments)
        assert code == 0, error
        return out

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--json"))

    def refused(self, *arguments: object, code: int = 2) -> str:
        """Run a failing command and return its standard error."""
        status, out, error = self.run(*arguments)
        assert (status, out) == (code, "")
        return error

    def run(self, *arguments: object) -> tuple[int, str, str]:
        """Run a command and return its exit code, standard output and standard error."""
        self._capsys.readouterr()
        code = run([*map(str, arguments), "--url", self._url, "--project", self.project])
        return code, *self._capsys.readouterr()


def functiond_into_a_file(*arguments: str | Path, url: str, file: Path, typed: str = "") -> tuple[int, str]:
    """Run one command as ``functiond ... > file`` does on a terminal. Return its exit code and what the terminal shows.

    ``typed`` is what the user types.
    """
    master, slave = pty.openpty()
    shown = bytearray()

    def read() -> None:
        with suppress(OSError):  # the last writer has closed the terminal
            while some := os.read(master, 65_536):
                shown.extend(some)

    os.write(master, typed.encode())
    terminal = threading.Thread(target=read)
    terminal.start()
    with (
        open(slave, closefd=False) as source,
        open(slave, "w", closefd=False) as error,
        file.open("w") as out,
        redirect_stdout(out),
        redirect_stderr(error),
        mock.patch.object(sys, "stdin", source),
        mock.patch.dict(os.environ, {"FUNCTIOND_URL": url, "TERM": "xterm"}),
    ):
        code = run([*map(str, arguments)])
    os.close(slave)
    terminal.join()
    os.close(master)
    return code, shown.decode()
