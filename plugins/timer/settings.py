"""Settings of TIMER: the table ``[plugins.timer]``."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Meta, Struct


class TimerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    catch_up: Literal["once", "all", "skip"] = "once"  #: requests for missed due times
    zone: Annotated[str, Meta(min_length=1)] = "UTC"  #: time zone of Cron texts without CRON_TZ

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"zone is {self.zone!r}: no such time zone on this machine") from None
