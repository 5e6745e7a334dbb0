"""Form of a reservation: number of reserved instances, and a schedule that changes it.

Rows of the schedule have the fields ``c-cron``, ``c-count``, ``c-name``, ``c-start`` and ``c-end``. Empty rows
are none. Times are in UTC.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from engine.errors import FunctiondError, InvalidField
from engine.http.console.configuration.settings import errors_beside, one_line
from engine.http.console.forms import Form, whole_or_text
from engine.resources.reservations import Reservation

_ROW = ("cron", "count", "name", "start", "end")
#: Beginnings of error messages, by the field of the API.
_LABELS = {"cron": "time expression", "count": "instances", "start_time": "from", "expired_time": "until"}
_INDEX = re.compile(r"cron_configs\[(\d+)\]\.?(.*)")


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
                "cron": one.cron,
                "count": str(one.count),
                "name": one_line(one.name),
                "start": _time_text(one.start_time),
                "end": _time_text(one.expired_time),
                "error": "",
            }
            for one in reservation.tactics.cron_configs
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
    tactics: dict[str, Any] = {"cron_configs": [_cron(one) for one in typed.crons]}
    if stored is None:
        return {"count": whole_or_text(typed.count), "tactics_config": tactics}
    tactics["metric_configs"] = msgspec.to_builtins(stored.tactics.metric_configs)
    return {"count": whole_or_text(typed.count), "idle_mode": stored.idle_mode, "tactics_config": tactics}


def with_errors(typed: ReservationForm, error: FunctiondError) -> tuple[ReservationForm, Mapping[str, str]]:
    """Return the form with the error at the row of the schedule that it names, and errors by field."""
    found = _INDEX.search(error.field) if isinstance(error, InvalidField) else None
    if found is None or not isinstance(error, InvalidField) or int(found[1]) >= len(typed.crons):
        return typed, errors_beside(error, ("count",))
    text = f"{_LABELS.get(found[2], found[2])}: {error.allowed}"
    rows = [{**row, "error": text} if number == int(found[1]) else row for number, row in enumerate(typed.crons)]
    return msgspec.structs.replace(typed, crons=rows), {"crons": text}


def _cron(row: Mapping[str, str]) -> dict[str, Any]:
    return {
        "cron": row["cron"].strip(),
        "name": row["name"].strip(),
        "count": whole_or_text(row["count"]),
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
