"""Description of an app, from a Python process that imports it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.cli.client import UsageError
from engine.cli.output import write
from engine.cli.timers import read_schedule
from engine.config.search_path import ROOT

_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
CLIENT = os.path.join(ROOT, "engine", "client")  #: folder of the package ``functiond`` in a clone
PROGRAM = "functiond.describe"


class AppFunction(Struct, frozen=True, kw_only=True):
    """Function of an app. None: unchanged."""

    name: str
    attribute: str  #: name of the Python function
    timeout: int | None
    memory: int | None
    retries: int | None
    max_age: int | None
    on_success: str | None
    on_failure: str | None
    schedule: str | None
    zone: str | None  #: of the schedule

    def __post_init__(self) -> None:
        self.timer()

    def timer(self) -> dict[str, str] | None:
        """Return the options of its TIMER trigger. Raises UsageError if the schedule is invalid."""
        return None if self.schedule is None else read_schedule(self.schedule, self.zone)


class AppDescription(Struct, frozen=True, kw_only=True):
    module: str
    app: str
    root: Path  #: folder from which the module is imported
    parts: list[str]  #: files and folders of ``root`` that the package needs
    instance: Path  #: file that is the package ``functiond`` in instances
    functions: list[AppFunction]

    @property
    def handlers(self) -> str:
        """File with the handlers of the app, without its suffix, by its name in the package."""
        return f"functiond_apps/{self.module.replace('.', '/')}/{self.app}"


def is_app(text: str) -> bool:
    return bool(_TARGET.fullmatch(text)) and not os.path.exists(text)


def describe(target: str, search_path: Sequence[str] = ()) -> AppDescription:
    """Import an app, such as ``tasks:app``, and return its description.

    Its modules are searched in ``search_path``, by default in the current folder and as the environment says.

    Raises UsageError after the traceback is printed if the module cannot be imported, or has no such app.
    """
    path = [*search_path, os.environ.get("PYTHONPATH", ""), CLIENT if os.path.isdir(CLIENT) else ""]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    # Without writing bytecode, which would be stale if a file of equal size replaced this one within a second.
    command = [sys.executable, "-B", *(["-P"] if search_path else []), "-m", PROGRAM, target]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if run.returncode == 0:
        if run.stderr:  # output of the modules of the app
            write(run.stderr.rstrip("\n"), errors=True)
        return msgspec.json.decode(run.stdout, type=AppDescription, dec_hook=lambda kind, value: kind(value))
    *lines, last = run.stderr.rstrip("\n").split("\n")
    if last.startswith("functiond: "):
        raise UsageError(last.removeprefix("functiond: "))
    if lines:
        write("\n".join(lines), errors=True)
    raise UsageError(f"cannot import {target}: {last}")
