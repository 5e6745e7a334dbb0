"""Programs that install dependencies: uv, pip and npm, with their progress and their errors."""

from __future__ import annotations

import os
import subprocess
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from engine.cli.client import UsageError
from engine.cli.progress import status_line
from engine.model.text import visible

_SHOWN = 12  #: first lines of a program, and last ones, that an error shows
#: Settings of users for other installations than these.
_ENVIRONMENT = {
    "PIP_REQUIRE_VIRTUALENV": "0",
    "PIP_USER": "0",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "NO_COLOR": "1",
}


def run_tool(command: Sequence[str], folder: Path, action: str, advice: str = "") -> None:
    """Run a program in a folder, and show its last line on a terminal.

    Raises UsageError with its first and last lines and an advice if it fails.
    """
    first: list[str] = []
    last: deque[str] = deque(maxlen=_SHOWN)
    # An empty or relative entry, as in PYTHONPATH=$PYTHONPATH:/lib, would have Python import modules of the folder.
    modules = ":".join(filter(os.path.isabs, os.environ.get("PYTHONPATH", "").split(":")))
    environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": modules}
    with (
        status_line(action) as show,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                (first if len(first) < _SHOWN else last).append(line.rstrip())
                show(visible(line.strip())[:100])
    if process.returncode:
        said = "\n  ".join([f"cannot finish {action}:", *first, *last])
        raise UsageError(f"{said}\n{advice}".rstrip())
