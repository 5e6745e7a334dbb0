"""Logs longer than the tail that the journal keeps: a file each, in the format of ``engine.log_lines``."""

from __future__ import annotations

from pathlib import Path

from engine.executors.transcript import Written
from engine.log_lines import TAIL


def log_file(log_dir: Path, request_id: str) -> Path:
    """Where the whole log of an invocation lies, if it was longer than the tail."""
    return log_dir / request_id[11:13] / request_id  # the low bits of its millisecond: 256 folders


def keep_log(log_dir: Path, request_id: str, written: Written) -> None:
    """Write the log of an invocation's newest attempt, or drop that of an earlier one. Blocks; never raises.

    It is not synchronised to disk: a log is a help, not a promise.
    """
    file = log_file(log_dir, request_id)
    try:
        if len(written.kept) <= TAIL:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(written.whole())
    except OSError:
        pass  # a full disk must not turn a success into a failure; the tail is in the Outcome
