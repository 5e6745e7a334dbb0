"""Functions that write the results of commands to standard output: text, coloured on a terminal, or JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape

_COLOURS = {"SUCCESS": "green", "FAIL": "red", "DISCARD": "yellow", "RUNNING": "cyan"}  # states of invocations
_COLOURS |= {"running": "green", "failing": "red"}  # states of sources


class Output(Console):
    """Console that discards further output after its pipe was closed.

    An engine whose output is piped to a program such as ``head`` must keep running when that program exits.
    """

    def __init__(self) -> None:
        super().__init__(highlight=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        self.quiet = True

    def paste(self, text: str, style: str = "cyan") -> None:
        """Print a command for users to copy and paste, indented. Brackets in it are not read as markup."""
        self.print(f"  {text}", style=style, markup=False)


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table. Cells are never cut or wrapped, so that users can copy them; long lines exceed the width."""
    lines = list(rows)
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *lines, strict=True)]
    output = Output()
    for number, line in enumerate((columns, *lines)):
        padded = [set_cell_size(cell, width) for cell, width in zip(line, widths, strict=True)]
        padded[-1] = line[-1]
        text = "  ".join(escape(cell) if number == 0 else coloured(cell) for cell in padded)
        output.print(text, style="bold" if number == 0 else None)


def coloured(text: str) -> str:
    """Return the text of a table cell as markup, coloured if it is a state that has a colour."""
    colour = _COLOURS.get(text.strip())
    return f"[{colour}]{escape(text)}[/]" if colour else escape(text)


def program() -> str:
    """Return the command that started this program, as messages with example commands should show it."""
    if Path(sys.argv[0]).name != "__main__.py":
        return "functiond"
    shown = os.path.relpath(sys.executable)
    return f"{sys.executable if shown.startswith('..') else shown} -m engine"
