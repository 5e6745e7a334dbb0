"""Deadlines for requests to servers that may never answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio


@contextmanager
def deadline(problem: str, seconds: float) -> Iterator[None]:
    """Raise ConnectionError with the text ``problem`` if the block takes more than ``seconds``."""
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError:
        raise ConnectionError(f"{problem} within {seconds:.0f} s") from None
