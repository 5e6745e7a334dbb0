"""Destinations as pages show them, with users, state and counts; and deliveries that a page or form chooses by them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from engine.errors import NotFound, Unavailable
from engine.functions.catalog import Catalog
from engine.http.api.deliveries import DestinationStates
from engine.http.api.routing import Call, own_urn
from engine.http.api.secrets import param_shown, without_credentials
from engine.http.console.paths import name_of
from engine.http.console.visibility import sees_secrets
from engine.model import DestinationSpec, Function, PendingDelivery
from engine.pipeline.circuit_breaker import DestinationStatus
from engine.pipeline.failed_deliveries import DeliveryCounts, DeliveryScope, FailedDeliveries

SUGGESTED = 200
_WORST_FIRST = ("paused", "failing", "ok")
NONE = DeliveryCounts(pending={}, given_up={}, complete=False)


class DestinationRow(Struct, frozen=True, kw_only=True):
    """Destination, shown without credentials unless the reader may see them."""

    key: str  #: for the query of a page; reveals nothing about the parameters
    kind: str
    param: str
    users: list[tuple[str, str]]  #: short names of functions, and conditions
    status: DestinationStatus
    pending: int
    given_up: int

    @property
    def is_calm(self) -> bool:
        """True if no delivery waits or has failed."""
        return self.status.state == "ok" and not self.pending and not self.given_up


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


class Destinations:
    """Reader of destinations, and of the filters that choose deliveries by them."""

    def __init__(self, catalog: Catalog, states: DestinationStates, deliveries: FailedDeliveries, region: str) -> None:
        self._catalog, self._states, self._deliveries, self._region = catalog, states, deliveries, region

    def rows(self, call: Call, counts: DeliveryCounts, function: Function | None) -> list[DestinationRow]:
        """Return the destinations in settings and of deliveries, failing ones first; those of ``function`` only."""
        used = self._used(call.project, function)
        found = [
            self._row(call, spec, used.get(spec, []), counts) for spec in {*used, *counts.pending, *counts.given_up}
        ]
        return sorted(found, key=lambda row: (_WORST_FIRST.index(row.status.state), -row.given_up, row.kind, row.param))

    def is_replaced(self, pending: PendingDelivery) -> bool:
        """Return whether the settings of the function send such outcomes to other destinations only."""
        versions = [one.version for one in self._catalog.versions(pending.function_id)]
        found = [self._catalog.destination_of(pending.function_id, one, pending.condition) for one in versions]
        return any(found) and pending.destination not in found

    def functions(self, project: str) -> list[str]:
        """Return the short names of the project's functions with destinations, at most ``SUGGESTED``."""
        names = {name for users in self._used(project, None).values() for name, _ in users}
        return sorted(names)[:SUGGESTED]

    async def chosen(self, call: Call) -> Chosen:
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
        found = self._find(call.project, key, NONE)
        if found is None:
            counts, _ = await self.counts(DeliveryScope(project=call.project))
            found = self._find(call.project, key, counts)
        if found is None:
            raise NotFound("no settings and no delivery have this destination any more")
        return found

    def _find(self, project: str, key: str, counts: DeliveryCounts) -> DestinationSpec | None:
        """Return the destination with the key; None if neither settings nor counted deliveries have it."""
        known = {*self._used(project, None), *counts.pending, *counts.given_up}
        return next((spec for spec in known if key_of(spec) == key), None)

    def _used(self, project: str, function: Function | None) -> dict[DestinationSpec, list[tuple[str, str]]]:
        used: dict[DestinationSpec, list[tuple[str, str]]] = {}
        for version, settings in self._catalog.settings_in(project):
            if function is not None and version.function_id != function.function_id:
                continue
            for condition, spec in (("success", settings.on_success), ("failure", settings.on_failure)):
                if spec is not None:
                    user = (name_of(version), condition)
                    users = used.setdefault(spec, [])
                    if user not in users:
                        users.append(user)
        return used

    def _row(
        self, call: Call, spec: DestinationSpec, users: list[tuple[str, str]], counts: DeliveryCounts
    ) -> DestinationRow:
        status, param = self._states.destination_status(spec), spec.param
        if not sees_secrets(call):
            param = param_shown(param)
            status = msgspec.structs.replace(status, problem=without_credentials(status.problem))
        return DestinationRow(
            key=key_of(spec),
            kind=spec.destination,
            param=param_text(param),
            users=users,
            status=status,
            pending=counts.pending.get(spec, 0),
            given_up=counts.given_up.get(spec, 0),
        )


def key_of(spec: DestinationSpec) -> str:
    return hashlib.blake2b(msgspec.json.encode(spec), digest_size=9).hexdigest()


def param_text(param: str) -> str:
    """Return the parameters of a destination as a short text: the value of a single one, or all with their names."""
    try:
        values: Mapping[str, Any] = msgspec.json.decode(param, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return param
    texts: Iterable[str] = (f"{name} {value}" for name, value in values.items())
    return str(next(iter(values.values()))) if len(values) == 1 else ", ".join(texts)
