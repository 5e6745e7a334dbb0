"""Progress of commands that take long, in one line on a terminal, and notes for their users.

All of it goes to standard error. Standard output stays as it is, because it may be a file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engine.model.text import visible

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

#: Receives the state of the copy: ``state`` (the part that is copied), ``copied``, ``total`` and perhaps ``files``.
Show = Callable[[dict[str, Any]], None]


def progress_of(*columns: ProgressColumn) -> Progress:
    """Return a display of progress on standard error, which is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)


def report(text: str) -> None:
    """Print lines for the user to standard error. Other control characters are printed as escapes."""
    print(visible(text, "\n\t"), file=sys.stderr, flush=True)


@contextmanager
def progress_line(action: str, *, quiet: bool) -> Iterator[Show]:
    """Yield a function that shows the state of a copy in one line, if standard error is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda state: None
        return
    from rich.progress import BarColumn, DownloadColumn, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), DownloadColumn(binary_units=True))
    with progress_of(*columns) as progress:
        task = progress.add_task(action, total=None)

        def show(state: dict[str, Any]) -> None:
            files = f", {state['files']} files" if state.get("files") else ""
            description = f"{action} {state['state']}{files}"
            progress.update(task, description=description, completed=state["copied"], total=state["total"] or None)

        yield show


@contextmanager
def status_line(action: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a text after the action in one line, if standard error is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.progress import SpinnerColumn, TextColumn

    with progress_of(SpinnerColumn(), TextColumn("{task.description}", markup=False)) as progress:
        task = progress.add_task(action, total=None)
        yield lambda text: progress.update(task, description=f"{action} {text}")
