"""Trace context of W3C: the value of the header ``traceparent``, which joins the spans of a request to one trace.

A value is ``00-<32 hex digits of the trace>-<16 of the parent span>-<2 of flags>``. The engine stores the value with
the invocation, so that the trace goes on after a restart and in an engine that takes over.
"""

from __future__ import annotations

import re
from hashlib import blake2b

from msgspec import Struct

HEADER = b"traceparent"
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_SAMPLED = 1


class TraceContext(Struct, frozen=True):
    trace_id: str
    span_id: str  #: span that is the parent of the next one; empty: there is none
    sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-0{int(self.sampled)}"


def parse_trace(value: str) -> TraceContext | None:
    """Return the trace context in a header, or None if the value is invalid.

    A later version of the format counts as version 00, as the standard demands. Its further fields are dropped.
    """
    match = _FORM.fullmatch(value)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def trace_of(value: bytes) -> str:
    """Return the value of a header in the form in which it is stored; empty if it is invalid."""
    context = parse_trace(value.decode("latin-1"))
    return "" if context is None else str(context)


def span_id_of(*names: object) -> str:
    """Return the id of a span, derived from names that identify it, so that no id must be stored."""
    return blake2b("/".join(map(str, names)).encode(), digest_size=8).hexdigest()


def trace_id_of(request_id: str) -> str:
    """Return the id of the trace that an invocation begins."""
    return blake2b(request_id.encode(), digest_size=16).hexdigest()
