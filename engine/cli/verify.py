"""``functiond verify``: check of a data directory or backup."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from engine.cli.exit_codes import FAILED
from engine.cli.output import Output, print_json, write
from engine.code.package_files import counting
from engine.config.settings import load_settings
from engine.deploy.progress import Show, progress_line
from engine.errors import DataDirectoryLocked, UsageError
from engine.maintenance.backup_folder import is_backup
from engine.maintenance.verification import verify as find_problems
from engine.storage.data_directory import locked
from engine.storage.problems import Problem


def verify(
    folder: Path | None = None,
    /,
    *,
    config: Annotated[Path | None, Parameter(env_var="FUNCTIOND_CONFIG")] = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Check a backup, or the data directory of an engine that does not run.

    The exit code is 1 if there are problems, and 2 if the folder cannot be checked.

    Parameters
    ----------
    folder
        Backup or data directory. [default: data directory of the settings]
    config
        TOML file with settings.
    json
        Print JSON only.
    """
    checked = (folder or load_settings(file=config, environ=os.environ).storage.path).absolute()
    with progress_line("verifying", quiet=json) as show:
        found = _check(checked, show)
    if json:
        print_json({"path": str(checked), "problems": msgspec.to_builtins(found)})
        return FAILED if found else 0
    for one in found:
        write(f"{one.part}: {one.problem}\n  {one.advice}")
    if not found:
        Output().print("[bold green]no problems[/] found in", end="\n")
        Output().paste(str(checked))
    return FAILED if found else 0


def _check(folder: Path, show: Show) -> list[Problem]:
    if not (folder / "journal.db").exists():
        raise UsageError(f"{folder} has no journal.db: name a backup, or the data directory of an engine")
    note = counting(lambda read: show({"state": folder.name, "copied": read, "total": 0}))
    try:
        with nullcontext() if is_backup(folder) else locked(folder):
            return list(find_problems(folder, note))
    except DataDirectoryLocked as error:
        owner = f"process {error.pid}" if error.pid else "another process"
        raise UsageError(f"{folder} is in use by {owner}: stop that engine, or verify a backup of it") from None
