"""Command line: ``functiond``, or ``python -m engine``."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    from engine.cli.commands import run

    raise SystemExit(run(arguments))
