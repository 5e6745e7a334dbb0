"""Resources of every kind of an engine in one object, for the packages ``app`` and ``http``."""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec import Struct

from engine.code.store import CodeStore
from engine.config.plugin_registry import Registry
from engine.executors.pool import Pool
from engine.functions.catalog import Catalog
from engine.model import Function
from engine.model.clock import Clock
from engine.model.urn import LATEST
from engine.protocols import ResourceStore
from engine.resources.dependencies import Dependencies, DependencyRepository
from engine.resources.events import Event, Events
from engine.resources.repository import Repository
from engine.resources.reservations import Reservation, Reservations
from engine.resources.tags import Tags, TagSet
from engine.resources.tracing import Tracing, TracingKeys
from engine.resources.triggers import Triggers

T = TypeVar("T", bound=Struct)


class ResourceOptions(Struct, frozen=True, kw_only=True):
    memory: int = 0  #: MB that all instances may use together; 0: no limit
    region: str = ""
    free_modes: frozenset[str] = frozenset()  #: kinds of triggers that may use modes outside their plugin's ``modes``


class Resources:
    """Resources of every kind. Call ``load`` once; it also loads the function catalog."""

    def __init__(
        self,
        store: ResourceStore,
        catalog: Catalog,
        codes: CodeStore,
        clock: Clock,
        *,
        dependencies: DependencyRepository,
        registry: Registry,
        instances: Pool,
        options: ResourceOptions,
    ) -> None:
        self._store, self._catalog = store, catalog
        self._repositories: list[Repository[Any]] = []
        self._dependencies = dependencies
        self.dependencies = Dependencies(dependencies, catalog, codes, clock)
        self.tags = Tags(self._repository("tags", TagSet), catalog)
        reserved = self._repository("reservation", Reservation)
        self.reservations = Reservations(reserved, catalog, clock, instances, memory=options.memory)
        self.tracing = Tracing(self._repository("tracing", TracingKeys), catalog)
        self.events = Events(self._repository("event", Event), catalog, clock)
        self.triggers = Triggers(store, catalog, registry, clock, region=options.region, free=options.free_modes)

    async def load(self) -> None:
        """Read all resources and the function catalog. Remove code that neither functions nor dependencies refer to."""
        await self._dependencies.load()
        await self._catalog.load(keep=self._dependencies.packages())
        for repository in self._repositories:
            await repository.load()
        await self.triggers.load()

    def follow(self, function_id: int, function: Function | None) -> None:
        """Remove from memory the resources of a deleted function, and adapt reserved instances to any change."""
        if not self._exists(function_id):
            for repository in self._repositories:
                repository.forget(f"function:{function_id}")
        self.reservations.wake()

    def _repository(self, kind: str, type: type[T]) -> Repository[T]:
        repository = Repository(self._store, kind, type, self._exists)
        self._repositories.append(repository)
        return repository

    def _exists(self, function_id: int) -> bool:
        return self._catalog.resolve(function_id, LATEST) is not None
