"""Traces in the documented format of the audit service, from this engine or from clients that send traces."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from typing import Any

import msgspec

from engine import InvalidField, Trace
from plugins._shared.push import decode_json

#: Traces of one pushed body.
MOST = 1000
#: Required fields of a pushed trace: its identity, and the fields that triggers select by.
_NEEDED = ("trace_id", "service_type", "resource_type", "trace_name")
_ID_LIMIT = 128
#: Documented names of the platform's own traces, where they differ from the SDK's names of operations.
_NAMES = {
    "UpdateFunctionCode": "modifyFunctionMetadata",
    "UpdateFunctionConfig": "modifyFunctionMetadata",
    "PatchFunctionConfig": "modifyFunctionMetadata",
    "CreateFunctionVersion": "publishFunctionVersion",
    "CreateFunctionTrigger": "createTrigger",
    "DeleteFunctionTrigger": "deleteTrigger",
}


class Wanted:
    """Operations that call the function of one trigger. Case is ignored, and ``*`` matches any text."""

    def __init__(self, operations: Iterable[str]) -> None:
        self._operations = [tuple(map(_Names, operation.lower().split(":"))) for operation in operations]

    def has(self, service: str, kind: str, *names: str) -> bool:
        return any(
            services.has(service) and kinds.has(kind) and any(map(actions.has, names))
            for services, kinds, actions in self._operations
        )

    def has_own(self, trace: Trace) -> bool:
        """Return whether a trace of this engine matches, by the operation's name in the SDK or its name in traces."""
        return self.has(trace.service, trace.resource_type, trace.operation, name_of(trace.operation))

    def has_pushed(self, trace: dict[str, Any]) -> bool:
        return self.has(trace["service_type"], trace["resource_type"], trace["trace_name"])


class _Names:
    """Names of a list, compiled so that its length does not matter when a trace is compared with it."""

    def __init__(self, names: str) -> None:
        parts = names.split(";")
        self._exact = frozenset(parts)
        self._match = re.compile("|".join(translate(part) for part in parts if "*" in part) or r"(?!)").match

    def has(self, name: str) -> bool:
        name = name.lower()
        return name in self._exact or self._match(name) is not None


def name_of(operation: str) -> str:
    return _NAMES.get(operation) or operation[:1].lower() + operation[1:]


def payload(trace: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"cts": trace})


def own(trace: Trace) -> dict[str, Any]:
    """Return a trace of this engine in the documented format.

    Times are in milliseconds since the epoch. They and the undocumented fields have the form that they have in recorded
    events of the vendor's platform.
    """
    moment = int(trace.time * 1000)
    rating = "normal" if trace.code < 400 else "warning" if trace.code < 500 else "incident"
    return {
        "time": moment,
        "record_time": moment,
        "user": {
            "name": trace.user,
            "id": trace.user,
            "role": trace.role,
            "domain": {"name": trace.project, "id": trace.project},
        },
        "request": {} if trace.request is None else trace.request,
        "response": {} if trace.response is None else trace.response,
        "code": trace.code,
        "service_type": trace.service,
        "resource_type": trace.resource_type,
        "resource_name": trace.resource_name,
        "resource_id": trace.resource_id,
        "trace_name": name_of(trace.operation),
        "trace_type": "ApiCall",
        "trace_id": trace.trace_id,
        "trace_status": rating,
        "trace_rating": rating,
        "api_version": "v2",
        "project_id": trace.project,
        "domain_id": trace.project,
        "operation_id": trace.operation,
        "source_ip": trace.source_ip,
        "read_only": False,
    }


def read_pushed(body: bytes) -> list[dict[str, Any]]:
    """Return the traces in a request's body: a trace, a list of traces, or ``{"traces": […]}`` like the vendor's query.

    A single trace may be in an event, ``{"cts": …}``. Raises InvalidField if the body is not JSON, if there are too
    many traces, or if a trace is not an object or lacks a valid required field.
    """
    match decode_json(body):
        case {"traces": list(traces)} | list(traces):
            pass
        case {"cts": one} | one:
            traces = [one]
    if len(traces) > MOST:
        raise InvalidField("traces", f"{len(traces)} of them", f"at most {MOST} may be in one body")
    for trace in traces:
        _check(trace)
    return traces


def _check(trace: object) -> None:
    if not isinstance(trace, dict):
        raise InvalidField("traces", trace, "must be objects")
    for name in _NEEDED:
        value = trace.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= _ID_LIMIT:
            raise InvalidField(name, value, f"must be a text of 1 to {_ID_LIMIT} characters")


def example(kind: str) -> bytes:
    """Return the trace of an operation on a function, as an example."""
    trace = Trace(
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
    return payload(own(trace))
