"""``functiond verify``, ``restore`` and ``recover``: work on the data directory of an engine that does not run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import groupby
from pathlib import Path

import msgspec

from engine.cli.options import ConfigFile, Flag, Json
from engine.cli.output import FAILED, Output, print_json, size_text, write
from engine.code.package_files import counting
from engine.config.settings import Settings, load_settings
from engine.deploy.progress import Show, progress_line
from engine.errors import DataDirectoryLocked, UsageError
from engine.maintenance.backup_folder import is_backup
from engine.maintenance.restore import RestoreProgress
from engine.maintenance.restore import restore as restore_backup
from engine.maintenance.verification import newest_whole_backup
from engine.maintenance.verification import verify as find_problems
from engine.storage import NEXT, DamagedJournal, Loss, Problem, locked_names, put_in_place
from engine.storage.data_directory import BACKUPS, KEY, locked


@contextmanager
def unused(folder: Path, advice: str) -> Iterator[None]:
    """Lock a data directory until the block ends. Raise UsageError with an advice if an engine or a command uses it."""
    try:
        with locked(folder, create=False):
            yield
    except DataDirectoryLocked as error:
        owner = f"process {error.pid}" if error.pid else "another process"
        raise UsageError(f"{folder} is in use by {owner}: {advice}") from None


def verify(folder: Path | None = None, /, *, config: ConfigFile = None, json: Json = False) -> int:
    """Check a backup, or the data directory of an engine that does not run.

    The exit code is 1 if there are problems, and 2 if the folder cannot be checked.

    Parameters
    ----------
    folder
        Backup or data directory. [default: data directory of the settings]
    """
    settings = load_settings(file=config, environ=os.environ) if config or not folder else Settings()
    checked = (folder or settings.storage.path).absolute()
    with progress_line("verifying", quiet=json) as show:
        problems = _check(checked, show, Path(settings.storage.key_file or checked / KEY))
    if json:
        print_json({"path": str(checked), "problems": msgspec.to_builtins(problems)})
        return FAILED if problems else 0
    for problem in problems:
        write(f"{problem.part}: {problem.problem}\n  {problem.advice}")
    if not problems:
        Output().print("[bold green]no problems[/] found in", end="\n")
        Output().paste(str(checked))
    return FAILED if problems else 0


def _check(folder: Path, show: Show, key_file: Path) -> list[Problem]:
    if not (folder / "journal.db").exists():
        raise UsageError(f"{folder} has no journal.db: name a backup, or the data directory of an engine")
    note = counting(lambda read: show({"state": folder.name, "copied": read, "total": 0}))
    with nullcontext() if is_backup(folder) else unused(folder, "stop that engine, or verify a backup of it"):
        if (problems := list(find_problems(folder, note))) or is_backup(folder):
            return problems
        words = f"cannot be decrypted with {key_file}"
        names = locked_names(folder, key_file)
        return [Problem(part="secrets", problem=f"those of {name} {words}", advice=NEXT) for name in names]


def restore(
    backup: Path,
    /,
    *,
    force: Flag = False,
    data_dir: Path | None = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Restore a backup into an empty data directory, after a check of the backup.

    Parameters
    ----------
    backup
        Folder that `functiond backup` has made.
    force
        Restore a damaged backup as it is.
    data_dir
        Data directory, empty or missing. [default: as in the settings]
    """
    overrides = {"storage.data_dir": str(data_dir) if data_dir else None}
    settings = load_settings(file=config, environ=os.environ, overrides=overrides)
    with progress_line("restoring", quiet=json) as show:

        def note(progress: RestoreProgress) -> None:
            show(msgspec.to_builtins(progress))

        done = restore_backup(backup.absolute(), settings.storage.path.absolute(), note, force=force)
    key_file = Path(settings.storage.key_file or Path(done.path, KEY))
    names = locked_names(Path(done.path), key_file)
    if json:
        print_json({**msgspec.to_builtins(done), "locked": names})
        return
    output = Output()
    output.print(f"[bold green]restored[/] {size_text(done.bytes)} in {done.files} files, of {done.made_at}, to")
    output.paste(done.path)
    output.print(
        f"This is journal {done.journal} again, with all its request ids. Two copies must not both accept work: before "
        "you start an engine here, make sure that neither the original nor another copy of it runs.",
        markup=False,
    )
    if done.missing:
        output.print(f"The backup lacks code packages; deploy their functions again: {', '.join(done.missing)}")
    if names:
        write(
            f"Copy the key file of the original to {key_file} before you start an engine. Without it, these secrets "
            f"are lost, and must be set again: {', '.join(names)}"
        )
    if done.keys:
        output.print(f"Name the restored files in the settings: {', '.join(f'keys/{name}' for name in done.keys)}")


def recover(
    folder: Path,
    /,
    *,
    yes: Flag = False,
    backups: Path = Path("/var/backups/functiond"),
    request_id: str = "",
    json: Json = False,
) -> int:
    """Recover the damaged data directory of an engine that does not run.

    All rows that can be read go into a fresh journal. The damaged one stays beside it under another name. Lost rows are
    listed with the next step; the exit code is then 1.

    Parameters
    ----------
    folder
        Data directory.
    yes
        Recover although there is a whole backup.
    backups
        Folder with backups. Those in the data directory and beside it are found, too.
    request_id
        Any request id of the engine, if its journal has lost its number.
    """
    data = folder.absolute()
    if is_backup(data):
        raise UsageError(f"{data} is a backup: restore it with --force into a data directory, and recover that")
    if not any((data / name).exists() for name in ("journal.db", "journal.db.recovered")):
        raise UsageError(f"{data} has no journal.db: name the data directory of an engine")
    with unused(data, "stop that engine"):
        return _recover(data, None if yes else backups, request_id, json)


def _recover(data: Path, backups: Path | None, request_id: str, json: bool) -> int:
    losses = list[Loss]()
    if not (data / "journal.db").exists():
        write(f"an interrupted recovery is complete; the damaged journal is {put_in_place(data)}", errors=json)
        return 0
    with progress_line("recovering", quiet=json) as show:

        def note(read: int, pages: int) -> None:
            if not read % 256:
                show({"state": "pages", "copied": read << 12, "total": pages << 12})

        journal = DamagedJournal(data, note, losses.append, request_id)
        newest = newest_whole_backup((backups, data / BACKUPS, data.parent), journal.identity.name) if backups else None
        if newest is not None:
            path, manifest = newest
            raise UsageError(
                f"{path}, made at {manifest.made_at}, is the newest whole backup: restore it to another directory with"
                " `functiond restore`, or use --yes to recover what came after it, too; nothing was changed"
            )
        done = journal.recover()
    if json:
        print_json({**msgspec.to_builtins(done), "losses": msgspec.to_builtins(losses)})
        return FAILED if losses else 0
    for (table, state, problem, advice), group in groupby(losses, lambda loss: (*msgspec.structs.astuple(loss)[:4],)):
        ids = [loss.id for loss in group]
        write(f"{table}{state and f' ({state})'}: {problem}{advice and f'; {advice}'}\n  " + "\n  ".join(ids))
    if done.log_problem:
        write(f"journal.db-wal was damaged: {done.log_problem}")
    output = Output()
    output.print(f"[bold green]recovered[/] {done.rows['invocation']} invocations, {done.running} of which run again;")
    output.print(f"lost: {len(losses)}. The damaged journal is")
    output.paste(done.damaged)
    return FAILED if losses else 0
