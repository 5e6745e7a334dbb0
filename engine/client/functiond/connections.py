"""Connections of a process to an engine, which are closed also if nobody closes them, and after forks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from weakref import finalize

import httpx

HEADERS = {"User-Agent": "functiond-python", "Accept-Encoding": "identity"}


class Connections:
    """Connections that this process opens. They are closed with ``owner``, or at the exit of the program."""

    def __init__(self, owner: object, options: Mapping[str, Any]) -> None:
        self._transport, self._process = httpx.HTTPTransport(**options), os.getpid()
        self.http = httpx.Client(transport=self._transport, headers=HEADERS, trust_env=False)
        self._closing = finalize(owner, _close, self._transport, self._process)

    @property
    def usable(self) -> bool:
        """Return True if this process has opened the connections, and its exit has not closed them."""
        return self._process == os.getpid() and self._closing.alive

    def close(self) -> None:
        self._closing.detach()
        _close(self._transport, self._process)


def _close(transport: httpx.HTTPTransport, process: int) -> None:
    """Close connections that ``process`` has opened."""
    if process == os.getpid():
        transport.close()
        return
    # A thread of that process may have held the lock of the pool during the fork, so `close` could wait forever.
    for connection in transport._pool.connections:
        connection.close()
