"""Opening the object store that is configured, be it one that speaks S3 or a folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import anyio.to_thread

from engine import SettingsError
from plugins.obs.folder import FolderStore
from plugins.obs.store import ObsService, Store


class StoreOpener:
    """What the store's client has to load, this loads once: keep it, rather than make another."""

    def __init__(self, service: ObsService) -> None:
        """Raises SettingsError if an endpoint is set and its client is not installed."""
        if service.endpoint and find_spec("aiobotocore") is None:
            raise SettingsError(
                "plugins.obs.endpoint needs a client that is not installed: pip install '.[obs]' in the clone, "
                "or keep objects in plugins.obs.folder"
            )
        self._service = service
        self._session: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        """The store, for as long as the block is entered: cheap for one object, cheaper for many.

        Raises SettingsError if none is configured.
        """
        if not self._service.configured:
            raise SettingsError("there is no object store: set plugins.obs.endpoint, or plugins.obs.folder")
        if self._service.folder:
            yield FolderStore(self._service.folder)
            return
        if self._session is None:
            self._session = await anyio.to_thread.run_sync(_load, self._service)
        from plugins.obs.s3 import open_s3

        async with open_s3(self._session, self._service) as store:
            yield store


def _load(service: ObsService) -> Any:
    from plugins.obs.s3 import load_session  # only now: the client takes a quarter of a second to import

    return load_session(service)
