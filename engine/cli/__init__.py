"""The command line: ``functiond``, which is also ``python -m engine``."""

from __future__ import annotations

from collections.abc import Sequence

#: Exit codes. A supervisor should start the engine again after RESTART; after USAGE someone has to change something.
FAILED, USAGE, RESTART = 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    from engine.cli.commands import run

    raise SystemExit(run(arguments))
