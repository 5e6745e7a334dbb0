"""Cursor of a DDS trigger: its position in the changes of a collection, and the choice of the first position."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct

#: name of a trigger's only cursor
NAME = "changes"

#: operation time of the server's log: seconds, and a count within the second
Moment = tuple[int, int]


class ResumeToken(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Cursor of a trigger. Valid for one collection only, since the options may be changed to another collection."""

    place: str  #: instance and collection
    token: str = ""  #: JSON of the last read change's token; empty: no change was read
    moment: Moment = (0, 0)  #: start of the stream if there is no token; zeros: now
    since: float = 0.0  #: earlier changes are skipped, up to the first one that is not earlier
    invalid: bool = False  #: the token is that of a collection's end
    problem: str = ""  #: reason for which reading has stopped
    generation: int = 0  #: generation of the trigger when reading stopped

    def stopped(self, generation: int) -> bool:
        """Return whether reading has stopped and the trigger, now of this generation, has not been changed since."""
        return bool(self.problem) and self.generation == generation

    @property
    def known(self) -> bool:
        return bool(self.token) or self.moment != (0, 0)


def read(cursors: Mapping[str, bytes], place: str) -> ResumeToken:
    """Return the stored cursor if it is valid for the collection ``place``, otherwise an empty one."""
    found = msgspec.json.decode(cursors[NAME], type=ResumeToken) if NAME in cursors else None
    return found if found is not None and found.place == place else ResumeToken(place=place)


def written(position: ResumeToken) -> dict[str, bytes]:
    return {NAME: msgspec.json.encode(position)}


class Now(Struct, frozen=True, kw_only=True):
    """State of a database server at one moment: its time, and the position of its newest change."""

    last: Moment  #: moment of its newest change
    time: float  #: time by its clock
    alone: bool  #: replica set, not a sharded cluster: changes have times by the same clock


def next_of(place: str, now: Now) -> ResumeToken:
    """Return the cursor for the collection ``place`` after the server's newest change."""
    return ResumeToken(place=place, moment=(now.last[0], now.last[1] + 1))


def first_of(place: str, now: Now, waited: float) -> ResumeToken:
    """Return the first position in a collection: the time when its trigger was enabled, ``waited`` seconds ago.

    The trigger receives all changes since that time, even if the server could not be reached at first. Positions are
    whole seconds. Earlier changes of the first second are recognised and skipped by their own time, if the server
    reports it.
    """
    enabled = now.time - waited
    if enabled >= now.last[0] + 1:
        return next_of(place, now)
    return ResumeToken(place=place, moment=(int(enabled), 1), since=enabled if now.alone else 0.0)
