"""Access to the configured object store: one with the S3 protocol, or a folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import anyio
import anyio.to_thread

from engine import SettingsError
from plugins._shared.connections import SharedClient
from plugins.obs.folder import FolderStore
from plugins.obs.options import ObsSettings
from plugins.obs.store import ObjectStore


class StoreOpener:
    """Opener of the configured store. All users of an S3 store share one client, and its library is loaded once."""

    def __init__(self, settings: ObsSettings) -> None:
        """Raise SettingsError if an endpoint is set, but the package ``aiobotocore`` is not installed."""
        if settings.endpoint and find_spec("aiobotocore") is None:
            raise SettingsError(
                "plugins.obs.endpoint needs a client that is not installed: pip install '.[obs]' in the clone, "
                "or keep objects in plugins.obs.folder"
            )
        self._settings = settings
        self._loading = anyio.Lock()
        self._s3: Any = None  #: module that imports the client library, and its session
        self._session: Any = None
        self.client = SharedClient(lambda: self._s3.open_client(self._session, settings))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[ObjectStore]:
        """Open the store until the block ends. Raises SettingsError if the settings have no endpoint and no folder."""
        if not self._settings.configured:
            raise SettingsError("there is no object store: set plugins.obs.endpoint, or plugins.obs.folder")
        if self._settings.folder:
            yield FolderStore(self._settings.folder)
            return
        async with self.client.held():
            async with self._loading:
                if self._session is None:  # in threads: the client takes a quarter of a second to import
                    self._s3 = await anyio.to_thread.run_sync(import_module, "plugins.obs.s3")
                    self._session = await anyio.to_thread.run_sync(self._s3.load_session, self._settings)
            yield self._s3.S3Store(self.client, self._settings.timeout)
