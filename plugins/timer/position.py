"""How far a timer has come, and where it goes on after the clock was set.

A clock that is ahead moves the cursor ahead. When the clock is set back, the cursor goes back too; otherwise the timer
would be silent for as long as the clock was wrong. Idempotency keys drop the due times that already had a request.

A clock that is behind moves the cursor back in the same way. When the clock is right again, due times up to ``known``
are not missed: they had their turn before, and their keys may have expired.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from engine import TriggerContext
from plugins.timer.schedule import Interval, Timetable

CURSOR = "due"


class Position(Struct, frozen=True, kw_only=True):
    """The cursor of a timer. A position of another generation says nothing."""

    generation: int
    due: float  #: the last due time that is dealt with
    asked: float = 0.0  #: the latest due time that had a request; stays when the cursor goes back

    def after(self, due: float, *, asked: bool) -> Position:
        """The position once all due times up to ``due`` are dealt with: by requests, or by passing them over."""
        return Position(generation=self.generation, due=due, asked=max(self.asked, due) if asked else self.asked)

    def is_ahead(self, table: Timetable, now: float) -> bool:
        """Return whether the cursor comes from a clock that was ahead.

        A step back of up to one period changes nothing, unless the last due time was passed over without a request.
        """
        return self.due > now and (self.due > self.asked or self.due > now + table.period(now))

    def known(self, since: float, now: float) -> float:
        """The moment up to which no due time counts as missed."""
        return max(moment for moment in (self.due, self.asked, since) if moment <= max(now, self.due))


def read_position(context: TriggerContext, table: Timetable) -> Position:
    """The position of this generation; at first, its beginning."""
    kept = context.cursors.get(CURSOR)
    position = msgspec.json.decode(kept, type=Position) if kept else None
    if position is None or position.generation != context.generation:
        # The beginning of an interval is not due itself: a small step back of the clock must not fire it.
        asked = context.since if isinstance(table.schedule, Interval) else 0.0
        return Position(generation=context.generation, due=context.since, asked=asked)
    return position
