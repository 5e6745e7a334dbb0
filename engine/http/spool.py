"""Body of a signed request, on disk until its signature is verified.

A signature covers the hash of the whole body, so no handler may see a part of it before. A short body stays in memory.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

import anyio
import anyio.to_thread

from engine.asgi.room import Room
from engine.asgi.wire import Message
from engine.errors import NotStored, TooManyUnproven

T = TypeVar("T")

#: Key of the ASGI scope: coroutine function to call after the request, which removes what the request has on disk.
CLEAN_UP = "functiond.clean_up"
IN_MEMORY = 64 << 10  #: bytes of a body that are kept in memory
PIECE = 64 << 10  #: bytes that a handler gets at a time
THREADS = 4  #: bodies that are written to disk at a time
UNPROVEN = 512 << 20  #: bytes of all bodies whose signatures are not verified before they are read


class SpoolSpace:
    """Folder of temporary files, and the bytes in them that nobody has proven to be allowed to send."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.unproven = folder, Room(UNPROVEN)
        self.threads = anyio.CapacityLimiter(THREADS)


class Spool:
    """Temporary file in ``space`` for a body of ``client``. ``proven``: it has proven who it is before the body."""

    def __init__(self, space: SpoolSpace, client: str, *, proven: bool) -> None:
        self._space, self._client, self._proven = space, client, proven
        self._hash = hashlib.sha256()
        self._file: IO[bytes] | None = None
        self._left = 0  # bytes that ``receive`` has not returned
        self._counted = 0  # bytes of this body in ``space.unproven``

    @property
    def hash(self) -> bytes:
        """SHA-256 of the body in hexadecimal digits."""
        return self._hash.hexdigest().encode()

    async def write(self, piece: bytes) -> None:
        """Append the next bytes of the body.

        Raises NotStored if the disk refuses them; TooManyUnproven if unproven bodies of the client fill its share.
        """
        if not self._proven:
            self._counted += len(piece)
            self._space.unproven.add(self._client, len(piece))
            if not self._space.unproven.fits(self._client):
                raise TooManyUnproven(self._space.unproven.size)
        await self._in_thread(lambda: self._write(piece))

    async def receive(self) -> Message:
        """Return the next piece of the body, as an ASGI application receives it."""
        piece = await self._in_thread(self._read)
        return {"type": "http.request", "body": piece, "more_body": self._left > 0}

    async def close(self) -> None:
        """Remove the file. A disk that does not take the rest of it is no problem."""
        self._space.unproven.add(self._client, -self._counted)
        self._counted = 0
        if self._file is not None:
            with anyio.CancelScope(shield=True), suppress(OSError):
                await anyio.to_thread.run_sync(self._file.close)

    def _write(self, piece: bytes) -> None:
        if self._file is None:
            self._space.folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(self._space.folder))  # noqa: SIM115  (see ``close``)
        self._hash.update(piece)
        self._file.write(piece)
        self._left += len(piece)

    def _read(self) -> bytes:
        if self._file is None:
            return b""
        self._file.seek(-self._left, 2)
        piece = self._file.read(PIECE)
        self._left -= len(piece)
        return piece

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._space.threads)
        except OSError as error:
            raise NotStored(f"the body of the request: {error.strerror or error}") from error
