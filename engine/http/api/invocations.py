"""Asynchronous and synchronous invocation of a function by HTTP request.

These requests are the hot path: ``HttpServer`` finds them without the router. An asynchronous request is
answered after its invocation is on disk. A synchronous request is answered with the function's result. If the function
fails, the reply also has HTTP status 200, and its header X-Is-Func-Err is ``true``.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Awaitable
from functools import lru_cache
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.asgi.error_replies import problem
from engine.asgi.wire import JSON, HeaderPairs, Headers, Receive, Reply, Scope, check_json, json_reply, read_body
from engine.errors import InvalidField
from engine.functions.catalog import Catalog
from engine.http.api import batches
from engine.http.api.routing import FUNCTION, INVOKE, ApiFamily, BodyCall, check_role, operation, own_urn
from engine.logs.lines import framed_log
from engine.model import Function, Mode, Outcome, Request
from engine.model.limits import IDEMPOTENCY_KEY, LONGEST_DELAY, MEMORY_SIZES, ORDERING_KEY
from engine.model.urn import FunctionUrn
from engine.pipeline.intake import Intake

#: Headers of an asynchronous request that are options of its invocation.
OPTIONS = (
    b"x-functiond-priority",
    b"x-functiond-delay",
    b"x-functiond-ordering-key",
    b"x-cff-instance-memory",
    b"idempotency-key",
)
_MEMORY = "X-Cff-Instance-Memory"
ANY_JSON = cast("type[Any]", Any)
MAX_TARGET = 1200  #: bytes of a path; no URN needs more, even with every byte percent-encoded
TEXT = b"text/plain; charset=utf-8"
LARGE = b"100000"  #: Content-Length of an event that may arrive in several packets
NO_EVENT = b"{}"  #: event of a request without a body
TAIL = 4 << 10  #: bytes at the end of a log that a header holds


class CallResult(Struct, frozen=True, kw_only=True):
    """Body of the reply to a synchronous request that has the header ``X-CFF-Request-Version: v1``."""

    request_id: str
    result: str
    log: str
    status: int


class Invocations(ApiFamily):
    """Operations that invoke functions in ``region``. The limits are those of events, in bytes."""

    def __init__(self, intake: Intake, catalog: Catalog, region: str, *, async_limit: int, sync_limit: int) -> None:
        self._intake, self.catalog, self._region = intake, catalog, region
        self._async_limit, self._sync_limit = async_limit, sync_limit
        self._target = lru_cache(4096)(self._read_target)

    def find(self, scope: Scope, headers: Headers, receive: Receive) -> Awaitable[Reply] | None:
        """Return the reply to a POST request that invokes a function; None for any other request.

        Raises InvalidField and AccessDenied if the request names no function that the caller may invoke.
        """
        if scope["method"] != "POST":
            return None
        path: bytes = scope["raw_path"]
        head, _, action = path.rpartition(b"/")
        if action == b"invocations-async":
            if (target := self._target(head)) is None:
                return None
            check_role(scope, _ASYNC)
            return self._accept(target, headers, receive)
        if action == b"invocations":
            if (target := self._target(head)) is None:
                return None
            check_role(scope, _SYNC)
            return self._call(target, headers, receive)
        if action == b"batch" and head.endswith(b"/invocations-async"):
            if (target := self._target(head.removesuffix(b"/invocations-async"))) is None:
                return None
            check_role(scope, _BATCH)
            return self._accept_batch(target, headers, receive)
        return None

    # The router calls these for requests that ``find`` leaves out, such as those with another form of the path.

    @operation(
        "AsyncInvokeFunction",
        "POST",
        f"{FUNCTION}/invocations-async",
        ANY_JSON,
        Any,
        status=202,
        headers=(_MEMORY, "X-Functiond-Priority", "X-Functiond-Delay", "X-Functiond-Ordering-Key", "Idempotency-Key"),
        roles=INVOKE,
        traced=False,
    )
    async def accept(self, call: BodyCall[Any]) -> Reply:
        return await self._accept(call.urn, call.headers, call.receive)

    @operation(
        "BatchAsyncInvokeFunction",
        "POST",
        f"{FUNCTION}/invocations-async/batch",
        batches.BatchBody,
        batches.BatchReply,
        limit=batches.BATCH_LIMIT,
        status=202,
        headers=(_MEMORY,),
        own=True,
        roles=INVOKE,
        traced=False,
    )
    async def accept_batch(self, call: BodyCall[batches.BatchBody]) -> Reply:
        return await self._accept_batch(call.urn, call.headers, call.receive)

    @operation(
        "InvokeFunction",
        "POST",
        f"{FUNCTION}/invocations",
        ANY_JSON,
        Any,
        headers=("X-Cff-Log-Type", "X-CFF-Request-Version", _MEMORY),
        roles=INVOKE,
        traced=False,
    )
    async def call(self, call: BodyCall[Any]) -> Reply:
        return await self._call(call.urn, call.headers, call.receive)

    async def _accept(self, urn: FunctionUrn, headers: Headers, receive: Receive) -> Reply:
        """Accept an asynchronous invocation.

        The reply has its request id and is sent after the invocation is on disk.
        """
        self._check_known(urn, headers)
        body = await read_body(receive, headers, self._async_limit)
        if body:
            check_json(headers, body)
        request = Request(function=urn, payload=body or NO_EVENT, headers=headers)
        if not headers.keys().isdisjoint(OPTIONS):
            request = replace(
                request,
                priority=_priority(headers.get(b"x-functiond-priority")),
                delay=_delay(headers.get(b"x-functiond-delay")),
                memory=self._memory(urn, headers.get(b"x-cff-instance-memory")),
                idempotency_key=read_idempotency_key(headers.get(b"idempotency-key")),
                ordering_key=_key("X-Functiond-Ordering-Key", headers.get(b"x-functiond-ordering-key"), ORDERING_KEY),
            )
        request_id = (await self._intake.accept(request)).encode()
        return Reply(status=202, body=b'{"request_id":"%b"}' % request_id, headers=((b"X-Cff-Request-Id", request_id),))

    async def _accept_batch(self, urn: FunctionUrn, headers: Headers, receive: Receive) -> Reply:
        """Accept asynchronous invocations of one function.

        The reply has a request id or an error for each, and is sent after the accepted ones are on disk.
        """
        self.catalog.find(urn)
        batches.check_options(headers)
        memory = self._memory(urn, headers.get(b"x-cff-instance-memory"))
        events = await batches.read_batch(headers, await read_body(receive, headers, _BATCH.limit))
        return await batches.accept_events(self._intake, events, urn, headers, memory=memory, limit=self._async_limit)

    async def _call(self, urn: FunctionUrn, headers: Headers, receive: Receive) -> Reply:
        """Run a function synchronously. Reply with its result."""
        version = headers.get(b"x-cff-request-version", b"") or b"v0"
        if version not in (b"v0", b"v1"):
            raise InvalidField("X-CFF-Request-Version", version.decode("latin-1"), "must be v0 or v1")
        if b"x-functiond-ordering-key" in headers:
            key = headers[b"x-functiond-ordering-key"].decode("latin-1")
            raise InvalidField("X-Functiond-Ordering-Key", key, "needs an asynchronous invocation")
        self._check_known(urn, headers)
        body = await read_body(receive, headers, self._sync_limit)
        if body:
            check_json(headers, body)
        memory = self._memory(urn, headers.get(b"x-cff-instance-memory"))
        request = Request(function=urn, payload=body or NO_EVENT, mode=Mode.SYNC, memory=memory, headers=headers)
        request_id, function, outcome = await self._intake.call(request)
        tail = headers.get(b"x-cff-log-type", b"").lower() == b"tail"
        return _call_reply(request_id, function, outcome, version, memory or function.memory_size, tail)

    def _read_target(self, head: bytes) -> FunctionUrn | None:
        """Return the URN of the function in ``/v2/<project>/fgs/functions/<urn>``; None for any other path.

        Raises InvalidField if the path is not UTF-8 or the URN is invalid; AccessDenied if the URN is of another
        project.
        """
        parts = head.split(b"/") if len(head) <= MAX_TARGET else []
        if len(parts) != 6 or (parts[0], parts[1], parts[3], parts[4]) != (b"", b"v2", b"fgs", b"functions"):
            return None
        try:
            project, urn = (unquote_to_bytes(part).decode() for part in (parts[2], parts[5]))
        except UnicodeDecodeError:
            raise InvalidField("function_urn", head.decode("latin-1"), "must be UTF-8") from None
        return own_urn(urn, project, self._region)

    def _check_known(self, urn: FunctionUrn, headers: Headers) -> None:
        """Refuse an unknown function before its event is in memory. Small events arrive with their heads."""
        if len(headers.get(b"content-length", LARGE)) >= len(LARGE):
            self.catalog.find(urn)

    def _memory(self, urn: FunctionUrn, value: bytes | None) -> int:
        if not value:
            return 0
        text = value.decode("latin-1")
        if text not in map(str, MEMORY_SIZES):
            raise InvalidField("X-Cff-Instance-Memory", text, f"must be one of {', '.join(map(str, MEMORY_SIZES))}")
        if not self.catalog.find(urn).dynamic_memory:
            raise InvalidField(
                "X-Cff-Instance-Memory", text, "needs enable_dynamic_memory in the function's configuration"
            )
        return int(text)


#: Operations that ``find`` checks the caller's role for.
_ASYNC, _BATCH, _SYNC = (declared for declared, _ in Invocations.operations())


def _call_reply(
    request_id: str, function: Function, outcome: Outcome, version: bytes, memory: int, tail: bool
) -> Reply:
    log = _framed(request_id, function, outcome, memory) if tail else b""
    headers = _call_headers(request_id, function, outcome, version, memory)
    if tail:
        headers = (*headers, (b"X-Cff-Function-Log", base64.b64encode(log[-TAIL:])))
    if outcome.engine_fault:
        # A fault of the engine is not a result. The status is 500, so the caller may retry.
        return problem(500, outcome.message, headers)
    if version == b"v0":
        return Reply(body=outcome.result, headers=headers, content_type=JSON if _is_json(outcome.result) else TEXT)
    result = CallResult(
        request_id=request_id,
        result=outcome.result.decode("utf-8", "replace"),
        log=log.decode("utf-8", "replace"),
        status=200 if outcome.ok else 500,
    )
    return Reply(body=json_reply(result).body, headers=headers)


def _call_headers(request_id: str, function: Function, outcome: Outcome, version: bytes, memory: int) -> HeaderPairs:
    milliseconds = _seconds(outcome) * 1000
    billed = math.ceil(milliseconds)
    summary = {
        "funcDigest": function.code.digest[:32],
        "duration": f"{milliseconds:.3f}ms",
        "billingDuration": f"{billed}ms",
        "memorySize": f"{memory}MB",
        "memoryUsed": f"{outcome.memory_used / (1 << 20):.3f}MB",
    }
    return (
        (b"X-Cff-Request-Id", request_id.encode()),
        (b"X-Cff-Invoke-Summary", msgspec.json.encode(summary)),
        (b"X-Cff-Billing-Duration", b"%d" % billed),
        (b"X-Cff-Response-Version", version),
        (b"X-Func-Err-Code", b"%d" % outcome.code),
        (b"X-Is-Func-Err", b"false" if outcome.ok or outcome.engine_fault else b"true"),
    )


def _framed(request_id: str, function: Function, outcome: Outcome, memory: int) -> bytes:
    return framed_log(
        outcome.log,
        request_id=request_id,
        version=function.version,
        seconds=_seconds(outcome),
        memory_used=outcome.memory_used,
        memory_size=memory,
    )


def _is_json(result: bytes) -> bool:
    """Return whether the result of a function is JSON.

    The result is plain text, not JSON, if the handler returned a string: strings are stored without quotes.
    """
    try:
        msgspec.json.decode(result, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _seconds(outcome: Outcome) -> float:
    return max(0.0, outcome.ended_at - outcome.started_at)


def _priority(value: bytes | None) -> int:
    if value is None:
        return 0
    if len(value) != 1 or not value.isdigit():
        raise InvalidField("X-Functiond-Priority", value.decode("latin-1"), "must be a digit, 0 to 9")
    return int(value)


def _delay(value: bytes | None) -> float:
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= LONGEST_DELAY:
        raise InvalidField("X-Functiond-Delay", value.decode("latin-1"), f"must be seconds, 0 to {LONGEST_DELAY:.0f}")
    return seconds


def read_idempotency_key(value: bytes | None) -> str:
    """Return the value of the header Idempotency-Key; empty if it is absent. Raise InvalidField if it is invalid."""
    return _key("Idempotency-Key", value, IDEMPOTENCY_KEY)


def _key(header: str, value: bytes | None, longest: int) -> str:
    if value is None:
        return ""
    text = value.decode("latin-1")
    if not (1 <= len(text) <= longest and text.isascii() and text.isprintable()):
        raise InvalidField(header, text, f"must be 1 to {longest} printable ASCII characters")
    return text
