"""``functiond recover``: fresh journal with all rows of a damaged one that can be read."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from engine.cli.exit_codes import FAILED
from engine.cli.output import Output, print_json, write
from engine.deploy.progress import progress_line
from engine.errors import DataDirectoryLocked, UsageError
from engine.maintenance.backup_folder import is_backup
from engine.maintenance.verification import newest_whole_backup
from engine.storage import DamagedJournal, Loss, put_in_place
from engine.storage.data_directory import BACKUPS, locked


def recover(
    folder: Path,
    /,
    *,
    yes: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    backups: Path = Path("/var/backups/functiond"),
    request_id: str = "",
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
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
    json
        Print JSON only.
    """
    data = folder.absolute()
    if is_backup(data):
        raise UsageError(f"{data} is a backup: restore it with --force into a data directory, and recover that")
    if not any((data / name).exists() for name in ("journal.db", "journal.db.recovered")):
        raise UsageError(f"{data} has no journal.db: name the data directory of an engine")
    try:
        with locked(data, create=False):
            return _recover(data, None if yes else backups, request_id, json)
    except DataDirectoryLocked as error:
        owner = f"process {error.pid}" if error.pid else "another process"
        raise UsageError(f"{data} is in use by {owner}: stop that engine") from None


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
        found = newest_whole_backup((backups, data / BACKUPS, data.parent), journal.identity.name) if backups else None
        if found is not None:
            path, manifest = found
            raise UsageError(
                f"{path}, made at {manifest.made_at}, is the newest whole backup: restore it to another directory with"
                " `functiond restore`, or use --yes to recover what came after it, too; nothing was changed"
            )
        done = journal.recover()
    if json:
        print_json({**msgspec.to_builtins(done), "losses": msgspec.to_builtins(losses)})
        return FAILED if losses else 0
    for (table, state, problem, advice), group in groupby(losses, lambda one: (*msgspec.structs.astuple(one)[:4],)):
        ids = [one.id for one in group]
        write(f"{table}{state and f' ({state})'}: {problem}{advice and f'; {advice}'}\n  " + "\n  ".join(ids))
    if done.log_problem:
        write(f"journal.db-wal was damaged: {done.log_problem}")
    output = Output()
    output.print(f"[bold green]recovered[/] {done.rows['invocation']} invocations, {done.running} of which run again;")
    output.print(f"lost: {len(losses)}. The damaged journal is")
    output.paste(done.damaged)
    return FAILED if losses else 0
