"""Single keys of a terminal, read in a thread."""

from __future__ import annotations

import os
import re
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_READ = 64  #: bytes
_SEQUENCE = re.compile(r"\x1b(\[[0-9;]*[A-Za-z~]|O.)?")  #: of arrows and function keys


def has_keys() -> bool:
    """Return whether the command can read keys: it has a terminal, in whose foreground it runs."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # not the terminal of this session
        return False


class Keyboard:
    """Terminal in a mode in which it hands on each key at once, without showing it.

    ``pressed`` is called with each key, and with an empty text if the terminal is gone. The next key is read after
    ``handled`` was called, so that others can read lines meanwhile.
    """

    def __init__(self, pressed: Callable[[str], None]) -> None:
        self._pressed, self._input = pressed, sys.stdin.fileno()
        self._lines = termios.tcgetattr(self._input)
        self._handled = threading.Event()

    @contextmanager
    def keys(self) -> Iterator[None]:
        """Read keys until the block ends, then restore the terminal's mode."""
        # The shell changes the mode while the command is stopped.
        earlier = signal.signal(signal.SIGCONT, lambda number, frame: self._set_keys())
        try:
            self._set_keys()
            threading.Thread(target=self._read, daemon=True).start()
            yield
        finally:
            self._restore()
            signal.signal(signal.SIGCONT, earlier)

    @contextmanager
    def lines(self) -> Iterator[None]:
        """Give the terminal the mode in which it reads whole lines, until the block ends."""
        self._restore()
        try:
            yield
        finally:
            self._set_keys()

    def handled(self) -> None:
        self._handled.set()

    def _read(self) -> None:
        while True:
            try:
                text = os.read(self._input, _READ).decode(errors="replace")
            except OSError:
                text = ""
            for key in _SEQUENCE.sub("", text) if text else [""]:
                self._handled.clear()
                self._pressed(key)
                self._handled.wait()
            if not text:
                return

    def _set_keys(self) -> None:
        with suppress(termios.error):  # the terminal is gone
            tty.setcbreak(self._input, termios.TCSADRAIN)

    def _restore(self) -> None:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._lines)
