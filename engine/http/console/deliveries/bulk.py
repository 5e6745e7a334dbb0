"""Redrive and removal of all given-up deliveries that match a filter: a question with their number, then steps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import msgspec
from msgspec import Struct

from engine.asgi.wire import Reply
from engine.errors import FunctiondError
from engine.http.api.deliveries import STEP, DeliveriesApi
from engine.http.api.routing import BASE, Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.deliveries.destination_rows import param_text
from engine.http.console.deliveries.scope import NONE, ScopeReader
from engine.http.console.forms import Form, error_of_whole, struct_of
from engine.http.console.pages import Action, Pages
from engine.http.console.paths import DELIVERIES
from engine.http.console.visibility import delivery_shown
from engine.pipeline.failed_deliveries import FailedDeliveries

SAMPLE = 10
LOOKS = 2  #: parts of the outbox in which the question counts the deliveries to one destination

Verb = Literal["redrive", "discard"]
_VERBS: tuple[Verb, ...] = ("redrive", "discard")


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


class DeliveriesBulk:
    def __init__(
        self, pages: Pages, deliveries: FailedDeliveries, scopes: ScopeReader, api: ApiRequests, items: DeliveriesApi
    ) -> None:
        self._pages, self._deliveries, self._scopes = pages, deliveries, scopes
        self._api, self._items = api, items

    def pages(self) -> Mapping[str, Handler]:
        return {f"{DELIVERIES}/{verb}": partial(self._ask, verb=verb) for verb in _VERBS}

    def actions(self) -> Mapping[str, Action]:
        return {f"{DELIVERIES}/{verb}": partial(self._step, verb=verb) for verb in _VERBS}

    async def _ask(self, call: Call, verb: Verb) -> Reply:
        """Show how many deliveries would be handled, with the first of them."""
        chosen = await self._scopes.read(call)
        given_up = chosen.scope.given_up
        exact = await self._deliveries.given_up(chosen.scope)
        counts, unknown = await self._scopes.counts(chosen.scope, LOOKS) if exact is None else (NONE, "")
        sample, _ = await self._deliveries.page(chosen.scope, after=0, limit=SAMPLE)
        spec, items = chosen.scope.destination, (delivery_shown(call, self._items.item(one)) for one in sample)
        return await self._show(
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
            sample=[(one, param_text(one.param)) for one in items],
        )

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
            return await self._show(call, verb, "deliveries/steps.html", progress=progress, ended=False, errors=errors)
        found = reply.read(dict[str, Any])
        after = found.pop("next_after")
        [ids] = found.values()
        progress = msgspec.structs.replace(progress, done=progress.done + len(ids), after=after)
        return await self._show(call, verb, "deliveries/steps.html", progress=progress, ended=not after, errors={})

    async def _show(self, call: Call, verb: Verb, template: str, **data: Any) -> Reply:
        return await self._pages.show(call, template, live=False, verb=verb, **data)
