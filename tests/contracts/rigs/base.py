"""Base class of rigs: the interface between the trigger contract suite and one kind of source."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from msgspec import Struct

from tests.support.http_app import PROJECT


class Target(Struct, frozen=True, kw_only=True):
    """Trigger of a running engine."""

    url: str  #: address of the engine's API
    trigger_id: str
    shown: Mapping[str, Any]  #: the trigger's event_data
    path: str = ""  #: path to which events are sent; empty if the kind has none


class Rig:
    """External side of one trigger. Created for each test; opened before the engine starts."""

    kind: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()  #: modules of plugins besides the built-in ones
    #: True if events wait outside while the source is stopped; False if each is sent and accepted or rejected at once.
    pulls: ClassVar[bool] = True
    may_disable: ClassVar[bool] = True
    #: Changes that make valid options invalid, with the text that the error must contain.
    bad: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = ()
    #: Change of an option that does not replace the source.
    change: ClassVar[Mapping[str, Any]]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = {}  #: settings of the engine by dotted name
        self.project = PROJECT  #: project of the trigger

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
