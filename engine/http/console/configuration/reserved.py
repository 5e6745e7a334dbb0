"""Pages of a function's reserved instances: the list, and the form of a reservation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from msgspec import to_builtins

from engine.asgi.wire import Reply
from engine.errors import FunctiondError, NotFound
from engine.functions.catalog import Catalog
from engine.http.api.reserved_instances import ReservedBody
from engine.http.api.routing import Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.configuration.limits import limits_of
from engine.http.console.configuration.reservation_form import (
    ReservationForm,
    body_of,
    form_of,
    read_form,
    with_errors,
)
from engine.http.console.configuration.settings import CHANGED, Setting, digest_of, errors_beside, is_stale
from engine.http.console.forms import WHOLE, Form
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.notes import see_other
from engine.http.console.pages import Action
from engine.http.console.paths import FUNCTION
from engine.http.console.visibility import value_shown
from engine.model import Function
from engine.resources.reservations import MAX_PER_PROJECT, Reservations, Reserved

TAB = "configuration/reserved"
LIST = f"/{TAB}"
NEW = "/configuration/new-reservation"
ONE = "/configuration/reserved/{qualifier}"

REMOVED = "Removed the reservation."
NOTHING = "Nothing is reserved: enter 1 or more, or add a row to the schedule that sets more than 0."


class ReservedPages:
    def __init__(self, frame: FunctionFrame, api: ApiRequests, catalog: Catalog, reservations: Reservations) -> None:
        self._frame, self._api, self._catalog, self._reservations = frame, api, catalog, reservations

    def pages(self) -> Mapping[str, Handler]:
        return {FUNCTION + LIST: self._list, FUNCTION + NEW: self.show_new, FUNCTION + ONE: self.show}

    def actions(self) -> Mapping[str, Action]:
        return {FUNCTION + NEW: self.save, FUNCTION + ONE: self.save, f"{FUNCTION}{ONE}/remove": self.remove}

    async def show_new(self, call: Call) -> Reply:
        function = self._frame.function_of(call)
        return await self._show(call, function, ReservationForm(count="1"), None)

    async def show(self, call: Call) -> Reply:
        function, qualifier = self._frame.function_of(call), call.part("qualifier")
        reserved = self._found(function, qualifier)
        if reserved is None:
            raise NotFound(f"no reservation of {qualifier[:100]} (it may have been removed)")
        return await self._show(call, function, form_of(qualifier, reserved.reservation), reserved)

    async def save(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        typed = read_form(form, call.parts.get("qualifier", ""))
        reserved = self._found(function, typed.qualifier)
        if "qualifier" not in call.parts and reserved is not None:
            text = "It has a reservation. Change that one in the list."
            return await self._show(call, function, typed, None, {"qualifier": text})
        before = reserved.reservation if reserved else None
        if is_stale(form, before):
            return await self._show(call, function, typed, reserved, {WHOLE: CHANGED})
        body = body_of(typed, before)
        if before is not None and body == body_of(form_of(typed.qualifier, before), before):
            return see_other(self._frame.page_path(function, LIST), "Nothing was changed.")
        try:
            await self._api.send(call, "PUT", self._target(function, typed.qualifier), body)
        except FunctiondError as error:
            marked, errors = with_errors(typed, error)
            return await self._show(call, function, marked, reserved, errors)
        kept = self._found(function, typed.qualifier) is not None
        if not kept and reserved is None:
            return await self._show(call, function, typed, None, {"count": NOTHING})
        return see_other(self._frame.page_path(function, LIST), "Saved." if kept else REMOVED)

    async def remove(self, call: Call, form: Form) -> Reply:
        function, qualifier = self._frame.function_of(call), call.part("qualifier")
        try:
            await self._api.send(call, "PUT", self._target(function, qualifier), {"count": 0})
        except FunctiondError as error:
            return await self._list(call, errors_beside(error, ()))
        return see_other(self._frame.page_path(function, LIST), REMOVED)

    async def _list(self, call: Call, errors: Mapping[str, str] | None = None) -> Reply:
        function = self._frame.function_of(call)
        return await self._frame.show(
            call,
            "functions/reserved.html",
            tab=TAB,
            reservations=[value_shown(call, _listed(one)) for one in self._all(function)],
            most=MAX_PER_PROJECT,
            errors=errors or {},
        )

    async def _show(
        self,
        call: Call,
        function: Function,
        values: ReservationForm,
        reserved: Reserved | None,
        errors: Mapping[str, str] | None = None,
    ) -> Reply:
        before = reserved.reservation if reserved else None
        return await self._frame.show(
            call,
            "functions/reservation.html",
            tab=TAB,
            reserved=reserved,
            values=value_shown(call, to_builtins(values)),
            settings={one.name: one for one in self._settings(function)},
            policies=len(before.tactics.metric_configs) if before else 0,
            errors=errors or {},
            seen=digest_of(before),
        )

    def _settings(self, function: Function) -> tuple[Setting, ...]:
        versions = self._catalog.versions(function.function_id)
        aliases = self._catalog.aliases(function.function_id)
        names = [*((one.version, one.version) for one in versions)]
        names += [(f"!{one.name}", f"{one.name} (alias of {one.version})") for one in aliases]
        return (
            Setting(name="qualifier", label="Version or alias", kind="choice", options=tuple(names)),
            Setting(
                name="count",
                label="Instances",
                kind="number",
                help=f"Kept running without work. All functions of a project may reserve {MAX_PER_PROJECT}.",
                limits=limits_of(ReservedBody, "count"),
            ),
        )

    def _all(self, function: Function) -> Sequence[Reserved]:
        found = self._reservations.find(function.project)
        return [one for one in found if one.function.function_id == function.function_id]

    def _found(self, function: Function, qualifier: str) -> Reserved | None:
        return next((one for one in self._all(function) if one.qualifier == qualifier), None)

    def _target(self, function: Function, qualifier: str) -> str:
        return self._frame.api_path(function, f"{quote(f':{qualifier}', safe='')}/reservedinstances")


def _listed(one: Reserved) -> dict[str, Any]:
    return {
        "qualifier": one.qualifier,
        "version": one.function.version,
        "now": one.count,
        "base": one.reservation.count,
        "crons": to_builtins(one.reservation.tactics.cron_configs),
    }
