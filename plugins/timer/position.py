"""Position of a timer (the last handled due time), and its correction after the machine's clock was set.

A clock that is ahead moves the cursor ahead. When the clock is set back, the cursor is moved back, too; otherwise the
timer would not fire for as long as the clock was wrong. Idempotency keys drop due times that already had a request.

A clock that is behind moves the cursor back in the same manner. When the clock is right again, due times up to
``handled_until`` do not count as missed: they were handled before, and their keys may have expired.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from plugins.timer.schedule import Timetable

CURSOR = "due"


class Position(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Cursor of a timer, in the due times of one generation of the trigger."""

    generation: int
    rule: tuple[str, str] | None = None  #: type and text of the generation's schedule; None: of an earlier version
    since: float = 0.0  #: beginning of the generation
    due: float  #: last handled due time
    asked: float = 0.0  #: latest due time that had a request; unchanged when the cursor is moved back

    def after(self, due: float, *, asked: bool) -> Position:
        """Return the position after due times up to ``due`` were handled.

        ``asked`` is True if a request was made for ``due``.
        """
        return replace(self, due=due, asked=max(self.asked, due) if asked else self.asked)

    def is_ahead(self, table: Timetable, now: float) -> bool:
        """Return whether the cursor was stored while the machine's clock was ahead.

        If the clock was set back by at most one period, the answer is False, unless the last due time was skipped
        without a request.
        """
        return self.due > now and (self.due > self.asked or self.due > now + table.period(now))

    def handled_until(self, since: float, now: float) -> float:
        """Return the time up to which all due times were handled, so that none of them counts as missed."""
        return max(moment for moment in (self.due, self.asked, since) if moment <= max(now, self.due))
