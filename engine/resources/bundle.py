"""The families of small resources of one engine, together, as app and HTTP hand them on."""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec import Struct

from engine.catalog import Catalog
from engine.clock import Clock
from engine.model import Function
from engine.protocols import ResourceStore
from engine.resources.events import Event, Events
from engine.resources.shelf import Shelf
from engine.urn import LATEST

T = TypeVar("T", bound=Struct)


class Resources:
    """``load`` it once, after the catalog. It follows the catalog from then on."""

    def __init__(self, store: ResourceStore, catalog: Catalog, clock: Clock) -> None:
        self._store, self._catalog = store, catalog
        self._shelves: list[Shelf[Any]] = []
        self.events = Events(self._shelf("event", Event), catalog, clock)

    async def load(self) -> None:
        for shelf in self._shelves:
            await shelf.load()
        self._catalog.watch(self._follow)

    def _shelf(self, kind: str, type: type[T]) -> Shelf[T]:
        shelf = Shelf(self._store, kind, type, self._exists)
        self._shelves.append(shelf)
        return shelf

    def _exists(self, function_id: int) -> bool:
        return self._catalog.resolve(function_id, LATEST) is not None

    def _follow(self, function_id: int, function: Function | None) -> None:
        if not self._exists(function_id):
            for shelf in self._shelves:
                shelf.forget(f"function:{function_id}")
