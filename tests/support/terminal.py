"""Command on a terminal of its own, with keys."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.engine_process import CLEAN, PROGRAM, ROOT

_LONGEST = 60.0  #: seconds until a text must appear
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Running command, and the terminal that it controls."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, slave: int) -> None:
        self.process, self.mode = process, termios.tcgetattr(slave)
        self.everything = ""  #: all output up to now, without control sequences
        self._master, self._slave, self._seen = master, slave, 0

    def expect(self, text: str) -> str:
        """Wait for a text after the last expected one. Return the output up to its end."""
        until = time.monotonic() + _LONGEST
        while (index := self.everything.find(text, self._seen)) < 0:
            assert time.monotonic() < until, f"no {text!r} in {self.everything[self._seen :]!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                raw = os.read(self._master, 65_536)
                self.everything += _CONTROL.sub(b"", raw).decode(errors="replace").replace("\N{NO-BREAK SPACE}", " ")
        passed, self._seen = self.everything[self._seen : index + len(text)], index + len(text)
        return passed

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait(self) -> int:
        """Read the output until the command has ended. Return its exit code."""
        until = time.monotonic() + _LONGEST
        while self.process.poll() is None and time.monotonic() < until:
            if select.select([self._master], [], [], 0.05)[0]:
                os.read(self._master, 65_536)
        return self.process.wait(1)

    def hang_up(self) -> None:
        """Close the terminal, as a window that is closed does."""
        null = os.open(os.devnull, os.O_RDWR)
        for end in (self._slave, self._master):
            os.dup2(null, end)
        os.close(null)

    def is_restored(self) -> bool:
        return termios.tcgetattr(self._slave) == self.mode


@contextmanager
def terminal(*arguments: str | Path, environ: Mapping[str, str]) -> Iterator[Terminal]:
    """Run a command of functiond on a new terminal until the block ends."""
    master, slave = pty.openpty()
    environment = {**CLEAN, "TERM": "xterm", "COLUMNS": "200", "LINES": "40", **environ}
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    with process:
        running = Terminal(process, master, slave)
        running.mode = before
        try:
            yield running
        finally:
            process.kill()
            os.close(master)
            os.close(slave)
