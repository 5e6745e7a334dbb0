"""Progress of commands that take long, in one line on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: Receives the state of the copy: ``state`` (the part that is copied), ``copied``, ``total`` and perhaps ``files``.
Show = Callable[[dict[str, Any]], None]


@contextmanager
def progress_line(action: str, *, quiet: bool) -> Iterator[Show]:
    """Yield a function that shows the state of a copy in one line, if standard error is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda state: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), DownloadColumn(binary_units=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(action, total=None)

        def show(state: dict[str, Any]) -> None:
            files = f", {state['files']} files" if state.get("files") else ""
            description = f"{action} {state['state']}{files}"
            progress.update(task, description=description, completed=state["copied"], total=state["total"] or None)

        yield show


@contextmanager
def counter_line(action: str, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows how many rows are done in one line, if standard error is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console

    with Console(stderr=True).status(action) as status:
        yield lambda count: status.update(f"{action} {count:,}")
