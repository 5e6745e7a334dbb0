"""What the contract suite needs to know of a source."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from msgspec import Struct

from tests.support.http_app import PROJECT


class Target(Struct, frozen=True, kw_only=True):
    """A trigger of an engine that runs."""

    url: str  #: of the engine's API
    trigger_id: str
    shown: Mapping[str, Any]  #: its event_data


class Rig:
    """The outside of one trigger. Made anew for each test; opened before the engine starts."""

    kind: ClassVar[str]
    slow: ClassVar[bool] = False  #: its server takes seconds: on one Python only
    modules: ClassVar[tuple[str, ...]] = ()  #: of plugins, beside the built-in ones
    #: Whether events wait outside for a source that is away; else they are sent, and refused or taken at once.
    pulls: ClassVar[bool] = True
    may_disable: ClassVar[bool] = True
    #: Changes of good options that make them bad, and what the refusal must name.
    bad: ClassVar[Sequence[tuple[Mapping[str, Any], str]]] = ()
    #: A change that leaves the source what it is.
    change: ClassVar[Mapping[str, Any]]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = {}  #: of the engine, by dotted names
        self.project = PROJECT  #: of the trigger

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """The server or store outside runs. ``pytest.skip`` if it cannot be had here."""
        yield self

    def options(self) -> dict[str, Any]:
        """Good ones."""
        raise NotImplementedError

    async def send(self, target: Target, number: int) -> bool:
        """Make an event that carries a number; False if it was refused for now. Sent again, it is the same event.

        Must also work on a pull source while no engine runs, when ``target`` tells nothing.
        """
        raise NotImplementedError

    def numbers(self, event: Any) -> Sequence[int]:
        """What a payload carries of what was sent: several, where the source makes one event of many."""
        raise NotImplementedError

    #: Whether ``breaks`` and ``mends`` take the outside away and bring it back, with what it held.
    breakable: ClassVar[bool] = False

    async def breaks(self) -> None: ...

    async def mends(self) -> None: ...
