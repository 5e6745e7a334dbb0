"""``functiond backup``: backup of a data directory, made by its running engine or without one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.to_thread
import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from engine.app.backup_wiring import backups_of, keys_of
from engine.cli.data_directory import unused
from engine.cli.options import ConfigFile, Flag
from engine.cli.output import FAILED, print_result, size_text, write
from engine.cli.target import DEFAULT_TARGET, Target
from engine.config.settings import Settings, load_settings
from engine.deploy.client import ApiError, Client, NotRunning
from engine.deploy.progress import Show, progress_line
from engine.errors import FunctiondError, UsageError
from engine.maintenance.backup import BackupMade, BackupProgress
from engine.maintenance.backup_folder import add_keys, is_backup, remove_older
from engine.model.clock import SystemClock
from engine.protocols import CopySteps
from engine.storage import copy_offline


def backup(
    destination: Path,
    /,
    *,
    with_key: Flag = False,
    keep: Annotated[int | None, Parameter(validator=Number(gte=1), show_default=False)] = None,
    data_dir: Path | None = None,
    config: Annotated[ConfigFile, Parameter(help="TOML file with the settings of that engine.")] = None,
    target: Target = DEFAULT_TARGET,
) -> int:
    """Back up a data directory: its journal, and the code packages of functions and dependencies.

    The backup is checked at its end. Its problems are listed, and the exit code is then 1.

    The running engine at --url makes the backup, on its own machine. With --data-dir, the command makes the backup
    itself, of a data directory whose engine does not run.

    Parameters
    ----------
    destination
        Path of the backup, a new folder whose parent exists. The running engine makes it in its folder of backups
        (storage.backup_dir), to which a name or a relative path belongs.
    with_key
        Include the credentials file (auth.file) and the TLS key (http.tls_key) that the settings of --config name. This
        command copies them, so run it on the engine's machine, as the engine's user.
    keep
        Number of backups that remain beside each other. Older ones of the same engine are removed, but no whole one if
        this one has problems. This command removes them, as it copies keys.
    data_dir
        Data directory of an engine that does not run.
    """
    overrides, keys = {"storage.data_dir": str(data_dir) if data_dir else None}, dict[str, Path]()
    if with_key or data_dir:
        settings = load_settings(file=config, environ=os.environ, overrides=overrides)
        keys |= keys_of(settings) if with_key else {}
    if with_key and not keys:
        raise UsageError("--with-key: the settings name neither auth.file nor http.tls_key; name them with --config")
    with progress_line("backing up", quiet=target.json) as show:
        if data_dir is None:
            made = _online(target.client(), destination, show)
        else:
            made = _offline(settings, destination.absolute(), show)
    if (keys or keep) and not is_backup(Path(made["path"])):
        raise UsageError("--with-key and --keep: run the command on the engine's machine, as the engine's user")
    if keys:
        add_keys(Path(made["path"]), keys)
    if keep is not None:
        remove_older(Path(made["path"]), keep)
    print_result(made, _text(made), made["path"], json=target.json)
    for problem in made["problems"]:
        write(f"functiond: {problem['part']}: {problem['problem']}\n  {problem['advice']}", errors=True)
    return FAILED if made["problems"] else 0


def _online(client: Client, destination: Path, show: Show) -> dict[str, Any]:
    body = json.dumps({"path": str(destination)}).encode()
    last: dict[str, Any] = {}
    try:
        for line in client.of_project.lines("/backups", method="POST", body=body):
            last = json.loads(line)
            if "error_code" in last:
                raise ApiError(200, last["error_code"], last["error_msg"])
            show(last)
    except NotRunning as error:
        raise FunctiondError(f"{error}; to back up without an engine, name its --data-dir") from None
    if last.get("state") != "done":
        raise ApiError(200, "FSS.0500", "the engine ended before the backup was complete")
    return last


def _offline(settings: Settings, destination: Path, show: Show) -> dict[str, Any]:
    data = settings.storage.path
    if not (data / "journal.db").exists():
        raise UsageError(f"--data-dir {data} has no journal.db: name the data directory of an engine")

    async def copy_storage(folder: Path, on_progress: Callable[[int, int], None]) -> CopySteps:
        await anyio.to_thread.run_sync(copy_offline, data, folder, on_progress)
        return CopySteps()

    async def make() -> BackupMade:
        backups = backups_of(settings, copy_storage, SystemClock(), anywhere=True)
        return await backups.make(await backups.destination(str(destination)), note)

    def note(progress: BackupProgress) -> None:
        show(msgspec.to_builtins(progress))

    with unused(data, "leave out --data-dir, so that the running engine makes the backup"):
        return dict(msgspec.to_builtins(anyio.run(make)))


def _text(made: dict[str, Any]) -> str:
    held = f", writes held up for at most {made['longest_step'] * 1000:.1f} ms" if made["longest_step"] else ""
    packages = f"{made['packages']} code package{'' if made['packages'] == 1 else 's'}"
    state = "[bold red]backed up, not whole,[/]" if made["problems"] else "[bold green]backed up[/]"
    return f"{state} {size_text(made['copied'])} with {packages}{held}"
