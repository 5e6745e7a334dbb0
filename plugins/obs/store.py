"""Interface of object stores for triggers, destinations and links to code packages; and the settings of OBS.

Stores raise ObjectMissing if bucket or object does not exist; StoreRefused if the store rejects the request; and
StoreUnavailable if it does not answer, or fails.
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
    """``[plugins.obs]``: a store with the S3 protocol, or a folder that has a subfolder for each bucket."""

    endpoint: str = ""  #: http or https URL; with a port unless it is the default one
    access_key: str = ""
    secret_key: str = ""
    region: str = "us-east-1"  #: region in signatures
    path_style: bool = False  #: bucket in the path; otherwise in the host name, unless that is an IP address
    timeout: Annotated[float, Meta(gt=0)] = 100.0  #: seconds for a whole object
    folder: str = ""
    scan: Annotated[float, Meta(ge=0)] = 10.0  #: seconds between lists of a trigger's bucket; 0: notifications only
    token: str = ""  #: token of posted notifications; empty: they need the engine's own credentials
    confirm_hosts: tuple[str, ...] = ()  #: hosts (with port, if any) at which subscriptions are confirmed

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
    """Metadata of one object, as the store reports them."""

    key: str
    size: int
    etag: str
    modified_at: float
    changed_at: str = ""  #: of a file: also another if content is replaced by other content of equal size and time


class Listing(Struct, frozen=True, kw_only=True):
    """Page of objects in the order of their keys' bytes."""

    objects: Sequence[StoredObject]
    more: bool  #: more objects follow; a page may be short all the same


class ObjectStore(Protocol):
    def read(self, bucket: str, key: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Return a context manager that opens an object, and yields its bytes in blocks.

        Reading may stop at any block.
        """
        ...

    async def write(self, bucket: str, key: str, content: bytes) -> str:
        """Create or replace an object atomically, and return its etag."""
        ...

    async def find(self, bucket: str, key: str) -> StoredObject | None:
        """Return an object's metadata, or None if it does not exist. Its time may be less exact than in a list."""
        ...

    async def delete(self, bucket: str, key: str) -> None:
        """Delete an object. If the object does not exist, no error is raised."""
        ...

    async def list(self, bucket: str, *, prefix: str = "", after: str = "", limit: int = 1000) -> Listing:
        """Return at most ``limit`` objects whose keys begin with ``prefix`` and sort after ``after``."""
        ...
