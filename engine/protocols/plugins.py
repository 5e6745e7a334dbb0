"""Registration of plugins, rules for triggers of a kind, protocols of destinations and of readers of code packages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct

from engine.logs.target import LogTarget
from engine.model.invocation import Mode, PendingDelivery, Request
from engine.protocols.triggers import EventSink, PluginContext, PluginService, Trigger


class DeliveryContext(Protocol):
    """Access of a destination to the engine while it delivers one outcome."""

    @property
    def plugin(self) -> PluginContext:
        """Context of the destination's plugin. All triggers and destinations of the plugin share it."""
        ...

    @property
    def traceparent(self) -> str:
        """Value of the header ``traceparent`` to send with the outcome; empty if the invocation has no trace context.

        ``accept`` gives it to the request.
        """
        ...

    def hop(self) -> int:
        """Return ``hops`` for an event that is made from the outcome.

        Raises Undeliverable if the chain of functions that led to the outcome is as long as the engine permits.
        """
        ...

    async def accept(self, request: Request) -> str:
        """Store ``request`` as an invocation and remove the delivery from the outbox, in one transaction.

        Returns the request id. Raises NotFound if the function of the request does not exist, so that the delivery is
        retried, and Undeliverable if the chain of functions that led to the outcome is as long as the engine permits.
        """
        ...


class Destination(Protocol):
    """Receiver of outcomes. The same outcome may be delivered more than once, with the same ``delivery_id``."""

    async def deliver(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> None:
        """Send ``record``, FunctionGraph's documented JSON of an outcome. Return when the receiver has confirmed it.

        After Undeliverable, the engine gives up the delivery. After any other exception, the engine calls this method
        again later.
        """
        ...


class Undeliverable(Exception):
    """Error of a delivery that cannot succeed, however often it is retried."""


class CodeLinks(Protocol):
    """Reader of code packages in an object store, by the link in a request that creates or updates a function.

    All packages are read from the object store in the plugin's settings. The host in a link is ignored.
    """

    def open(self, link: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open the package of a link. The block gets an iterator over the bytes of the package.

        Entering the block raises BadLink if the link does not name an object, ObjectMissing if the object does not
        exist, StoreRefused if the store refuses the request, and StoreUnavailable if the store fails or cannot
        be reached. Reading may raise StoreUnavailable too.
        """
        ...


class TriggerRules(Struct, frozen=True, kw_only=True):
    """Rules for the triggers of one kind, in addition to those that the struct of their options (``event_data``) has.

    The options struct marks fields by ``msgspec.Meta(extra=...)``. The value of a field with ``secret`` is masked in
    replies. A field with ``fixed`` cannot be changed after the trigger was created. ``__post_init__`` of the struct may
    raise InvalidField.
    """

    vendor: bool = False  #: kind of the vendor: unknown keys are ignored, not refused, unless they are like known ones
    may_disable: bool = True
    starts_disabled: bool = False
    limited: bool = False  #: counts toward ``limits.triggers``, which a version or alias may have
    unique: tuple[str, ...] = ()  #: options whose combination must differ between the triggers of a version
    #: Returns whether two triggers of a project exclude each other. Arguments: options of each, True if both have the
    #: same function.
    conflicts: Callable[[Any, Any, bool], bool] | None = None
    #: Returns why a trigger would take events of an older one of another project; empty: it takes none. Arguments: kind
    #: and options of the trigger, kind and options of the other.
    taken: Callable[[str, Any, str, Any], str] | None = None
    claimed: tuple[str, ...] = ()  #: options that ``taken`` compares; their last change is the age of the claim
    #: Returns the option that a trigger must not have, and the reason, or None. Arguments: options, log streams to
    #: which the states of the project's invocations are written.
    refuse: Callable[[Any, Collection[LogTarget]], tuple[str, str] | None] | None = None
    mode: Callable[[Any], Mode] | None = None  #: options -> invocation mode that the options select
    mode_option: str = ""  #: option that selects the invocation mode
    #: After a change, start the new source before the old one is stopped. For push sources, which must always answer.
    start_before_stop: bool = False
    longest_delay: float = 30.0  #: seconds until a failed source starts again, at most; meanwhile, events may get lost
    #: Senders send events of a trigger to ``/triggers/<table>/<trigger id>``. Replies show it as ``path``.
    has_path: bool = False
    #: Returns fields that the vendor's API adds to ``event_data`` in replies. Terraform, which compares ``event_data``
    #: with its own, does not get them. Arguments: options, trigger id, URN, service settings.
    reply_fields: Callable[[Any, str, str, Any], Mapping[str, Any]] | None = None
    #: Returns ``subscription_status`` in replies. Arguments: running service, options, trigger id, URN.
    subscription_status: Callable[[Any, Any, str, str], str] | None = None
    #: Returns a context manager. It is entered while a trigger is stored and enabled, even if its source does not run,
    #: and must not raise. Arguments: service, options, event sink.
    on_registered: Callable[[Any, Any, EventSink], AbstractContextManager[None]] | None = None
    #: Returns the address to which events are sent, or its known part, for ``invoke_url`` in replies. Arguments:
    #: running service, kind, options, and whether listeners speak TLS.
    address: Callable[[Any, str, Any, bool], str] | None = None


class TriggerDisplay(Struct, frozen=True, kw_only=True):
    """Presentation of triggers in the console. Labels and helps of options are ``msgspec.Meta`` of their struct."""

    about: Mapping[str, str] = {}  #: what calls a function, in one line, by kind
    #: Returns the schedule, address or topic of a trigger in one line. Argument: options.
    subject: Callable[[Any], str] | None = None
    #: Returns the next time at which a trigger calls its function, in the time zone of its schedule, or None.
    #: Arguments: options, settings of the service, time of the trigger's last change, now (in seconds since the epoch).
    next_due: Callable[[Any, Any, float, float], datetime | None] | None = None
    module: str = ""  #: module that sources need, and that is missing unless ``extra`` is installed; empty: none
    extra: str = ""


class Plugin(Struct, frozen=True, kw_only=True):
    """Registration of a plugin: its trigger kinds, a trigger, a destination, and a service that both share."""

    kinds: tuple[str, ...]  #: trigger type codes and destination names, e.g. ``("OBS",)``
    service: type[Struct] | None = None  #: settings, in the table ``[plugins.<first kind, in lower case>]``
    options: type[Struct] | None = None  #: ``event_data`` of the trigger
    param: type[Struct] | None = None  #: ``param`` of the destination
    serve: Callable[[Any], PluginService] | None = None  #: settings -> service that all triggers and destinations share
    trigger: Callable[[Any], Trigger] | None = None  #: options -> trigger
    #: Returns the cursors for positions that a user sets, by names such as those of partitions. May raise InvalidField.
    #: Arguments: options, cursors, positions.
    seek: Callable[[Any, Mapping[str, bytes], Mapping[str, str]], Mapping[str, bytes]] | None = None
    destination: Callable[[Any], Destination] | None = None  #: param -> destination
    #: Returns whether outcomes at a destination become events of a trigger without their hops. No function can have
    #: both then. Arguments: settings, options of the trigger, param of the destination.
    loops: Callable[[Any, Any, Any], bool] | None = None
    #: Returns the field of a destination's ``param`` that names a secret, topic or stream which is missing; empty: none
    #: does. Arguments: context, param, project.
    unknown: Callable[[PluginContext, Any, str], str] | None = None
    #: Returns the parts of the settings that a trigger, destination or link uses, by name (``instances.main``, or empty
    #: for all), with their projects, as for ``PluginContext.may_use``. Arguments: settings; options, ``param`` or link.
    uses: Callable[[Any, Any], Mapping[str, Collection[str]]] | None = None
    code_links: Callable[[Any], CodeLinks | None] | None = None  #: settings -> reader of code packages, or None
    modes: frozenset[Mode] = frozenset({Mode.ASYNC})
    fixed_mode: bool = True  #: False: the invocation mode can be changed
    rules: TriggerRules = TriggerRules()
    #: Returns the JSON of an event as triggers of a kind make it, for tests of functions. Argument: kind.
    example: Callable[[str], bytes] | None = None
    display: TriggerDisplay = TriggerDisplay()

    @property
    def table(self) -> str:
        """Name of the plugin's table under ``plugins`` in the settings file."""
        return self.kinds[0].lower()
