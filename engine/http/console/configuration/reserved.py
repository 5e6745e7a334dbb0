"""Pages of a function's reserved instances: the list, and the form of a reservation with its schedule.

Rows of the schedule have the fields ``c-cron``, ``c-count``, ``c-name``, ``c-start`` and ``c-end``. Empty rows are
none. Times are in UTC.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from engine.asgi.wire import Reply
from engine.errors import FunctiondError, InvalidField, NotFound
from engine.http.api.reserved_instances import ReservedBody
from engine.http.api.routing import Call
from engine.http.console.configuration.forms import CHANGED, digest_of, errors_beside, is_stale
from engine.http.console.forms import WHOLE, Form
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.pages import ADMIN, PageFamily, get, post, see_other
from engine.http.console.paths import CONFIGURATION, path_of
from engine.http.console.struct_forms import Choice, Field, fields_of, number_of, one_line
from engine.http.console.visibility import value_shown
from engine.model import Function
from engine.model.urn import LATEST
from engine.resources.reservations import Reservation, Reservations, Reserved

_ROW = ("cron", "count", "name", "start", "end")
#: Beginnings of error messages, by the field of the API.
_LABELS = {"cron": "time expression", "count": "instances", "start_time": "from", "expired_time": "until"}
_INDEX = re.compile(r"cron_configs\[(\d+)\]\.?(.*)")
TAB = "configuration/reserved"
LIST = f"/{TAB}"
REMOVED = "Removed the reservation."
NOTHING = "Nothing is reserved: enter 1 or more, or add a row to the schedule that sets more than 0."


class ReservationForm(Struct, frozen=True, kw_only=True):
    """Values of the form, as text."""

    qualifier: str = ""
    count: str = ""
    crons: Sequence[Mapping[str, str]] = ()


def form_of(qualifier: str, reservation: Reservation) -> ReservationForm:
    return ReservationForm(
        qualifier=qualifier,
        count=str(reservation.count),
        crons=[
            {
                "cron": config.cron,
                "count": str(config.count),
                "name": one_line(config.name),
                "start": _time_text(config.start_time),
                "end": _time_text(config.expired_time),
                "error": "",
            }
            for config in reservation.tactics.cron_configs
        ],
    )


def read_form(form: Form, qualifier: str = "") -> ReservationForm:
    rows = form.rows("c-", _ROW)
    return ReservationForm(
        qualifier=qualifier or form.text("qualifier"),
        count=form.text("count"),
        crons=[{**row, "error": ""} for row in rows if any(text.strip() for text in row.values())],
    )


def body_of(typed: ReservationForm, stored: Reservation | None) -> dict[str, Any]:
    """Return the body of a request that stores the reservation, with the stored values that the form does not have."""
    tactics: dict[str, Any] = {"cron_configs": [_cron(cron) for cron in typed.crons]}
    if stored is None:
        return {"count": number_of(typed.count), "tactics_config": tactics}
    tactics["metric_configs"] = to_builtins(stored.tactics.metric_configs)
    return {"count": number_of(typed.count), "idle_mode": stored.idle_mode, "tactics_config": tactics}


def with_errors(typed: ReservationForm, error: FunctiondError) -> tuple[ReservationForm, Mapping[str, str]]:
    """Return the form with the error at the row of the schedule that it names, and errors by field."""
    match = _INDEX.search(error.field) if isinstance(error, InvalidField) else None
    if match is None or not isinstance(error, InvalidField) or int(match[1]) >= len(typed.crons):
        return typed, errors_beside(error, ("count",))
    text = f"{_LABELS.get(match[2], match[2])}: {error.allowed}"
    rows = [{**row, "error": text} if number == int(match[1]) else row for number, row in enumerate(typed.crons)]
    return replace(typed, crons=rows), {"crons": text}


def _cron(row: Mapping[str, str]) -> dict[str, Any]:
    return {
        "cron": row["cron"].strip(),
        "name": row["name"].strip(),
        "count": number_of(row["count"]),
        "start_time": _time(row["start"]),
        "expired_time": _time(row["end"]),
    }


def _time(text: str) -> int | str:
    """Return the time in a field in seconds since the epoch; 0 if it is empty, the text itself if it is no time."""
    try:
        return int(datetime.fromisoformat(text.strip()).replace(tzinfo=UTC).timestamp()) if text.strip() else 0
    except (ValueError, OverflowError):
        return text


def _time_text(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S") if moment else ""


class ReservedPages(PageFamily):
    def __init__(self, frame: FunctionFrame, reservations: Reservations) -> None:
        self._frame, self._reservations = frame, reservations

    @get("ConsoleNewReservation", f"{CONFIGURATION}/new-reservation", ADMIN)
    async def show_new(self, call: Call) -> Reply:
        return await self._show(call, ReservationForm(count="1"), None)

    @get("ConsoleReservation", f"{CONFIGURATION}/reserved/{{qualifier}}")
    async def show(self, call: Call) -> Reply:
        function, qualifier = self._frame.function_of(call), call.part("qualifier")
        reserved = self._found(function, qualifier)
        if reserved is None:
            raise NotFound(f"no reservation of {qualifier[:100]} (it may have been removed)")
        return await self._show(call, form_of(qualifier, reserved.reservation), reserved)

    @post("ConsoleReserve", f"{CONFIGURATION}/new-reservation")
    @post("ConsoleSaveReservation", f"{CONFIGURATION}/reserved/{{qualifier}}")
    async def save(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        typed = read_form(form, call.parts.get("qualifier", ""))
        reserved = self._found(function, typed.qualifier)
        if "qualifier" not in call.parts and reserved is not None:
            text = "It has a reservation. Change that one in the list."
            return await self._show(call, typed, None, {"qualifier": text})
        before = reserved.reservation if reserved else None
        if is_stale(form, before):
            return await self._show(call, typed, reserved, {WHOLE: CHANGED})
        body = body_of(typed, before)
        if before is not None and body == body_of(form_of(typed.qualifier, before), before):
            return see_other(path_of(function, LIST), "Nothing was changed.")
        try:
            await self._frame.send(call, "PUT", function, _api_part(typed.qualifier), body)
        except FunctiondError as error:
            marked, errors = with_errors(typed, error)
            return await self._show(call, marked, reserved, errors)
        kept = self._found(function, typed.qualifier) is not None
        if not kept and reserved is None:
            return await self._show(call, typed, None, {"count": NOTHING})
        return see_other(path_of(function, LIST), "Saved." if kept else REMOVED)

    @post("ConsoleRemoveReservation", f"{CONFIGURATION}/reserved/{{qualifier}}/remove")
    async def remove(self, call: Call, form: Form) -> Reply:
        function, qualifier = self._frame.function_of(call), call.part("qualifier")
        try:
            await self._frame.send(call, "PUT", function, _api_part(qualifier), {"count": 0})
        except FunctiondError as error:
            return await self._list(call, errors_beside(error, ()))
        return see_other(path_of(function, LIST), REMOVED)

    @get("ConsoleReserved", f"{CONFIGURATION}/reserved")
    async def _list(self, call: Call, errors: Mapping[str, str] | None = None) -> Reply:
        function = self._frame.function_of(call)
        return await self._frame.show(
            call,
            "functions/reserved.html",
            tab=TAB,
            reservations=[value_shown(call, _listed(reserved)) for reserved in self._all(function)],
            most=self._frame.limits.reserved_instances,
            errors=errors or {},
        )

    async def _show(
        self,
        call: Call,
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
            settings=self._fields(call),
            policies=len(before.tactics.metric_configs) if before else 0,
            errors=errors or {},
            seen=digest_of(before),
        )

    def _fields(self, call: Call) -> Mapping[str, Field]:
        choices = tuple(Choice(value=value, label=label) for value, label in self._frame.qualifiers(call, LATEST))
        qualifier = Field(
            name="qualifier", key="qualifier", label="Version or alias", control="choice", choices=choices
        )
        return {"qualifier": qualifier, "count": fields_of(ReservedBody)[0]}

    def _all(self, function: Function) -> Sequence[Reserved]:
        reservations = self._reservations.find(function.project)
        return [reserved for reserved in reservations if reserved.function.function_id == function.function_id]

    def _found(self, function: Function, qualifier: str) -> Reserved | None:
        return next((reserved for reserved in self._all(function) if reserved.qualifier == qualifier), None)


def _listed(reserved: Reserved) -> dict[str, Any]:
    return {
        "qualifier": reserved.qualifier,
        "version": reserved.function.version,
        "now": reserved.count,
        "base": reserved.reservation.count,
        "crons": to_builtins(reserved.reservation.tactics.cron_configs),
    }


def _api_part(qualifier: str) -> str:
    return f"{quote(f':{qualifier}', safe='')}/reservedinstances"
