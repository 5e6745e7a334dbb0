"""Results of commands: text, coloured on a terminal, or JSON; and their exit codes.

Results contain text of functions and of other clients. Its control characters would command the user's terminal, so
they are printed as escapes. With ``--raw``, they are written unchanged to a file or a pipe.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape

from engine.errors import UsageError
from engine.model.text import CONTROLS, visible

#: Exit codes. FAILED: the command, or the function that it called, failed. USAGE: the command line, the settings or the
#: data directory must be corrected first. RESTART: a supervisor should restart the engine. WOULD_CHANGE: a plan has
#: changes.
FAILED, USAGE, RESTART, WOULD_CHANGE = 1, 2, 3, 4
_TEXT = "\n\t"  #: control characters of a text of several lines
Row = dict[str, str]  #: cells of a table by their columns
_COLOURS = {"SUCCESS": "green", "FAIL": "red", "DISCARD": "yellow", "RUNNING": "cyan"}  # states of invocations
_COLOURS |= {"running": "green", "failing": "red", "paused": "yellow"}  # states of sources, destinations and functions
_COLOURS |= {"ready": "green", "silent": "yellow", "lost": "red", "refused": "red"}  # states of nodes


class Output(Console):
    """Console that discards further output after its pipe was closed.

    An engine whose output is piped to a program such as ``head`` must keep running when that program exits. Control
    characters are printed as escapes, unless ``raw``.
    """

    def __init__(self, *, raw: bool = False) -> None:
        super().__init__(highlight=False, soft_wrap=True, emoji=False)
        self._raw = raw

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(visible(item, _TEXT) if isinstance(item, str) else item for item in objects), **options)

    def data(self, text: str, style: str) -> None:
        """Print data of a function, of one or more lines. Brackets in it are not read as markup."""
        if self._raw:
            print(text, file=self.file, flush=True)  # rich would remove some characters
        else:
            self.print(text, style=style, markup=False)

    def on_broken_pipe(self) -> None:
        self.quiet = True

    def paste(self, text: str, style: str = "cyan") -> None:
        """Print a command for users to copy and paste, indented. Brackets in it are not read as markup."""
        self.print(f"  {text}", style=style, markup=False)


def check_raw(raw: bool) -> None:
    """Raise UsageError if raw output is requested and standard output is a terminal."""
    if raw and sys.stdout.isatty():
        raise UsageError(
            "--raw prints control characters of functions, which a terminal obeys: send the output to a file or a pipe"
        )


def write(text: str, *, raw: bool = False, errors: bool = False, keep: str = _TEXT) -> None:
    """Print a text to standard output, or to standard error if ``errors``.

    Control characters except those in ``keep`` are printed as escapes. If ``raw``, only a terminal gets escapes.
    """
    file: TextIO = sys.stderr if errors else sys.stdout
    print(text if raw and not file.isatty() else visible(text, keep), file=file, flush=True)


def print_json(value: object, indent: int | None = 2) -> None:
    """Print a value as JSON, with its control characters as escapes of JSON."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    print(CONTROLS.sub(_json_escape, text), flush=True)


def print_result(value: object, text: str, paste: str = "", *, json: bool) -> None:
    """Print a result as JSON, or as a text, with ``paste`` below it for users to copy."""
    if json:
        print_json(value)
        return
    output = Output()
    output.print(text)
    if paste:
        output.paste(paste)


def print_done(action: str, name: str, *, json: bool, kind: str = "", function: str = "") -> None:
    """Print that something was done, as ``{"deleted": "prod"}`` or as ``deleted alias prod of resize``."""
    named = f"{kind} [bold]{name}[/]" if kind else f"[bold]{name}[/]"
    text = f"[bold green]{action}[/] {named}{f' of [bold]{function}[/]' if function else ''}"
    print_result({action: name}, text, json=json)


def _json_escape(match: re.Match[str]) -> str:
    if match[0] == "\n":  # between lines: json.dumps has escaped those of values
        return "\n"
    units = match[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, raw: bool = False) -> None:
    """Print a table. Cells are never cut or wrapped, so that users can copy them; long lines exceed the width."""
    if raw:
        for row in (columns, *rows):
            print("  ".join(row), flush=True)
        return
    lines = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, cells)) for cells in zip(columns, *lines, strict=True)]
    output = Output()
    for number, line in enumerate((columns, *lines)):
        padded = [set_cell_size(cell, width) for cell, width in zip(line, widths, strict=True)]
        padded[-1] = line[-1]
        text = "  ".join(escape(cell) if number == 0 else coloured(cell) for cell in padded)
        output.print(text, style="bold" if number == 0 else None)


def print_list(
    objects: Sequence[dict[str, Any]],
    empty: str,
    row: Callable[[dict[str, Any]], Row],
    *,
    json: bool,
    raw: bool = False,
) -> None:
    """Print objects as JSON, or as a table with a row for each; without objects, the text ``empty``."""
    if json:
        print_json(objects)
    elif objects:
        rows = [row(each) for each in objects]
        print_table([*rows[0]], ([*cells.values()] for cells in rows), raw=raw)
    else:
        Output().print(empty, style="dim")


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


def size_text(size: int) -> str:
    """Return a number of bytes as text, such as ``1.5 MiB``."""
    power = min((size.bit_length() - 1) // 10, 4) if size else 0
    return f"{size / (1 << 10 * power):,.{1 if power else 0}f} {('bytes', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
