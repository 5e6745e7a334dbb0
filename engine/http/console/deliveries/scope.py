"""Deliveries that the query of a page, or a form, chooses: by function and destination."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from msgspec import Struct

from engine.errors import NotFound, Unavailable
from engine.functions.catalog import Catalog
from engine.http.api.routing import Call, own_urn
from engine.http.console.deliveries.destination_rows import DestinationRows
from engine.model import DestinationSpec, Function
from engine.pipeline.failed_deliveries import DeliveryCounts, DeliveryScope, FailedDeliveries

NONE = DeliveryCounts(pending={}, given_up={}, complete=False)


class Chosen(Struct, frozen=True, kw_only=True):
    """Filter of a page."""

    scope: DeliveryScope
    function: Function | None  #: None: any
    name: str  #: of the function, as the query has it
    key: str  #: of the destination; empty: any

    @property
    def query(self) -> Mapping[str, str]:
        """Parts of the query that select the filter."""
        return {name: text for name, text in (("function", self.name), ("destination", self.key)) if text}

    @property
    def suffix(self) -> str:
        """The query with its question mark; empty without a filter."""
        return f"?{urlencode(self.query)}" if self.query else ""


class ScopeReader:
    def __init__(self, catalog: Catalog, deliveries: FailedDeliveries, rows: DestinationRows, region: str) -> None:
        self._catalog, self._deliveries, self._rows, self._region = catalog, deliveries, rows, region

    async def read(self, call: Call) -> Chosen:
        """Return the filter in the query of a page. Raises UnknownFunction, or NotFound for an unknown destination."""
        name, key = call.text("function"), call.text("destination")
        urn = own_urn(name, call.project, self._region) if name else None
        function = self._catalog.find(urn) if urn else None
        return Chosen(
            scope=DeliveryScope(
                project=call.project,
                function=urn,
                destination=await self._destination(call, key) if key else None,
                given_up=not call.text("pending"),
                redirect=bool(call.text("redirect")),
            ),
            function=function,
            name=name,
            key=key,
        )

    async def counts(self, scope: DeliveryScope, looks: int = 1) -> tuple[DeliveryCounts, str]:
        """Return the counts of a scope, and why there are none; empty: there are."""
        try:
            return await self._deliveries.counts(scope, looks), ""
        except Unavailable as error:
            return NONE, str(error)

    async def _destination(self, call: Call, key: str) -> DestinationSpec:
        found = self._rows.find(call.project, key, NONE)
        if found is None:
            counts, _ = await self.counts(DeliveryScope(project=call.project))
            found = self._rows.find(call.project, key, counts)
        if found is None:
            raise NotFound("no settings and no delivery have this destination any more")
        return found
