"""How far a trigger has read its collection: what its cursor says, and where that makes it begin."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct

#: The one cursor of a trigger.
NAME = "changes"

#: A moment of the server's log: seconds, and a count within the second.
Moment = tuple[int, int]


class ResumeToken(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A cursor. It counts for its own collection only: options may be changed to another."""

    place: str  #: instance and collection
    token: str = ""  #: of the last that was read, as JSON; empty: nothing was
    moment: Moment = (0, 0)  #: without a token, where to begin; zeros: with what comes from now on
    since: float = 0.0  #: changes that were made earlier are passed over, until one is that was not
    invalid: bool = False  #: the token is that of a collection's end
    problem: str = ""  #: why nobody may read on from here
    generation: int = 0  #: of the trigger when that was found

    def stopped(self, generation: int) -> bool:
        """Whether the trigger waits for someone to change it, and nobody has."""
        return bool(self.problem) and self.generation == generation

    @property
    def known(self) -> bool:
        return bool(self.token) or self.moment != (0, 0)


def read(cursors: Mapping[str, bytes], place: str) -> ResumeToken:
    """The cursor of this place; one that knows nothing if there is none."""
    found = msgspec.json.decode(cursors[NAME], type=ResumeToken) if NAME in cursors else None
    return found if found is not None and found.place == place else ResumeToken(place=place)


def written(position: ResumeToken) -> dict[str, bytes]:
    return {NAME: msgspec.json.encode(position)}


class Now(Struct, frozen=True, kw_only=True):
    """What a server says of itself."""

    last: Moment  #: of its newest change
    time: float  #: by its clock
    alone: bool  #: its clock is also that of its changes


def next_of(place: str, now: Now) -> ResumeToken:
    """What comes from now on."""
    return ResumeToken(place=place, moment=(now.last[0], now.last[1] + 1))


def first_of(place: str, now: Now, waited: float) -> ResumeToken:
    """Where to begin a collection that was never read: when its trigger was enabled, ``waited`` seconds before now.

    What has come since belongs to the trigger, also if the server could not be reached. Moments are whole seconds; what
    is older is told by its own time, where a server gives one.
    """
    enabled = now.time - waited
    if enabled >= now.last[0] + 1:
        return next_of(place, now)
    return ResumeToken(place=place, moment=(int(enabled), 1), since=enabled if now.alone else 0.0)
