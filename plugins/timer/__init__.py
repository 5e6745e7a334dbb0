"""Timer plugin (TIMER). Invokes a function at an interval, or at calendar times."""

from __future__ import annotations

from datetime import UTC, datetime

from engine import Plugin, TriggerDisplay, TriggerRules
from plugins.timer.display import next_due, subject
from plugins.timer.options import TimerOptions, mode
from plugins.timer.settings import TimerSettings
from plugins.timer.source import TimerTrigger, event_json


def source(options: TimerOptions) -> TimerTrigger:
    return TimerTrigger(options)


def example(kind: str) -> bytes:
    return event_json("nightly", '{"job": "purge"}', datetime(2026, 3, 1, 6, 30, tzinfo=UTC))


plugin = Plugin(
    kinds=("TIMER",),
    service=TimerSettings,
    options=TimerOptions,
    trigger=source,
    rules=TriggerRules(vendor=True, limited=True, unique=("name",), mode=mode, mode_option="sync_execution"),
    example=example,
    display=TriggerDisplay(about={"TIMER": "Due times of a schedule."}, subject=subject, next_due=next_due),
)
