"""``functiond restore``: data directory from a backup."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from engine.cli.output import Output, print_json, size_text
from engine.config.settings import load_settings
from engine.deploy.progress import progress_line
from engine.maintenance.restore import RestoreProgress
from engine.maintenance.restore import restore as restore_backup


def restore(
    backup: Path,
    /,
    *,
    force: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    data_dir: Path | None = None,
    config: Annotated[Path | None, Parameter(env_var="FUNCTIOND_CONFIG")] = None,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
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
    config
        TOML file with settings.
    json
        Print JSON only.
    """
    overrides = {"storage.data_dir": str(data_dir) if data_dir else None}
    settings = load_settings(file=config, environ=os.environ, overrides=overrides)
    with progress_line("restoring", quiet=json) as show:

        def note(progress: RestoreProgress) -> None:
            show(msgspec.to_builtins(progress))

        done = restore_backup(backup.absolute(), settings.storage.path.absolute(), note, force=force)
    if json:
        print_json(msgspec.to_builtins(done))
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
    if done.keys:
        output.print(f"Name the restored files in the settings: {', '.join(f'keys/{name}' for name in done.keys)}")
