"""Words for people: on standard output, in colour where there is a terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console


class Words(Console):
    """Outlives whoever reads it: an engine must not end because ``| head`` has seen enough."""

    def __init__(self) -> None:
        super().__init__(highlight=False, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        self.quiet = True


def program() -> str:
    """How this program was called, for a line to paste."""
    if Path(sys.argv[0]).name != "__main__.py":
        return "functiond"
    shown = os.path.relpath(sys.executable)
    return f"{sys.executable if shown.startswith('..') else shown} -m engine"
