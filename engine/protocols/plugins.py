"""Plugins: destinations, code links, rules of trigger kinds, and their registration."""

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
    """Context of a destination while it delivers one outcome."""

    @property
    def plugin(self) -> PluginContext:
        """Context shared by all parts of the plugin."""
        ...

    def hop(self) -> int:
        """Return the ``hops`` of events made from the outcome. Raises Undeliverable if the number suggests a loop."""
        ...

    async def accept(self, request: Request) -> str:
        """Turn the delivery into an invocation of this engine, in one transaction with its removal from the outbox.

        Returns the request id.
        """
        ...


class Destination(Protocol):
    """Receiver of outcomes. May get the same outcome twice, with the same ``delivery_id``."""

    async def deliver(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> None:
        """Deliver ``record`` (FunctionGraph's documented JSON). Raise an exception to be called again later."""
        ...


class Undeliverable(Exception):
    """Error that a destination raises if a retry cannot succeed."""


class CodeLinks(Protocol):
    """Store of code packages that links refer to.

    The settings name the only store that is read. The host in a link is ignored.
    """

    def open(self, link: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a package and return its bytes, block by block.

        Entering raises BadLink, ObjectMissing, StoreRefused and StoreUnavailable; reading raises StoreUnavailable.
        """
        ...


class TriggerRules(Struct, frozen=True, kw_only=True):
    """Rules of a trigger kind, in addition to the checks of its options.

    Options mark their fields by ``msgspec.Meta(extra=...)``. A field with ``secret`` is never shown; a field with
    ``fixed`` cannot be changed after creation. Their ``__post_init__`` may raise InvalidField.
    """

    vendor: bool = False  #: ignore and log unknown keys of the options; other kinds refuse them
    may_disable: bool = True
    starts_disabled: bool = False
    pulls: bool = False  #: counts towards the ten triggers of pull kinds that a version may have
    per_project: int = 0  #: triggers that a project may have; 0: no limit
    unique: tuple[str, ...] = ()  #: options whose combination must differ between the triggers of a version
    #: Return whether two triggers of a project exclude each other. Arguments: options of both, True for one function.
    conflicts: Callable[[Any, Any, bool], bool] | None = None
    mode: Callable[[Any], Mode] | None = None  #: options -> invocation mode that they select
    mode_option: str = ""  #: option that selects the invocation mode
    #: After a change, start the new source before the old one stops: for push sources, which must always answer.
    start_before_stop: bool = False
    #: Return fields of a reply besides the options. Arguments: options, trigger id, URN, settings of the service.
    reply_fields: Callable[[Any, str, str, Any], Mapping[str, Any]] | None = None
    #: Return reply fields that need the running service. Arguments: service, options, trigger id, URN.
    runtime_fields: Callable[[Any, Any, str, str], Mapping[str, Any]] | None = None
    #: Context entered while a trigger is stored and enabled, even if its source does not run. Must not raise.
    #: Arguments: service, options, event sink.
    on_registered: Callable[[Any, Any, EventSink], AbstractContextManager[None]] | None = None
    #: Return the address of a trigger as far as it is known, shown in replies as ``invoke_url``. Arguments: kind,
    #: options, settings of the service.
    address: Callable[[str, Any, Any], str] | None = None


class Plugin(Struct, frozen=True, kw_only=True):
    """Module for one service: its trigger, its destination and its shared service, registered under its kinds."""

    kinds: tuple[str, ...]  #: trigger type codes and destination names, e.g. ``("OBS",)``
    service: type[Struct] | None = None  #: settings, from the table ``[plugins.<first kind, in lower case>]``
    options: type[Struct] | None = None  #: ``event_data`` of the trigger
    param: type[Struct] | None = None  #: ``param`` of the destination
    serve: Callable[[Any], PluginService] | None = None  #: settings -> service for all triggers and destinations
    trigger: Callable[[Any], Trigger] | None = None  #: options -> trigger
    destination: Callable[[Any], Destination] | None = None  #: param -> destination
    code_links: Callable[[Any], CodeLinks | None] | None = None  #: settings -> store of code packages; None: not set
    modes: frozenset[Mode] = frozenset({Mode.ASYNC})
    fixed_mode: bool = True  #: False: the invocation mode can be changed
    rules: TriggerRules = TriggerRules()

    @property
    def table(self) -> str:
        """Name of the settings table under ``plugins``."""
        return self.kinds[0].lower()
