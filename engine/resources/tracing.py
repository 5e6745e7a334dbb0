"""Tracing keys of functions: pairs of access key and secret key for an external tracing service.

The engine stores the keys and returns them with the secret masked. It does no tracing, and passes the keys to no
instance.
"""

from __future__ import annotations

from msgspec import Struct

from engine.errors import InvalidField
from engine.functions.catalog import Catalog
from engine.model.text import MASK
from engine.model.urn import FunctionUrn
from engine.resources.repository import Repository, function_owner

_ID = "tracing"
_LONGEST = 256  #: characters per key


class TracingKeys(Struct, frozen=True, kw_only=True):
    access: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return f"TracingKeys(access={self.access!r}, secret={MASK!r})"


class Tracing:
    def __init__(self, repository: Repository[TracingKeys], catalog: Catalog) -> None:
        self._repository, self._catalog = repository, catalog

    def show(self, urn: FunctionUrn) -> TracingKeys:
        """Return a function's tracing keys, with empty texts if none are stored."""
        return self._repository.of(self._owner(urn)).get(_ID, TracingKeys())

    async def put(self, urn: FunctionUrn, keys: TracingKeys) -> None:
        """Store a function's tracing keys.

        Empty keys delete the stored ones, and a masked secret leaves the stored secret.

        Raises InvalidField if only one key is set, or a key is too long.
        """
        async with self._repository.change():
            owner = self._owner(urn)
            if keys.secret == MASK:
                keys = TracingKeys(access=keys.access, secret=self.show(urn).secret)
            _check(keys)
            if keys.access:
                await self._repository.put(owner, _ID, keys)
            elif _ID in self._repository.of(owner):
                await self._repository.delete(owner, _ID)

    def _owner(self, urn: FunctionUrn) -> str:
        return function_owner(self._catalog.find(urn))


def _check(keys: TracingKeys) -> None:
    if bool(keys.access) != bool(keys.secret):
        empty = "tracing_sk" if keys.access else "tracing_ak"
        raise InvalidField(empty, "", "set both keys, or none to disable tracing")
    if max(len(keys.access), len(keys.secret)) > _LONGEST:
        raise InvalidField("tracing_ak", keys.access[:20], f"keys may have {_LONGEST} characters")
