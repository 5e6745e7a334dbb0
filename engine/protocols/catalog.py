"""Stores of functions and of resources, such as aliases and triggers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import msgspec
from msgspec import Struct

from engine.errors import StoredDataUnreadable
from engine.model.invocation import AsyncSettings, Function

T = TypeVar("T", bound=Struct)


class StoredResource(Struct, frozen=True, kw_only=True):
    """Resource of a function or a project, such as an alias or a trigger, as stored on disk."""

    kind: str  #: alias, trigger, event, ...
    owner: str  #: ``function:<function_id>`` or ``project:<project>``
    id: str
    body: bytes  #: the kind's struct as JSON


def decode_resource(row: StoredResource, type: type[T]) -> T:
    """Return the struct in the body of a stored resource. Raises StoredDataUnreadable if the body is none."""
    try:
        return msgspec.json.decode(row.body, type=type)
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise StoredDataUnreadable(f"the {row.kind} {row.id} of {row.owner}", str(error)) from error


class ResourceStore(Protocol):
    """Store of aliases, triggers, test events and other resources.

    ``CatalogStore.delete_function`` also deletes the resources of the function.
    """

    async def load(self, kind: str) -> Sequence[StoredResource]:
        """Return all resources of a kind, such as all triggers, ordered by owner and id."""
        ...

    async def put(self, resource: StoredResource) -> None: ...

    async def delete(self, kind: str, owner: str, id: str) -> None: ...


class CatalogStore(Protocol):
    """Store of functions and their asynchronous settings, used by the catalog of functions."""

    async def load(self) -> tuple[Sequence[Function], dict[tuple[int, str], AsyncSettings]]:
        """Return all versions of all functions, and all asynchronous settings by function id and version."""
        ...

    async def new_function_id(self) -> int:
        """Return a new function id. Ids of deleted functions are not used again."""
        ...

    async def put_functions(self, functions: Sequence[Function], resources: Sequence[StoredResource] = ()) -> None:
        """Store several versions of functions, and resources, in one transaction."""
        ...

    async def publish(self, version: Function, settings: AsyncSettings | None) -> None:
        """Store a version and its asynchronous settings in one transaction. None stores no settings."""
        ...

    async def delete_version(self, function_id: int, version: str, bound: Sequence[StoredResource] = ()) -> None:
        """Delete a version, its asynchronous settings, and the resources ``bound`` to it, in one transaction."""
        ...

    async def delete_function(self, function_id: int) -> None:
        """Delete a function with its versions, asynchronous settings and resources, in one transaction.

        Waiting invocations are not deleted; the ``Discarder`` ends them.
        """
        ...

    async def put_settings(self, function_id: int, version: str, settings: AsyncSettings) -> None: ...

    async def delete_settings(self, function_id: int, version: str) -> None: ...
