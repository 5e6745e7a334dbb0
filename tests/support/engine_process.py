"""Engine in a process of its own, and the command line that is its client."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from msgspec import Struct

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "engine")
#: Environment of the test run without the variables that are settings.
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("FUNCTIOND_")}


class EngineProcess(Struct):
    """Running engine. ``said`` is its standard output, still to be read; ``log`` holds the log lines after its end."""

    process: subprocess.Popen[str]
    url: str
    said: IO[str]
    log: list[str]


@contextmanager
def engine_process(
    folder: Path,
    *options: str,
    environ: Mapping[str, str] | None = None,
    program: Sequence[str | Path] = PROGRAM,
    cwd: Path = ROOT,
) -> Iterator[EngineProcess]:
    """Run an engine with its data in ``folder``/data; stop it by SIGTERM. Its functions can access the host's files."""
    command = [*program, "serve", "--port", "0", "--data-dir", str(folder / "data"), *options]
    environment = {**CLEAN, "FUNCTIOND_LOG__FORMAT": "json", "FUNCTIOND_EXECUTOR__ISOLATION": "process"}
    environment |= environ or {}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment, text=True, cwd=cwd)
    with process, ThreadPoolExecutor(1) as drain:
        assert process.stderr is not None
        assert process.stdout is not None
        try:
            log: list[str] = []
            engine = EngineProcess(process=process, url=_url(process.stderr, log), said=process.stdout, log=log)
            # The log is read all the time, or a full pipe would block the engine.
            drain.submit(log.extend, process.stderr)
            yield engine
        finally:
            process.terminate()


def _url(lines: Iterator[str] | Any, log: list[str]) -> str:
    for line in lines:
        log.append(line)
        if '"serving"' in line:
            url: str = json.loads(line)["url"]
            return url
    raise AssertionError(f"the engine ended: {''.join(log)}")


def functiond(
    *arguments: str | Path, url: str = "", stdin: str = "", environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command and wait for its end."""
    environment = {**CLEAN, **({"FUNCTIOND_URL": url} if url else {}), **(environ or {})}
    command = [sys.executable, "-m", "engine", *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=120, check=False
    )


def functiond_on_a_terminal(*arguments: str | Path, url: str = "", **environ: str) -> tuple[int, str]:
    """Run a command with a terminal, and return its exit code and what the terminal gets."""
    master, slave = pty.openpty()
    # Without colours, a command sends no control character of its own.
    environment = {**CLEAN, "TERM": "dumb", "NO_COLOR": "1", **({"FUNCTIOND_URL": url} if url else {}), **environ}
    command = [*PROGRAM, *map(str, arguments)]
    with subprocess.Popen(command, stdout=slave, stderr=slave, env=environment, cwd=ROOT) as process:
        os.close(slave)
        got = b""
        try:
            while some := os.read(master, 65_536):
                got += some
        except OSError:  # the last writer has closed the terminal
            pass
        os.close(master)
    return process.returncode, got.decode().replace("\r\n", "\n")
