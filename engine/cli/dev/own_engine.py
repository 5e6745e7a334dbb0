"""Engine of ``functiond dev``, which ends with the command."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from engine.config.search_path import ROOT
from engine.errors import FunctiondError

_PARENT_DEATH_SIGNAL = 1  #: of prctl
_GRACE = "2"  #: seconds that running functions get at the end, unless the environment says otherwise


class CannotStart(FunctiondError):
    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot start an engine: {reason}")


@contextmanager
def own_engine(data: Path | None, warned: Callable[[str], None], ended: Callable[[], None]) -> Iterator[str]:
    """Run an engine on a free port until the block ends, and yield its URL. Raises CannotStart.

    Its data are in ``data``, or in a temporary folder. A thread calls ``warned`` with its warnings, and ``ended`` if it
    ends before the block does.
    """
    with ExitStack() as stack:
        folder = str(data) if data else stack.enter_context(TemporaryDirectory(prefix="functiond-dev-"))
        process = _start(folder)
        stack.callback(_stop, process)
        assert process.stderr is not None
        url = _url(process.stderr)
        threading.Thread(target=_follow, args=(process.stderr, warned, ended), daemon=True).start()
        yield url


def _start(folder: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH", "")]))
    environment = {"FUNCTIOND_GRACE": _GRACE, **os.environ, "FUNCTIOND_LOG__FORMAT": "json", "PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "engine", "serve", "--port", "0", "--data-dir", folder],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C in the terminal must reach the command only, which then stops the engine
        preexec_fn=_end_with_parent,
    )


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)


def _url(lines: IO[str]) -> str:
    """Return the URL of a starting engine, from its log."""
    last = "it said nothing"
    for line in lines:
        entry = _entry(line)
        if entry.get("event") == "serving":
            return entry["url"]
        last = entry.get("event", line).strip() or last
    raise CannotStart(last)


def _follow(lines: IO[str], warned: Callable[[str], None], ended: Callable[[], None]) -> None:
    with suppress(ValueError):  # closed
        for line in lines:
            entry = _entry(line)
            if entry.get("level") not in ("debug", "info"):
                warned(entry.get("event", line.strip()))
    ended()


def _entry(line: str) -> dict[str, str]:
    """Return a line of the engine's log; empty for other output, such as a traceback of the interpreter."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return {name: str(value) for name, value in entry.items()} if isinstance(entry, dict) else {}


def _stop(process: subprocess.Popen[str]) -> None:
    """Stop an engine and wait for its end. Ctrl-C meanwhile ends the grace period of running functions."""
    while process.poll() is None:
        process.terminate()
        with suppress(KeyboardInterrupt):
            process.wait()
