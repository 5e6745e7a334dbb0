"""Words for people on standard output, in colour where there is a terminal; or JSON for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

WIDE = 1_000  #: columns of what goes to a file or a pipe: lines for grep, not folded


class Words(Console):
    """Outlives whoever reads it: an engine must not end because ``| head`` has seen enough."""

    def __init__(self) -> None:
        super().__init__(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)

    def on_broken_pipe(self) -> None:
        self.quiet = True

    def paste(self, text: str, style: str = "cyan") -> None:
        """Text as it is, such as a line to paste."""
        self.print(f"  {text}", style=style, markup=False)


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*columns, box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(coloured(cell) for cell in row))
    Words().print(table)


def coloured(text: str) -> str:
    """A cell; states have a colour."""
    colour = {"SUCCESS": "green", "FAIL": "red", "DISCARD": "yellow", "RUNNING": "cyan"}.get(text)
    safe = text.replace("[", r"\[")
    return f"[{colour}]{safe}[/]" if colour else safe


def program() -> str:
    """How this program was called, for a line to paste."""
    if Path(sys.argv[0]).name != "__main__.py":
        return "functiond"
    shown = os.path.relpath(sys.executable)
    return f"{sys.executable if shown.startswith('..') else shown} -m engine"
