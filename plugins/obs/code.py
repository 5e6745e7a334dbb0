"""Reader of functions' code packages from links such as ``obs://bucket/key`` to objects in the configured store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine import CodeLinks
from plugins.obs.links import read_link
from plugins.obs.opening import StoreOpener
from plugins.obs.store import ObsService


class ObsLinks:
    """Reader of packages, given by the link to their object. Raises BadLink for other links, and the store's errors."""

    def __init__(self, service: ObsService) -> None:
        self._host, self._opener = service.host, StoreOpener(service)

    @asynccontextmanager
    async def open(self, link: str) -> AsyncIterator[AsyncIterator[bytes]]:
        bucket, key = read_link(link, self._host)
        async with self._opener.open() as store, store.read(bucket, key) as blocks:
            yield blocks


def code_links(service: ObsService) -> CodeLinks | None:
    """Return the reader of packages by their links, or None if the settings have neither an endpoint nor a folder."""
    return ObsLinks(service) if service.configured else None
