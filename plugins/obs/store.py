"""Interface of object stores for triggers, destinations and links to code packages.

Stores raise ObjectMissing if bucket or object does not exist; StoreRefused if the store rejects the request; and
StoreUnavailable if it does not answer, or fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

BLOCK = 1 << 20  #: bytes


class StoredObject(Struct, frozen=True, kw_only=True):
    """Metadata of one object, as the store reports them."""

    key: str
    size: int
    etag: str
    modified_at: float
    hops: int = 0  #: number of functions that led to it; lists do not tell
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

    async def write(self, bucket: str, key: str, content: bytes, hops: int = 0) -> str:
        """Create or replace an object atomically, and return its etag. ``hops`` is stored beside it."""
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
