"""List of a project's destinations, with the state of each and the cause of its last failure (extension of the API)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

from engine.asgi.wire import Reply, json_reply
from engine.functions.catalog import Catalog
from engine.http.api.paging import MAX_LIMIT, page_of
from engine.http.api.routing import BASE, Call, Resource
from engine.http.api.times import zoned_time
from engine.model import DestinationSpec, Function
from engine.pipeline.circuit_breaker import DestinationStatus


class DestinationItem(Struct, frozen=True, kw_only=True):
    """Destination of a version of a function. Its state counts from the start of the engine."""

    func_urn: str
    condition: str  #: ``success`` or ``failure``
    destination: str
    param: str
    state: str  #: ``ok``, ``failing`` (its last delivery failed), or ``paused`` (deliveries wait until ``next_try``)
    problem: str  #: cause of the last failure; empty: its last delivery succeeded, or there was none
    since: str  #: time of the first failure in a row; empty: none
    failures: int  #: consecutive failures
    next_try: str  #: empty: no pause


class DestinationList(Struct, frozen=True, kw_only=True):
    destinations: list[DestinationItem]
    count: int
    next_marker: int


class DestinationStates(Protocol):
    def destination_status(self, destination: DestinationSpec) -> DestinationStatus:
        """Return the state of a destination."""
        ...


class DestinationsApi:
    def __init__(self, catalog: Catalog, deliveries: DestinationStates, region: str) -> None:
        self._catalog, self._deliveries, self._region = catalog, deliveries, region

    def resources(self) -> list[Resource]:
        return [Resource(path=f"{BASE}/destinations", methods={"GET": self.list_project})]

    async def list_project(self, call: Call) -> Reply:
        page = page_of(call, list(self._named(call.project)), "maxitems", maximum=MAX_LIMIT)
        items = [self._item(*one) for one in page.items]
        return json_reply(DestinationList(destinations=items, count=page.count, next_marker=page.next_marker))

    def _named(self, project: str) -> Iterator[tuple[Function, str, DestinationSpec]]:
        for function, settings in self._catalog.settings_in(project):
            for condition, one in (("success", settings.on_success), ("failure", settings.on_failure)):
                if one is not None:
                    yield function, condition, one

    def _item(self, function: Function, condition: str, one: DestinationSpec) -> DestinationItem:
        status = self._deliveries.destination_status(one)
        return DestinationItem(
            func_urn=str(function.urn(self._region)),
            condition=condition,
            destination=one.destination,
            param=one.param,
            state=status.state,
            problem=status.problem,
            since=zoned_time(status.since) if status.since else "",
            failures=status.failures,
            next_try=zoned_time(status.next_try) if status.next_try else "",
        )
