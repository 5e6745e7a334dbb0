"""Who is told of what was done over the control plane. With nobody to tell, nothing is put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import structlog
from msgspec import Struct

log = structlog.get_logger("functiond.audit")


class Trace(Struct, frozen=True, kw_only=True):
    """One operation of the API that changed something, or was refused."""

    trace_id: str
    time: float
    operation: str  #: its name in the vendor's SDK, such as CreateFunction
    project: str
    resource_type: str  #: function, version, alias, trigger, event, dependency, delivery, or invocation
    resource_id: str
    resource_name: str
    code: int  #: HTTP status
    user: str  #: access key, or the beginning of a token's SHA-256; empty where no credentials are needed
    source_ip: str
    request_id: str  #: the reply's X-Request-Id, which errors have; else the trace's own id
    method: str
    path: str  #: as it came, with the query
    request: Any  #: body as JSON data without secrets; None if there is none to show
    response: Any  #: likewise


Listener = Callable[[Trace], None]


class Audit(Protocol):
    """The traces of the control plane."""

    def subscribed(self, listener: Listener) -> AbstractContextManager[None]:
        """Within this, call ``listener`` in the loop after each operation; it must return at once."""
        ...


class AuditTrail:
    """Satisfies ``Audit``, for those who leave traces."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    @property
    def heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    @contextmanager
    def subscribed(self, listener: Listener) -> Iterator[None]:
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def tell(self, trace: Trace) -> None:
        for listener in list(self._listeners):
            try:
                listener(trace)
            except Exception:  # what was done is done, and its caller gets the answer
                log.exception("a listener failed", operation=trace.operation)
