"""Repository of resources of one kind, in memory and on disk. A resource is owned by a function or a project.

Reads use memory and return values that are on disk. Changes run one after another, and are visible to reads after they
are stored. Resources of a deleted function are deleted with it: the store removes the rows in the transaction that
deletes the function, and ``forget`` removes them from memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import anyio
import msgspec
from msgspec import Struct

from engine.model import Function
from engine.protocols import ResourceStore, StoredResource
from engine.protocols.catalog import decode_resource

T = TypeVar("T", bound=Struct)
#: Stores the row of a resource.
Write = Callable[[StoredResource], Awaitable[None]]
_FUNCTION = "function:"


def function_owner(function: Function) -> str:
    return f"{_FUNCTION}{function.function_id}"


def project_owner(project: str) -> str:
    return f"project:{project}"


def owning_function(owner: str) -> int | None:
    """Return the function id in the text of an owner, or None if the owner is a project."""
    return int(owner.removeprefix(_FUNCTION)) if owner.startswith(_FUNCTION) else None


class Repository(Generic[T]):
    """Resources of one kind by owner and id.

    ``exists(function_id)`` returns whether a function exists. Resources that projects own do not need it.
    """

    def __init__(
        self, store: ResourceStore, kind: str, type: type[T], exists: Callable[[int], bool] = lambda function_id: True
    ) -> None:
        self._store, self._kind, self._type, self._exists = store, kind, type, exists
        self._by_owner: dict[str, dict[str, T]] = {}
        self._changing = anyio.Lock()

    async def load(self) -> None:
        """Read all resources of the kind from disk, and delete those of functions that no longer exist."""
        for row in await self._store.load(self._kind):
            if self._orphaned(row.owner):
                await self._store.delete(row.kind, row.owner, row.id)
            else:
                self._by_owner.setdefault(row.owner, {})[row.id] = decode_resource(row, self._type)

    def of(self, owner: str) -> Mapping[str, T]:
        """Return an owner's resources by id."""
        return self._by_owner.get(owner, {})

    def all(self) -> Iterator[tuple[str, str, T]]:
        """Yield owner, id and value of each resource."""
        for owner, values in self._by_owner.items():
            for id, value in values.items():
                yield owner, id, value

    @asynccontextmanager
    async def change(self) -> AsyncIterator[None]:
        """Hold the lock that orders changes.

        Check and store a change in the block; cancellation is deferred until the block ends.
        """
        async with self._changing:
            with anyio.CancelScope(shield=True):
                yield

    async def put(self, owner: str, id: str, value: T, write: Write | None = None) -> None:
        """Store a resource. ``write``, if given, stores its row together with other data, in one transaction."""
        row = StoredResource(kind=self._kind, owner=owner, id=id, body=msgspec.json.encode(value))
        await (write or self._store.put)(row)
        if self._orphaned(owner):  # the function was deleted during the write
            await self._store.delete(self._kind, owner, id)
        else:
            self._by_owner.setdefault(owner, {})[id] = value

    async def delete(self, owner: str, id: str) -> None:
        await self._store.delete(self._kind, owner, id)
        self._by_owner.get(owner, {}).pop(id, None)

    def forget(self, owner: str) -> None:
        self._by_owner.pop(owner, None)

    def _orphaned(self, owner: str) -> bool:
        function_id = owning_function(owner)
        return function_id is not None and not self._exists(function_id)
