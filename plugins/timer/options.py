"""Options of a TIMER trigger (its ``event_data``), and the table ``[plugins.timer]``."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Meta, Struct

from plugins._shared.fields import Name
from plugins.timer.schedule import Schedule, read_schedule


class TimerOptions(Struct, frozen=True, kw_only=True):
    name: Annotated[Name, Meta(examples=["nightly"])]
    schedule_type: Annotated[
        Literal["Rate", "Cron"],
        Meta(
            title="Rule",
            #: The console translates a crontab: it stands in its list, and not in the API.
            extra={"labels": {"Rate": "Fixed rate", "Crontab": "Crontab", "Cron": "Cron expression (seconds first)"}},
        ),
    ]
    schedule: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=255,
            examples=["15m"],
            extra={
                "help": "A rate such as 15m, 2h or 1d. A crontab: minute, hour, day of the month, month, day of the "
                "week, such as 30 6 * * MON-FRI. A Cron expression has the second before them: 0 30 6 * * MON-FRI. "
                "CRON_TZ=Europe/Berlin before either sets the time zone."
            },
        ),
    ]
    user_event: Annotated[
        str, Meta(max_length=2048, title="Additional information", extra={"help": "Copied into the event."})
    ] = ""
    #: The timer waits for the function. Most of the vendor's documents call timers asynchronous, one of 2025
    #: calls them "synchronous, fixed", and an example for Terraform sends this flag as false. The default is therefore
    #: false; true is allowed only by the setting triggers.timer_sync_execution.
    sync_execution: Annotated[
        bool,
        Meta(
            title="Synchronous execution",
            extra={"help": "Wait for the function. Needs the setting triggers.timer_sync_execution."},
        ),
    ] = False

    def __post_init__(self) -> None:
        self.read()

    def read(self) -> Schedule:
        """Return the parsed schedule. Raises InvalidField if the schedule's text is invalid."""
        return read_schedule(self.schedule_type, self.schedule)


class TimerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    catch_up: Literal["once", "all", "skip"] = "once"  #: requests for missed due times
    zone: Annotated[str, Meta(min_length=1)] = "UTC"  #: time zone of Cron texts without CRON_TZ

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"zone is {self.zone!r}: no such time zone on this machine") from None
