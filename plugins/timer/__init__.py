"""Timer plugin (TIMER). Invokes a function at an interval, or at calendar times."""

from __future__ import annotations

from engine import Plugin, TriggerRules
from plugins.timer.options import TimerOptions, mode
from plugins.timer.settings import TimerSettings
from plugins.timer.source import TimerTrigger


def source(options: TimerOptions) -> TimerTrigger:
    return TimerTrigger(options.name, options.read(), options.user_event)


plugin = Plugin(
    kinds=("TIMER",),
    service=TimerSettings,
    options=TimerOptions,
    trigger=source,
    rules=TriggerRules(vendor=True, limited=True, unique=("name",), mode=mode, mode_option="sync_execution"),
)
