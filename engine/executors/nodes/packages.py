"""Sender of code packages to one node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import anyio

from engine.executors.nodes import messages
from engine.executors.nodes.connection import PACKAGE, PIECE, Connection, ProtocolError

_CONCURRENCY = 8  #: packages sent at the same time


class PackageSender:
    """Sender of the packages that the functions of a node need, after everything that is more urgent.

    ``file_of`` returns the path of a package as it was received, by its SHA-256. ``note_sent`` counts bytes.
    """

    def __init__(
        self, connection: Connection, file_of: Callable[[str], Path], note_sent: Callable[[int], None]
    ) -> None:
        self._connection, self._file_of, self._note_sent = connection, file_of, note_sent
        self._allowed: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def allow(self, packages: Iterable[str]) -> None:
        """Let the node fetch these packages."""
        self._allowed.update(packages)

    def send(self, number: int, sha256: str) -> None:
        """Begin to send a package. Raises ProtocolError if no function of the node needs it."""
        if sha256 not in self._allowed or len(self._tasks) >= _CONCURRENCY:
            raise ProtocolError(f"it asked for a package that it does not need: {sha256[:64]!r}")
        task = asyncio.ensure_future(self._send(number, self._file_of(sha256)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _send(self, number: int, path: Path) -> None:
        try:
            async with await anyio.open_file(path, "rb") as file:
                while piece := await file.read(PIECE):
                    await self._connection.room()
                    self._connection.send(PACKAGE, number, piece)
                    self._note_sent(len(piece))
            self._connection.send(PACKAGE, number, b"")  # last: the agent may ask for the next then
        except ConnectionError:
            pass  # the node has gone
        except OSError as error:
            reason = f"the package cannot be read: {error.strerror}"
            messages.send(self._connection, messages.NoPackage(number, reason), number)
