"""Cache of code packages, by SHA-256. Each is fetched from the engine once, and unpacked below the data directory.

The packages used least recently go when all together have more bytes than allowed, apart from those that instances use.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePath

import structlog

from engine.code.store import CodeSource, CodeStore
from engine.errors import FunctiondError, Unavailable
from engine.executors.nodes.connection import Connection
from engine.executors.nodes.messages import Fetch, send
from engine.isolation.orphans import remove_tree
from engine.model import CodePackage, Function

_NAME = re.compile("[0-9a-f]{64}")
_CONCURRENCY = 4  #: packages fetched at the same time; the engine allows twice as many

log = structlog.get_logger("functiond.agent")


class Packages:
    """Packages in ``folder``, of at most ``limit`` bytes together. Is the store's reader of links, which are hashes."""

    def __init__(self, folder: Path, limit: int, connection: Connection, numbers: Iterator[int]) -> None:
        self._folder, self._limit, self._connection, self._numbers = folder, limit, connection, numbers
        self._store = CodeStore(folder, links=self)
        self.folder = self._store.folder
        self._sizes: dict[str, int] = {}  #: bytes of each that is complete; the one used least recently is first
        self._uses = Counter[str]()  #: instances that have it or wait for it
        self._tasks: dict[str, asyncio.Task[None]] = {}  #: for those that are fetched
        self._receiving: dict[int, asyncio.Queue[bytes | Unavailable]] = {}  #: by the numbers of ``Fetch``
        self._turns = asyncio.Semaphore(_CONCURRENCY)

    async def load(self) -> None:
        """Find the packages of earlier agents, and remove incomplete ones."""
        self._sizes = await asyncio.to_thread(_scan, self._folder)
        await self._shrink()

    def use(self, function: Function) -> None:
        """Keep the packages of a function until ``release``."""
        self._uses.update(package.sha256 for package in _packages(function))

    def release(self, function: Function) -> None:
        self._uses.subtract(package.sha256 for package in _packages(function))
        for package in _packages(function):
            if package.sha256 in self._sizes:
                self._sizes[package.sha256] = self._sizes.pop(package.sha256)  # now the last
                with suppress(OSError):
                    self.folder(package).touch()

    async def fetch(self, function: Function) -> None:
        """Wait until the packages of a function are here. Raises OSError if one cannot be had."""
        for package in _packages(function):
            name = package.sha256
            if name not in self._sizes:
                if name not in self._tasks:
                    self._tasks[name] = asyncio.create_task(self._add(package, function))
                await asyncio.shield(self._tasks[name])  # others may wait for it, too

    # --- called for messages of the engine ---

    def received(self, number: int, piece: bytes) -> None:
        if number in self._receiving:  # otherwise it was given up
            self._receiving[number].put_nowait(piece)

    def failed(self, number: int, reason: str) -> None:
        if number in self._receiving:
            self._receiving[number].put_nowait(Unavailable(reason))

    # --- CodeLinks ---

    @asynccontextmanager
    async def open(self, link: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._turns:
            number = next(self._numbers)
            queue = self._receiving[number] = asyncio.Queue()
            send(self._connection, Fetch(number, link))
            try:
                yield _blocks(queue)
            finally:
                del self._receiving[number]

    # --- internal ---

    async def _add(self, package: CodePackage, function: Function) -> None:
        name = package.sha256

        def check(received: CodePackage) -> None:
            if received.sha256 != name:
                raise Unavailable("its contents have another hash")

        try:
            source = CodeSource(kind="obs", url=name)
            if package.kind == "inline":
                async with self.open(name) as blocks:
                    text = base64.b64encode(b"".join([block async for block in blocks])).decode()
                source = CodeSource(kind="inline", file=text, filename=package.filename)
            handler, module = function.handler, PurePath(package.filename).stem
            if not handler.rpartition(".")[0].endswith(module):  # changed after the code; the hash covers the file name
                handler = f"{module}.handler"
            await self._store.add(source, handler=handler, runtime=function.runtime, admit=check)
            await asyncio.to_thread(self._store.received(package).unlink)
            self._sizes[name] = await asyncio.to_thread(_size, self.folder(package))
        except (FunctiondError, OSError) as error:
            log.warning("package not fetched", sha256=name, problem=str(error))
            raise OSError(errno.EIO, f"the code package {name[:12]} was not fetched: {error}") from error
        finally:
            del self._tasks[name]
        await self._shrink()  # now: a package that is removed here may be fetched again at once

    async def _shrink(self) -> None:
        """Remove packages until the others have at most ``limit`` bytes, or are all used."""
        for name in list(self._sizes):
            if sum(self._sizes.values()) <= self._limit:
                break
            if name in self._sizes and not self._uses[name]:  # another call may have removed it meanwhile
                del self._sizes[name], self._uses[name]
                old = self._folder / f".old-{uuid.uuid4().hex}"
                (self._folder / name).rename(old)  # at once: the package may be fetched again
                await asyncio.to_thread(remove_tree, old)


def _packages(function: Function) -> list[CodePackage]:
    return [function.code, *(dependency.code for dependency in function.dependencies)]


async def _blocks(queue: asyncio.Queue[bytes | Unavailable]) -> AsyncIterator[bytes]:
    while block := await queue.get():
        if isinstance(block, Unavailable):
            raise block
        yield block


def _scan(folder: Path) -> dict[str, int]:
    """Return the bytes of each complete package, and remove everything else. Blocks."""
    found = []
    for entry in folder.iterdir() if folder.is_dir() else ():
        if _NAME.fullmatch(entry.name):
            found.append((entry.stat().st_mtime, entry))
        elif entry.is_dir():
            remove_tree(entry)
        else:
            entry.unlink()
    return {entry.name: _size(entry) for _, entry in sorted(found)}


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
