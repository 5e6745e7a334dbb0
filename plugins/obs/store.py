"""The object store, real or a folder: what triggers, destinations and code links need of it.

Errors are those of ``engine``: ObjectMissing, StoreRefused, StoreUnavailable.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Protocol
from urllib.parse import urlsplit

from msgspec import Meta, Struct

BLOCK = 1 << 20  #: bytes

_ENDPOINT = re.compile(r"https?://([\w.-]+|\[[0-9a-f:]+\])(:\d{1,5})?/?", re.ASCII)


class ObsService(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[plugins.obs]``: a store that speaks S3, or a folder with a subfolder for each bucket."""

    endpoint: str = ""  #: http or https, with a port if it is not the usual one
    access_key: str = ""
    secret_key: str = ""
    region: str = "us-east-1"  #: as signatures name it
    path_style: bool = False  #: the bucket in the path; else in the host's name, unless that is an address
    timeout: Annotated[float, Meta(gt=0)] = 100.0  #: seconds for a whole object
    folder: str = ""
    scan: Annotated[float, Meta(ge=0)] = 10.0  #: seconds between lists of a trigger's bucket; 0: the store notifies
    token: str = ""  #: those who post notifications show it; without, they need the engine's own credentials
    confirm_hosts: tuple[str, ...] = ()  #: hosts (with port, if any) of topics whose subscriptions are confirmed

    def __post_init__(self) -> None:
        if self.endpoint and self.folder:
            raise ValueError("give endpoint or folder, not both")
        if self.endpoint and not (self.access_key and self.secret_key):
            raise ValueError("endpoint needs access_key and secret_key")
        if self.endpoint and not _ENDPOINT.fullmatch(self.endpoint):
            raise ValueError("endpoint must look like https://obs.region.host or http://127.0.0.1:8333")

    def __repr__(self) -> str:
        return f"ObsService(endpoint={self.endpoint!r}, folder={self.folder!r})"

    @property
    def configured(self) -> bool:
        return bool(self.endpoint or self.folder)

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).hostname or ""


class StoredObject(Struct, frozen=True, kw_only=True):
    """One object of a list."""

    key: str
    size: int
    etag: str
    modified_at: float


class Listing(Struct, frozen=True, kw_only=True):
    """Objects in the order of their keys' bytes."""

    objects: Sequence[StoredObject]
    more: bool  #: others come behind the last one; a page may be short all the same


class Store(Protocol):
    def read(self, bucket: str, key: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """An object's bytes in blocks; leaving early is fine."""
        ...

    async def write(self, bucket: str, key: str, content: bytes) -> str:
        """Create or replace an object; gives its etag. It is there whole or not at all."""
        ...

    async def find(self, bucket: str, key: str) -> StoredObject | None:
        """What there is of one object; its time may be less exact than in a list."""
        ...

    async def delete(self, bucket: str, key: str) -> None:
        """Also of what is not there."""
        ...

    async def list(self, bucket: str, *, prefix: str = "", after: str = "", limit: int = 1000) -> Listing:
        """Objects whose keys begin with ``prefix`` and come behind ``after``."""
        ...
