"""Pages of a project's deliveries: destinations, lists with actions on selected ones, and actions on all that match.

An action on all that match a filter is a question with their number, then steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal
from urllib.parse import urlencode

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.asgi.wire import Reply
from engine.errors import FunctiondError, InvalidField, NotFound, Unavailable
from engine.functions.catalog import Catalog
from engine.http.api.deliveries import STEP, DeliveriesApi
from engine.http.api.paging import bounds
from engine.http.api.routing import BASE, Call, own_urn, whole_number
from engine.http.api.secrets import param_shown, without_credentials
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import Form, error_of_whole, struct_of
from engine.http.console.pages import ADMIN, PageFamily, Pages, get, post, see_other
from engine.http.console.paths import DELIVERIES, name_of
from engine.http.console.visibility import delivery_shown, sees_secrets
from engine.model import DestinationSpec, Function, PendingDelivery
from engine.pipeline.circuit_breaker import DestinationStatus
from engine.pipeline.delivery import DeliveryWorker
from engine.pipeline.failed_deliveries import DeliveryCounts, DeliveryScope, FailedDeliveries

ROWS = 50
_GONE = "have been delivered or removed meanwhile."
#: Words about deliveries for which an action was carried out, and about the others.
_DONE = {
    "redrive": ("sent again", f"The others {_GONE}"),
    "redirect": ("sent to the present destination", f"The others have none, or {_GONE}"),
    "discard": ("discarded", "The others are not in this list any more."),
}
DESTINATIONS = 100  #: most rows of the table of destinations
SAMPLE = 10
LOOKS = 2  #: parts of the outbox in which the question counts the deliveries to one destination
SUGGESTED = 200  #: functions that the filter suggests
Verb = Literal["redrive", "discard"]
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

    def __init__(self, catalog: Catalog, states: DeliveryWorker, deliveries: FailedDeliveries, region: str) -> None:
        self._catalog, self._states, self._deliveries, self._region = catalog, states, deliveries, region

    def rows(self, call: Call, counts: DeliveryCounts, function: Function | None) -> list[DestinationRow]:
        """Return the destinations in settings and of deliveries, failing ones first; those of ``function`` only."""
        used = self._used(call.project, function)
        rows = [
            self._row(call, spec, used.get(spec, []), counts) for spec in {*used, *counts.pending, *counts.given_up}
        ]
        return sorted(rows, key=lambda row: (_WORST_FIRST.index(row.status.state), -row.given_up, row.kind, row.param))

    def is_replaced(self, pending: PendingDelivery) -> bool:
        """Return whether the settings of the function send such outcomes to other destinations only."""
        versions = [version.version for version in self._catalog.versions(pending.function_id)]
        specs = [self._catalog.destination_of(pending.function_id, version, pending.condition) for version in versions]
        return any(specs) and pending.destination not in specs

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
        spec = self._find(call.project, key, NONE)
        if spec is None:
            counts, _ = await self.counts(DeliveryScope(project=call.project))
            spec = self._find(call.project, key, counts)
        if spec is None:
            raise NotFound("no settings and no delivery have this destination any more")
        return spec

    def _find(self, project: str, key: str, counts: DeliveryCounts) -> DestinationSpec | None:
        """Return the destination with the key; None if neither settings nor counted deliveries have it."""
        known = {*self._used(project, None), *counts.pending, *counts.given_up}
        return next((spec for spec in known if key_of(spec) == key), None)

    def _used(self, project: str, function: Function | None) -> dict[DestinationSpec, list[tuple[str, str]]]:
        used: dict[DestinationSpec, list[tuple[str, str]]] = {}
        for version, condition, spec in self._catalog.destinations_in(project):
            if function is None or version.function_id == function.function_id:
                users, user = used.setdefault(spec, []), (name_of(version), condition)
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


class Progress(Struct, frozen=True, kw_only=True):
    """State of the action, which its form sends from step to step."""

    function: str = ""
    destination: str = ""  #: kind
    param: str = ""
    after: int = 0
    done: int = 0
    total: int = 0
    counted: bool = True  #: False: ``total`` is a lower bound
    pending: bool = False  #: those that wait
    redirect: bool = False


class DeliveriesPage(PageFamily):
    """Page of the lists, and the pages of actions on all deliveries that match a filter."""

    def __init__(
        self,
        pages: Pages,
        deliveries: FailedDeliveries,
        destinations: Destinations,
        api: ApiRequests,
        items: DeliveriesApi,
    ) -> None:
        self._pages, self._deliveries, self._destinations = pages, deliveries, destinations
        self._api, self._items = api, items

    @post("ConsoleSelectedDeliveries", DELIVERIES)
    async def act(self, call: Call, form: Form) -> Reply:
        """Send the selected deliveries again, or discard them.

        A button of a row has the field ``one``: the action and the number of its delivery.
        """
        action, _, number = form.text("one").partition("-")
        action, numbers = (action, [number]) if number else (form.text("do"), form.all("delivery"))
        if (words := _DONE.get(action)) is None:
            raise InvalidField("do", action, f"must be one of {', '.join(_DONE)}")
        if not numbers:
            return await self._show(call, errors={"": "Select deliveries first."})
        try:
            ids = [whole_number("delivery", text, 0, InvalidField) for text in numbers]
            body: dict[str, Any] = {"delivery_ids": ids, "pending": "pending" in form}
            if action == "redirect":
                body["redirect"] = True
                action = "redrive"
            path = f"{BASE.format(project_id=call.project)}/deliveries/{action}"
            reply = await self._api.send(call, "POST", path, body)
        except FunctiondError as error:
            return await self._show(call, errors=error_of_whole(error))
        chosen = await self._destinations.chosen(call)
        done = next(iter(reply.read(dict[str, list[int]]).values()))
        note = _note(len(done), len(ids), *words)
        return see_other(DELIVERIES.format(project_id=call.project) + chosen.suffix, note)

    @get("ConsoleRedriveAll", f"{DELIVERIES}/redrive", ADMIN, verb="redrive")
    @get("ConsoleDiscardAll", f"{DELIVERIES}/discard", ADMIN, verb="discard")
    async def _ask(self, call: Call, verb: Verb) -> Reply:
        """Show how many deliveries would be handled, with the first of them."""
        chosen = await self._destinations.chosen(call)
        given_up = chosen.scope.given_up
        exact = await self._deliveries.given_up(chosen.scope)
        counts, unknown = await self._destinations.counts(chosen.scope, LOOKS) if exact is None else (NONE, "")
        sample, _ = await self._deliveries.page(chosen.scope, after=0, limit=SAMPLE)
        spec, items = chosen.scope.destination, (delivery_shown(call, self._items.item(pending)) for pending in sample)
        return await self._show_step(
            call,
            verb,
            "deliveries/ask.html",
            progress=Progress(
                function=chosen.name,
                destination=spec.destination if spec else "",
                param=spec.param if spec else "",
                total=exact.rows if exact else sum((counts.given_up if given_up else counts.pending).values()),
                counted=counts.complete if exact is None else not exact.more,
                pending=not given_up,
                redirect=chosen.scope.redirect,
            ),
            unknown=unknown,
            chosen=chosen,
            kind=spec.destination if spec else "",
            param=param_text(spec.param) if spec else "",
            sample=[(item, param_text(item.param)) for item in items],
        )

    @post("ConsoleRedriveDeliveries", f"{DELIVERIES}/redrive", verb="redrive")
    @post("ConsoleDiscardDeliveries", f"{DELIVERIES}/discard", verb="discard")
    async def _step(self, call: Call, form: Form, verb: Verb) -> Reply:
        """Make one step, and show the progress, or the result after the last step."""
        progress = struct_of(form, Progress)
        chosen = ["function", "destination", "param", "pending", "after"]
        if progress.redirect:
            chosen.append("redirect")
        body = {"all": True, "limit": STEP, **{name: getattr(progress, name) for name in chosen}}
        path = f"{BASE.format(project_id=call.project)}/deliveries/{verb}"
        try:
            reply = await self._api.send(call, "POST", path, body)
        except FunctiondError as error:
            errors = error_of_whole(error)
            return await self._show_step(call, verb, progress=progress, ended=False, errors=errors)
        result = reply.read(dict[str, Any])
        after = result.pop("next_after")
        [ids] = result.values()
        progress = replace(progress, done=progress.done + len(ids), after=after)
        return await self._show_step(call, verb, progress=progress, ended=not after, errors={})

    async def _show_step(self, call: Call, verb: Verb, template: str = "deliveries/steps.html", **data: Any) -> Reply:
        return await self._pages.show(call, template, live=False, verb=verb, **data)

    @get("ConsoleDeliveries", DELIVERIES)
    async def _show(self, call: Call, errors: Mapping[str, str] | None = None) -> Reply:
        chosen = await self._destinations.chosen(call)
        limit = bounds(call, "limit", maximum=ROWS)[1]
        counts, unknown = await self._destinations.counts(chosen.scope)
        every = self._destinations.rows(call, counts, chosen.function)
        whole = bool(call.text("all"))
        rows = [row for row in every if (whole or not row.is_calm) and chosen.key in ("", row.key)]
        return await self._pages.show(
            call,
            "deliveries.html",
            live=not errors,
            errors=errors or {},
            chosen=chosen,
            functions=self._destinations.functions(call.project),
            unknown=unknown,
            complete=counts.complete,
            destinations=rows[:DESTINATIONS],
            hidden=0 if chosen.key else len(every) - len(rows),
            more=max(0, len(rows) - DESTINATIONS),
            lists=[
                await self._list(call, chosen.scope, counts, limit, given_up=given_up) for given_up in (True, False)
            ],
            limit=limit if call.text("limit") else 0,
        )

    async def _list(
        self, call: Call, scope: DeliveryScope, counts: DeliveryCounts, limit: int, *, given_up: bool
    ) -> dict[str, Any]:
        """Return the data of one list: given-up deliveries, or those that wait."""
        scope = replace(scope, given_up=given_up)
        name = "given_up_after" if given_up else "after"
        after = call.number(name, 0)
        found, further = await self._deliveries.page(scope, after=after, limit=limit)
        items = (delivery_shown(call, self._items.item(pending)) for pending in found)
        exact = None if counts.complete else await self._deliveries.given_up(scope)
        counted = sum((counts.given_up if given_up else counts.pending).values())
        return {
            "given_up": given_up,
            "items": [(item, param_text(item.param)) for item in items],
            "replaced": {pending.delivery_id for pending in found if self._destinations.is_replaced(pending)},
            "count": counted if exact is None else max(counted, exact.rows),
            "complete": counts.complete or (exact is not None and not exact.more),
            "name": name,
            "after": after,
            "other": call.number("after" if given_up else "given_up_after", 0),
            "next": further,
        }


def _note(done: int, asked: int, what: str, others: str) -> str:
    text = f"{done:,} {'delivery' if done == 1 else 'deliveries'} {what}."
    return text if done == asked else f"{text} {others}"
