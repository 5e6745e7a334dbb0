"""Audit events: records of calls of the API that manages functions (the control plane)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import structlog
from msgspec import Struct

log = structlog.get_logger("functiond.audit")


class Trace(Struct, frozen=True, kw_only=True):
    """Audit event: a call of an API operation that changed something, or was refused."""

    trace_id: str
    time: float  #: seconds since the epoch
    operation: str  #: name in the vendor's SDK, such as CreateFunction
    service: str = "FunctionGraph"  #: service of the vendor to which the operation belongs
    project: str
    resource_type: str  #: such as function, version, alias, trigger, event, dependency, delivery or invocation
    resource_id: str
    resource_name: str
    code: int  #: HTTP status
    user: str  #: access key, or the first digits of a token's SHA-256; empty if no credentials are required
    role: str = ""  #: of these credentials
    source_ip: str
    request_id: str  #: X-Request-Id of an error reply; the trace id for other replies
    method: str
    path: str  #: path and query as received
    request: Any  #: body of the request as JSON data without secrets; None: no body to show
    response: Any  #: body of the reply as JSON data without secrets; None: no body to show


Listener = Callable[[Trace], None]


class Audit(Protocol):
    """Source of audit events for plugins that subscribe to them."""

    def subscribed(self, listener: Listener) -> AbstractContextManager[None]:
        """Call ``listener`` with an audit event after each API operation that changes something, until the block ends.

        The listener is called in the event loop and must return without delay.
        """
        ...


class AuditTrail:
    """Distributor of audit events: calls each subscriber with the events given to ``publish``."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    @property
    def has_subscribers(self) -> bool:
        """True if there is a subscriber. Without one, the API creates no audit events."""
        return bool(self._listeners)

    @contextmanager
    def subscribed(self, listener: Listener) -> Iterator[None]:
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def publish(self, trace: Trace) -> None:
        """Call all subscribers with an audit event. An exception of a subscriber is logged and not raised."""
        for listener in list(self._listeners):
            try:
                listener(trace)
            except Exception:  # an error of a listener must not affect the operation or its reply
                log.exception("audit listener failed", operation=trace.operation)
