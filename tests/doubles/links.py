"""Double of the reader of code packages in an object store (``CodeLinks``): packages in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from engine.errors import BadLink, ObjectMissing


class MemoryLinks:
    """Code packages in memory. ``objects`` has the content of each package, in blocks, by ``obs://bucket/key``."""

    def __init__(self, objects: Mapping[str, Sequence[bytes]]) -> None:
        self._objects = objects

    @asynccontextmanager
    async def open(self, link: str) -> AsyncIterator[AsyncIterator[bytes]]:
        bucket, _, key = link.removeprefix("obs://").partition("/")
        if not (link.startswith("obs://") and bucket and key):
            raise BadLink(link, "must be obs://bucket/key")
        if link not in self._objects:
            raise ObjectMissing(bucket, key)
        yield _each(self._objects[link])


async def _each(blocks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block
