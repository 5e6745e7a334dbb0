"""Commands of the program ``functiond``, also started as ``python -m engine``."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command of the command line and exit with its exit code."""
    from engine.config.search_path import append_client

    append_client()
    from engine.cli.commands import run

    raise SystemExit(run(arguments))
