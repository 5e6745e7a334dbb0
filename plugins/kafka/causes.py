"""Causes of the client library's errors. The library logs them, and raises errors that do not name them.

Without them, a wrong password, an unknown host and a broker that is down look the same: ``Unable to bootstrap``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

RECENT = 60.0  #: seconds for which a logged error counts as the cause of a later one
LENGTH = 300  #: characters of a cause
_BOOTSTRAP = "Unable to bootstrap"


class Causes:
    """Last error that one client has logged."""

    def __init__(self) -> None:
        self._text, self._noted = "", 0.0

    def note(self, text: str) -> None:
        self._text, self._noted = text[:LENGTH], time.monotonic()

    def added_to(self, problem: str) -> str:
        """Return the text of an error with its cause, if the client has logged one lately."""
        if not self._text or time.monotonic() - self._noted > RECENT:
            return problem
        # The library's own text shows its list of addresses as Python objects.
        return f"cannot connect to the cluster: {self._text}" if _BOOTSTRAP in problem else f"{problem}: {self._text}"


_current: ContextVar[Causes | None] = ContextVar("functiond kafka causes", default=None)


@contextmanager
def named_causes() -> Iterator[None]:
    """Raise connection errors of the block with their cause. Also tasks that a client starts in the block log it."""
    causes = Causes()
    token = _current.set(causes)
    try:
        yield
    except (ConnectionError, TimeoutError) as error:
        raise ConnectionError(causes.added_to(str(error) or type(error).__name__)) from error
    except Exception as error:
        if _BOOTSTRAP not in str(error):
            raise
        raise ConnectionError(causes.added_to(str(error))) from error
    finally:
        _current.reset(token)


class _Handler(logging.Handler):
    """Handler of the library's records, which belong to the client in whose context they are made."""

    def emit(self, record: logging.LogRecord) -> None:
        causes, text = _current.get(), record.getMessage()
        if causes is not None and (record.levelno >= logging.ERROR or text.startswith("Unable")):
            causes.note(text)


_HANDLER = _Handler(logging.WARNING)


def listen(logger: str) -> None:
    """Note the errors that a library logs. Further calls change nothing."""
    logging.getLogger(logger).addHandler(_HANDLER)
