"""Base class of rigs: the interface between the trigger contract suite and one kind of source."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from msgspec import Struct

from engine.model.clock import Clock
from tests.support.http_app import PROJECT


class Target(Struct, frozen=True, kw_only=True):
    """Trigger of a running engine."""

    url: str  #: address of the engine's API
    trigger_id: str
    shown: Mapping[str, Any]  #: the trigger's event_data
    path: str = ""  #: path to which events are sent; empty if the kind has none
    place: Any = None  #: the engine, if it runs in this process


class Rig:
    """External side of one trigger. Created for each test; opened before the engine starts."""

    kind: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()  #: modules of plugins besides the built-in ones
    #: True if events wait outside while the source is stopped; False if each is sent and accepted or rejected at once.
    pulls: ClassVar[bool] = True
    may_disable: ClassVar[bool] = True
    #: Change of an option that does not replace the source.
    change: ClassVar[Mapping[str, Any]]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = {}  #: settings of the engine by dotted name
        self.project = PROJECT  #: project of the trigger
        self.clock: Clock | None = None  #: clock of the engine under test; None: the machine's

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """Run the external server or store; call ``pytest.skip`` if it is not available."""
        yield self

    def options(self) -> dict[str, Any]:
        """Return valid options."""
        raise NotImplementedError

    async def send(self, target: Target, number: int) -> bool:
        """Send the event of a number; return False after a temporary rejection. A repeated number is the same event.

        For a pull source it must also work while no engine runs; ``target`` is then stale.
        """
        raise NotImplementedError

    def numbers(self, event: Any) -> Sequence[int]:
        """Return the sent numbers that a payload carries; several if the source batches events."""
        raise NotImplementedError

    #: True if ``breaks`` stops the external server and ``mends`` restarts it with its data.
    breakable: ClassVar[bool] = False

    async def breaks(self) -> None: ...

    async def mends(self) -> None: ...

    # --- for the suite ``test_made_anew`` --------------------------------------------------------------------

    #: Numbers of parts, such as partitions or queues, with which ``restore`` can make anew what the trigger reads:
    #: some of ``same``, ``fewer`` and ``more``. Empty: it cannot be removed.
    parts: ClassVar[Sequence[str]] = ()
    #: True if the engine under test serves it, so that nothing can happen to it while the engine is stopped.
    inside: ClassVar[bool] = False
    #: Change of options with which the source waits for the end of each invocation. Empty: it has no such option.
    serial: ClassVar[Mapping[str, Any]] = {}
    #: True if the source knows the number of events that were removed unread. Otherwise it only says that some may be.
    counts_removed: ClassVar[bool] = True
    #: Only an engine that runs sees the target: events of one made anew reach nobody before, and it cannot tell how
    #: many were removed while it was dead.
    unbound: ClassVar[bool] = False
    #: Greatest number of times that an event may be seen after a removal. More than 1 must be documented.
    sightings: ClassVar[int] = 1
    #: True if ``expire`` and ``age`` work.
    expires: ClassVar[bool] = False

    async def remove(self, target: Target) -> None:
        """Remove what the trigger reads, with all events in it. ``target`` may be stale unless ``inside``."""
        raise NotImplementedError

    async def restore(self, target: Target, parts: str) -> None:
        """Make anew, under the same name, what ``remove`` has removed."""
        raise NotImplementedError

    async def expire(self) -> None:
        """Let the retention of all events end that were sent so far. Return when they are gone."""
        raise NotImplementedError

    def age(self, seconds: float) -> None:
        """Move the clock of that which the trigger reads, for instance so that its sessions expire."""
        raise NotImplementedError
