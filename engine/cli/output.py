"""Words for people on standard output, in colour where there is a terminal; or JSON for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape

_COLOURS = {"SUCCESS": "green", "FAIL": "red", "DISCARD": "yellow", "RUNNING": "cyan"}  # of invocations
_COLOURS |= {"running": "green", "failing": "red"}  # of sources


class Output(Console):
    """Outlives whoever reads it: an engine must not end because ``| head`` has seen enough."""

    def __init__(self) -> None:
        super().__init__(highlight=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        self.quiet = True

    def paste(self, text: str, style: str = "cyan") -> None:
        """Text as it is, such as a line to paste."""
        self.print(f"  {text}", style=style, markup=False)


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Cells are never cut or folded: what is shown can be copied. A line too long is the terminal's to break."""
    lines = list(rows)
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *lines, strict=True)]
    output = Output()
    for number, line in enumerate((columns, *lines)):
        padded = [set_cell_size(cell, width) for cell, width in zip(line, widths, strict=True)]
        padded[-1] = line[-1]
        text = "  ".join(escape(cell) if number == 0 else coloured(cell) for cell in padded)
        output.print(text, style="bold" if number == 0 else None)


def coloured(text: str) -> str:
    """A cell; states have a colour."""
    colour = _COLOURS.get(text.strip())
    return f"[{colour}]{escape(text)}[/]" if colour else escape(text)


def program() -> str:
    """How this program was called, for a line to paste."""
    if Path(sys.argv[0]).name != "__main__.py":
        return "functiond"
    shown = os.path.relpath(sys.executable)
    return f"{sys.executable if shown.startswith('..') else shown} -m engine"
