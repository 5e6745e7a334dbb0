"""Control-plane audit events, built only while someone subscribes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import structlog
from msgspec import Struct

log = structlog.get_logger("functiond.audit")


class Trace(Struct, frozen=True, kw_only=True):
    """Audit event: an API operation that changed something or was refused."""

    trace_id: str
    time: float  #: seconds since the epoch
    operation: str  #: name in the vendor's SDK, such as CreateFunction
    project: str
    resource_type: str  #: function, version, alias, trigger, event, dependency, delivery, or invocation
    resource_id: str
    resource_name: str
    code: int  #: HTTP status
    user: str  #: access key, or the beginning of a token's SHA-256; empty if no credentials are required
    source_ip: str
    request_id: str  #: X-Request-Id of an error reply; otherwise the trace id
    method: str
    path: str  #: path as received, with the query
    request: Any  #: body as JSON data without secrets; None: no body to show
    response: Any  #: body of the reply, in the same form


Listener = Callable[[Trace], None]


class Audit(Protocol):
    """Traces of the control plane."""

    def subscribed(self, listener: Listener) -> AbstractContextManager[None]:
        """Call ``listener`` in the event loop after each operation, while the block is entered.

        The listener must return at once.
        """
        ...


class AuditTrail:
    """Implementation of ``Audit``, with ``tell`` for publishing traces."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    @property
    def has_subscribers(self) -> bool:
        """True while someone subscribes."""
        return bool(self._listeners)

    @contextmanager
    def subscribed(self, listener: Listener) -> Iterator[None]:
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def publish(self, trace: Trace) -> None:
        """Publish a trace to all listeners."""
        for listener in list(self._listeners):
            try:
                listener(trace)
            except Exception:  # an error of a listener must not affect the operation or its reply
                log.exception("audit listener failed", operation=trace.operation)
