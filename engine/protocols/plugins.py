"""Plugins: destinations, code links, the rules of a trigger kind, and the registration of all three."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

from msgspec import Struct

from engine.model.invocation import (
    Mode,
    PendingDelivery,
    Request,
)
from engine.protocols.triggers import EventSink, PluginContext, PluginService, Trigger


class DeliveryContext(Protocol):
    """What a destination may use while it delivers one outcome."""

    @property
    def plugin(self) -> PluginContext:
        """What all parts of its plugin may use."""
        ...

    def hop(self) -> int:
        """The ``hops`` of events that the outcome becomes here. Raises Undeliverable for what looks like a loop."""
        ...

    async def accept(self, request: Request) -> str:
        """Turn the delivery into an invocation here, in one transaction with its being delivered."""
        ...


class Destination(Protocol):
    """Where an outcome goes. May see the same outcome twice, with the same ``delivery_id``."""

    async def deliver(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> None:
        """Carry ``record`` (the documented JSON) there. Raise to be called again later."""
        ...


class Undeliverable(Exception):
    """Raised by a destination: trying again will not help."""


class CodeLinks(Protocol):
    """Finds code packages by their links, in the one store that the settings name, whatever host a link names."""

    def open(self, link: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The package's bytes, block by block.

        Entering raises BadLink, ObjectMissing, StoreRefused and StoreUnavailable; reading on, StoreUnavailable.
        """
        ...


class TriggerRules(Struct, frozen=True, kw_only=True):
    """What holds for a kind of triggers, beside what its options check.

    Options mark their fields by ``msgspec.Meta(extra=...)``: with ``secret`` a field is shown to nobody, with
    ``fixed`` it stays as it was created. Their ``__post_init__`` may raise InvalidField.
    """

    vendor: bool = False  #: unknown keys are passed over and logged; other kinds refuse them
    may_disable: bool = True
    starts_disabled: bool = False
    pulls: bool = False  #: is one of the ten that a version may have of these kinds together
    per_project: int = 0  #: how many a project may have; 0: any number
    unique: tuple[str, ...] = ()  #: options that, together, differ between the triggers of a version
    #: Whether two triggers of a project exclude each other; the last argument tells if they are of one function.
    conflicts: Callable[[Any, Any, bool], bool] | None = None
    mode: Callable[[Any], Mode] | None = None  #: the invocation mode that options ask for
    mode_option: str = ""  #: the option by which they do
    #: After a change the new source starts before the old one stops: for push sources, which answer all the time.
    start_before_stop: bool = False
    #: What a reply has beside the options: options, trigger id, URN, settings of the plugin's service.
    reply_fields: Callable[[Any, str, str, Any], Mapping[str, Any]] | None = None
    #: The same of what only its running service knows: the service, options, trigger id, URN.
    runtime_fields: Callable[[Any, Any, str, str], Mapping[str, Any]] | None = None
    #: Entered, and raising nothing, while a trigger is stored and enabled, whether its source runs or not: the service,
    #: options, its door.
    on_registered: Callable[[Any, Any, EventSink], AbstractContextManager[None]] | None = None
    #: Where a trigger is reached, if it is known: its kind, options, and the settings of the plugin's service. Replies
    #: show it as ``invoke_url``.
    address: Callable[[str, Any, Any], str] | None = None


class Plugin(Struct, frozen=True, kw_only=True):
    """One service: its trigger and its destination, registered under the kinds it speaks for."""

    kinds: tuple[str, ...]  #: trigger type codes and destination names, e.g. ``("OBS",)``
    service: type[Struct] | None = None  #: its settings: the table ``[plugins.<first kind, in lower case>]``
    options: type[Struct] | None = None  #: the trigger's ``event_data``
    param: type[Struct] | None = None  #: the destination's ``param``
    serve: Callable[[Any], PluginService] | None = None  #: service -> what runs for all its triggers and destinations
    trigger: Callable[[Any], Trigger] | None = None  #: options -> trigger
    destination: Callable[[Any], Destination] | None = None  #: param -> destination
    code_links: Callable[[Any], CodeLinks | None] | None = None  #: service -> where code lies, if it is configured
    modes: frozenset[Mode] = frozenset({Mode.ASYNC})
    fixed_mode: bool = True  #: False: the invocation mode may be changed
    rules: TriggerRules = TriggerRules()

    @property
    def table(self) -> str:
        """The name of its settings below ``plugins``."""
        return self.kinds[0].lower()
