"""Example of an event of CTS: the trace of an operation on a function."""

from __future__ import annotations

from engine import Trace
from plugins.cts.traces import own, payload

_TRACE = Trace(
    trace_id="5d1a2f5c-7b0e-4c39-9d0c-2f6d8f3c1a11",
    time=1_772_346_600.123,
    operation="DeleteFunction",
    project="project1",
    resource_type="function",
    resource_id="urn:fss:local-1:project1:function:default:old:latest",
    resource_name="old",
    code=204,
    user="AKEXAMPLE",
    role="admin",
    source_ip="192.0.2.9",
    request_id="5d1a2f5c-7b0e-4c39-9d0c-2f6d8f3c1a11",
    method="DELETE",
    path="/v2/project1/fgs/functions/urn:fss:local-1:project1:function:default:old",
    request=None,
    response=None,
)


def example(kind: str) -> bytes:
    return payload(own(_TRACE))
