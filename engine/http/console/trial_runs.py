"""Test runs of a function: the event that a form has, and the end of a synchronous run as a page shows it."""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from engine.asgi.wire import HeaderPairs
from engine.errors import InvalidField
from engine.http.api.invocations import CallResult
from engine.http.console.api_requests import ApiReply
from engine.http.console.forms import Form
from engine.http.console.invocations.bodies import SHOWN, pretty
from engine.logs.lines import PREFIX, TAIL
from engine.model.retry_rules import FunctionError, read_error

#: Headers of an asynchronous run that the form has as fields of the same name.
OPTIONS = ("X-Functiond-Delay", "X-Functiond-Priority", "Idempotency-Key", "X-Functiond-Ordering-Key")
_BYTE = re.compile(r" \(byte (\d+)\)$")


class _Summary(Struct, frozen=True, kw_only=True):
    duration: str = ""
    memoryUsed: str = ""  # noqa: N815
    memorySize: str = ""  # noqa: N815


class TrialRun(Struct, frozen=True, kw_only=True):
    """End of a synchronous run."""

    ok: bool
    request_id: str
    summary: _Summary
    code: int  #: of the error; 0 for a success
    error: str = ""  #: type and message
    trace: str = ""  #: stack trace of the error; empty: none
    result: str
    result_cut: int = 0  #: characters of the result that are left out
    log: str
    log_cut: bool = False  #: only its end is known


def event_of(form: Form) -> bytes:
    """Return the event that was typed. Raises InvalidField, with line and column, unless it is JSON."""
    event = form.raw("event").encode("utf-8", "replace")
    try:
        msgspec.json.decode(event or b"{}", type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidField("event", form.raw("event"), _position(event, str(error))) from None
    return event or b"{}"


def _position(event: bytes, problem: str) -> str:
    """Return what is wrong with JSON, with the line and the column."""
    found = _BYTE.search(problem)
    end = int(found[1]) if found else len(event)
    line = event.count(b"\n", 0, end) + 1
    column = len(event[event.rfind(b"\n", 0, end) + 1 : end].decode("utf-8", "replace")) + 1
    reason = _BYTE.sub("", problem).removeprefix("JSON is malformed: ")
    return f"not valid JSON at line {line}, column {column}: {reason}"


def options_of(form: Form) -> HeaderPairs:
    """Return the headers of an asynchronous run that were filled in."""
    typed = ((name, form.text(name)) for name in OPTIONS)
    return tuple((name.lower().encode(), value.encode("utf-8", "replace")) for name, value in typed if value)


def run_of(reply: ApiReply) -> TrialRun:
    """Return the end of a synchronous run from the reply to it."""
    call = reply.read(CallResult)
    code = int(reply.headers.get(b"x-func-err-code", b"0"))
    failure = FunctionError() if call.status == 200 else read_error("", call.result.encode())
    log = _own_lines(call.log)
    return TrialRun(
        ok=call.status == 200,
        request_id=call.request_id,
        summary=msgspec.json.decode(reply.headers.get(b"x-cff-invoke-summary", b"{}"), type=_Summary),
        code=code,
        error=": ".join(filter(None, (failure.kind, failure.message))),
        trace="\n".join(line.rstrip("\n") for line in failure.trace),
        result=call.result[:SHOWN] if len(call.result) > SHOWN else pretty(call.result.encode()),
        result_cut=max(0, len(call.result) - SHOWN),
        log=log,
        log_cut=_is_cut(log),
    )


def _is_cut(log: str) -> bool:
    """Return whether a log may be the end of a longer one. ``TAIL`` bytes are kept, with prefixes."""
    return len(log.encode()) + PREFIX * (log.count("\n") + 2) > TAIL


def _own_lines(log: str) -> str:
    """Return a log without the lines that the platform puts around it."""
    head, _, rest = log.partition("\n")
    rest = rest if head.startswith("Start invoke request ") else log
    before, found, _ = rest.rpartition("Finish invoke request ")
    return (before if found else rest).rstrip("\n")
