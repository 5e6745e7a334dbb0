"""Upload of code in the body of a request, into a temporary folder of the code store."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from engine.code.receiving import CodeCutter, ReceivedCode
from engine.code.unpacking import check_free
from engine.errors import FunctiondError, NotStored

T = TypeVar("T")


class Upload:
    """Request body with code in a field called ``field``, which has at most ``limit`` bytes when it is decoded.

    Nothing is on disk before the first ``feed``. ``threads`` limits the uploads that compute and write at a time;
    ``keep_free`` bytes must remain free on the disk of ``parent``.
    """

    def __init__(self, parent: Path, threads: anyio.CapacityLimiter, *, keep_free: int, field: str, limit: int) -> None:
        self._folder, self._threads, self._keep_free = parent / f".new-{uuid.uuid4().hex}", threads, keep_free
        self._field, self._limit = field, limit
        self._cutter: CodeCutter | None = None
        self._on_disk = False

    async def feed(self, piece: bytes) -> None:
        """Read the next bytes of the body.

        Raises FieldsTooLarge if the JSON without the code is too large; NotJson if the code is not a text of JSON;
        DiskLow if the disk is nearly full; NotStored if a write fails.
        """
        problem = await self._in_thread(lambda: self._feed(piece))
        if problem is not None:
            try:
                raise problem
            finally:
                del problem  # a reference cycle would keep the piece in memory

    async def end(self) -> bytes:
        """Return the JSON of the body, in which a word stands for the code."""
        cutter = self._cutter
        return b"" if cutter is None else await self._in_thread(cutter.end)

    def code(self, text: str) -> ReceivedCode | None:
        """Return the code for which ``text``, the value of the field, stands; None if ``text`` is the code itself."""
        cutter = self._cutter
        return cutter.code if cutter is not None and text == cutter.word else None

    async def new_folder(self) -> Path:
        """Return a new empty folder on the disk of the code. ``close`` removes it."""
        return await self._in_thread(self._make_folder)

    async def close(self) -> None:
        """Remove the code and the folders, unless they were moved elsewhere."""
        if self._on_disk:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._remove)

    def _feed(self, piece: bytes) -> FunctiondError | None:
        """Read the next bytes. Return an error, because one that is raised in a thread would keep them in memory."""
        try:
            if self._cutter is None:
                self._make()
                self._cutter = CodeCutter(self._folder, self._field, self._limit)
            check_free(self._folder, self._keep_free)
            self._cutter.feed(piece)
        except FunctiondError as error:
            return error.with_traceback(None)
        except OSError as error:
            return _not_stored(error)
        return None

    def _make(self) -> None:
        if not self._on_disk:
            self._folder.mkdir(parents=True)
            self._on_disk = True

    def _make_folder(self) -> Path:
        self._make()
        folder = self._folder / uuid.uuid4().hex
        folder.mkdir()
        return folder

    def _remove(self) -> None:
        if self._cutter is not None:
            self._cutter.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._threads)
        except OSError as error:
            raise _not_stored(error) from error


def _not_stored(error: OSError) -> NotStored:
    return NotStored(f"the code package: {error.strerror or error}")
