"""TIMER: calls a function at an interval or at moments of the calendar."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from engine import Mode, Plugin, TriggerRules
from plugins._shared.fields import Name
from plugins.timer.schedule import Schedule, read_schedule
from plugins.timer.source import TimerSettings, TimerTrigger


class TimerOptions(Struct, frozen=True, kw_only=True):
    name: Name
    schedule_type: Literal["Rate", "Cron"]
    schedule: Annotated[str, Meta(min_length=1, max_length=255)]
    user_event: Annotated[str, Meta(max_length=2048)] = ""  #: handed on as it is
    #: Whether a tick waits for the function. Most sources call timers asynchronous, one page of 2025 "synchronous,
    #: fixed", and an example of Terraform sends this flag as false (spec triggers_runtime, 2). So it is false, and may
    #: be true only where the setting triggers.timer_sync_execution lets it.
    sync_execution: bool = False

    def __post_init__(self) -> None:
        self.read()

    def read(self) -> Schedule:
        """Raises InvalidField."""
        return read_schedule(self.schedule_type, self.schedule)


def mode(options: TimerOptions) -> Mode:
    return Mode.SYNC if options.sync_execution else Mode.ASYNC


def source(options: TimerOptions) -> TimerTrigger:
    return TimerTrigger(options.name, options.read(), options.user_event)


plugin = Plugin(
    kinds=("TIMER",),
    service=TimerSettings,
    options=TimerOptions,
    trigger=source,
    rules=TriggerRules(vendor=True, pulls=True, unique=("name",), mode=mode, mode_option="sync_execution"),
)
