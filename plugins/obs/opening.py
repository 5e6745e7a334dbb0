"""Access to the configured object store: one with the S3 protocol, or a folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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

    def __init__(self, service: ObsSettings) -> None:
        """Raise SettingsError if an endpoint is set, but the package ``aiobotocore`` is not installed."""
        if service.endpoint and find_spec("aiobotocore") is None:
            raise SettingsError(
                "plugins.obs.endpoint needs a client that is not installed: pip install '.[obs]' in the clone, "
                "or keep objects in plugins.obs.folder"
            )
        self._service = service
        self._loading = anyio.Lock()
        self._session: Any = None
        self.client = SharedClient(self._make_client)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[ObjectStore]:
        """Open the store until the block ends. Raises SettingsError if the settings have no endpoint and no folder."""
        if not self._service.configured:
            raise SettingsError("there is no object store: set plugins.obs.endpoint, or plugins.obs.folder")
        if self._service.folder:
            yield FolderStore(self._service.folder)
            return
        async with self.client.held():
            async with self._loading:
                if self._session is None:
                    self._session = await anyio.to_thread.run_sync(_load, self._service)
            from plugins.obs.s3 import S3Store

            yield S3Store(self.client, self._service.timeout)

    def _make_client(self) -> AbstractAsyncContextManager[Any]:
        from plugins.obs.s3 import open_client

        return open_client(self._session, self._service)


def _load(service: ObsSettings) -> Any:
    from plugins.obs.s3 import load_session  # imported late: the client takes a quarter of a second to import

    return load_session(service)
