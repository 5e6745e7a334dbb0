"""TIMER triggers: schedules in commands, manifests and code, and due times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.deploy.client import Client, path_of
from engine.deploy.progress import report
from engine.errors import InvalidField, UsageError
from engine.model.cron import ZONE
from engine.model.crontab import five_fields, from_crontab

KIND, NAME = "TIMER", "from-code"  #: the name tells timers of an app's code from others of the function
FROM_CODE = (f"{KIND} {NAME} of ", f"APIG {NAME} ")  #: beginnings of triggers from code in plans
_RATE = re.compile(r"[1-9]\d?[mhd]", re.ASCII)

Data = dict[str, Any]


def for_api(kind: str, data: Mapping[str, Any]) -> Data:
    """Return ``event_data`` as the API takes it, which knows no ``crontab``. Raises UsageError if it is invalid."""
    fields = dict(data)
    if kind.upper() != KIND or (crontab := fields.pop("crontab", None)) is None:
        return fields
    if "schedule" in data or data.get("schedule_type", "Cron") != "Cron" or not isinstance(crontab, str):
        raise UsageError(f"crontab is {crontab!r}: give it as text, in place of schedule and schedule_type")
    return fields | {"schedule_type": "Cron", "schedule": _cron(crontab, "crontab")}


def warn(kind: str, data: Mapping[str, Any]) -> None:
    """Print how a timer's schedule of five fields is read, since most other programs read it as a crontab."""
    if kind.upper() == KIND and (warning := five_fields(data)):
        report(f"functiond: {warning}")


def next_due(client: Client, function: str, trigger: Data) -> str:
    """Return the next due times of a trigger in one line; empty if it has none."""
    if (kind := trigger["trigger_type_code"]) != KIND:
        return ""
    return due_text(client.of_project.get(f"/triggers{path_of(function)}/{kind}/{trigger['trigger_id']}/state"))


def due_text(source: Data, most: int | None = None) -> str:
    """Return the first due times in the state of a source, with their time zone."""
    times = ", ".join(moment[:19].replace("T", " ") for moment in source.get("due", ())[:most])
    return f"{times} ({source['zone']})" if times else ""


def read_schedule(schedule: str, zone: str | None) -> dict[str, str]:
    """Return the options for a schedule of an app: a crontab in a time zone, or a rate such as ``15m``.

    Raises UsageError.
    """
    if not _RATE.fullmatch(schedule):
        text = f"{ZONE}{zone} {schedule}" if zone else schedule
        return {"schedule_type": "Cron", "schedule": _cron(text, "schedule")}
    if zone is not None:
        raise UsageError(f"schedule is {schedule!r}: a rate has no zone")
    return {"schedule_type": "Rate", "schedule": schedule}


def _cron(text: str, field: str) -> str:
    try:
        return from_crontab(text, field)
    except InvalidField as error:
        raise UsageError(str(error)) from None
