"""API gateway: finds the API of a request, calls the API's function, and replies with the function's result.

find API → answer preflight → check access → read body → make event → accept it (async: 202), or call and reply (sync)

The gateway answers preflight requests for APIs whose option ``cors`` is set, without the function. An API for the
method OPTIONS gets preflight requests like any others.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial

import msgspec
import structlog
from msgspec.structs import replace

from engine import (
    CONSOLE_COOKIES,
    ClientDisconnect,
    Code,
    ContentKey,
    Event,
    FunctiondError,
    HeaderPairs,
    Headers,
    IdempotencyConflict,
    Mode,
    Outcome,
    ReadBody,
    Receive,
    Reply,
    Scope,
    Send,
    hold_back,
    read_body,
    respond,
)
from plugins.apig.access import Access
from plugins.apig.events import (
    GatewayRequest,
    Sender,
    event_json,
    forwarded_headers,
    is_repeated,
    read_reply,
    sender_of,
    write_head,
)
from plugins.apig.options import ApigSettings
from plugins.apig.problems import Problem, bad_reply, refused
from plugins.apig.routing import ANY, RELEASE, Found, Route, RouteTable, host_of

log = structlog.get_logger("functiond.apig")

KEY = b"idempotency-key"
ORIGIN, METHOD, HEADERS = b"origin", b"access-control-request-method", b"access-control-request-headers"
ALLOW = b"Access-Control-Allow-Origin"
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_NO_API = (
    "The API does not exist or has not been published in the environment: check method, path and Host, and "
    "X-Stage, which names the environment"
)
_CONFLICT = "Idempotency-Key {!r} was already used with another method, path, query or body"
MAX_AGE = b"3600"  #: seconds for which browsers may cache the answer


class Gateway:
    """ASGI application for one listening address."""

    def __init__(self, settings: ApigSettings, access: Access) -> None:
        urls = (server.address(1, tls=False).partition("://")[2] for server in (settings, settings.dedicated))
        self.routes = RouteTable({"", "localhost", *(host_of(url.partition("/")[0]) for url in urls)})
        self._settings, self._access = settings, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, headers = os.urandom(16).hex(), joined_headers(scope)
        route: Route | None = None
        delay = 0.0
        try:
            matched, is_preflight = self._find(scope, headers)
            route = matched.route
            if is_preflight:
                reply = Reply(status=204, headers=_preflight(route, headers))
            else:
                reply = await self._answer(matched, scope, headers, receive, request_id)
        except ClientDisconnect:
            return
        except Problem as problem:
            reply, delay = problem.reply(request_id), problem.delay
        except FunctiondError as error:
            reply = refused(error).reply(request_id)
        except asyncio.CancelledError:
            # Only the listener cancels a request, when it closes, and it waits for this reply.
            ending = "Backend unavailable: the gateway is shutting down"
            reply = Problem(503, "APIG.0201", ending, ((b"Retry-After", b"2"),)).reply(request_id)
        except Exception:
            # A bug must fail its own request only, not others on this listener.
            log.exception("request failed", method=scope["method"], path=scope["path"])
            reply = Problem(500, "APIG.0601", "Internal server error: see the engine's log").reply(request_id)
        await hold_back(delay)  # the body is no longer held
        lines = reply.headers if route is None else _allow_origins(route, reply.headers)
        await respond(scope, send, replace(reply, headers=(*lines, (b"X-Request-Id", request_id.encode()))))

    def _find(self, scope: Scope, headers: Headers) -> tuple[Found, bool]:
        """Return the API of a request, and True if the gateway must answer the request as a preflight for this API.

        Raises Problem if no API matches.
        """
        method, path = scope["method"], scope["raw_path"].decode("latin-1")
        host = host_of(headers.get(b"host", b"").decode("latin-1"))
        stage = headers[b"x-stage"].decode("latin-1") if b"x-stage" in headers else RELEASE
        matched = self.routes.find(host, stage, method, path)
        wanted = _preflight_method(method, headers)
        # An API for the method OPTIONS answers preflight requests itself.
        if wanted and (matched is None or matched.route.options.req_method != method):
            target = self.routes.find(host, stage, wanted, path)
            if target is not None and target.route.options.cors:
                return target, True
        if matched is None:
            raise Problem(404, "APIG.0101", _NO_API)
        return matched, False

    async def _answer(self, matched: Found, scope: Scope, headers: Headers, receive: Receive, request_id: str) -> Reply:
        """Check access, read the body, then accept the event (async) or call the function (sync), and return the reply.

        Raises Problem if the client may not call the API, if the idempotency key is invalid, or if the call fails; the
        engine's errors if access cannot be decided now, if the event is refused, or if the engine's own limit for
        synchronous calls is exceeded.
        """
        context, settings = matched.route.context, self._settings
        longest = settings.body_limit
        if context.mode is Mode.ASYNC:
            longest = min(longest, settings.async_body_limit)
        read = _reader(receive, headers, longest)
        sender = sender_of(scope, matched.prefix(scope["raw_path"].decode("latin-1")), context.mode)
        await self._access.check(matched.route, scope, headers, read)
        if matched.route.options.req_method == "GET":
            scope["method"] = "GET"  # in place of HEAD; the listener leaves out the body
        body = await read()
        if context.mode is Mode.SYNC:
            return await _call(matched.route, self._event(matched, scope, headers, body, sender, request_id))
        key, event = _key(headers), self._event(matched, scope, headers, body, sender, request_id)
        if key:
            # Headers, addresses and the request id differ between repetitions.
            content = b"%b %b?%b\n%b" % (scope["method"].encode(), scope["raw_path"], scope["query_string"], body)
            token = ContentKey(f"apig:{context.trigger_id}:{key}", content, partial(is_repeated, event.payload))
            event = replace(event, idempotency_key=token)
        try:
            accepted = await context.accept(event)
        except IdempotencyConflict:
            raise Problem(409, "APIG.0201", f"API request error: {_CONFLICT.format(key)}") from None
        body = msgspec.json.encode({"request_id": accepted})
        return Reply(status=202, headers=((b"X-Cff-Request-Id", accepted.encode()),), body=body)

    def _event(
        self, matched: Found, scope: Scope, headers: Headers, body: bytes, sender: Sender, request_id: str
    ) -> Event:
        route = matched.route
        request = GatewayRequest(
            request_id=request_id,
            method=scope["method"],
            path=scope["raw_path"].decode("latin-1"),
            query=scope["query_string"].decode("latin-1"),
            headers=dict(forwarded_headers(headers.items(), headers, route, sender)),
            body=body,
            client=sender.address,
        )
        return Event(
            payload=event_json(
                request,
                matched.parameters,
                route.api_id,
                route.options.env_name,
                route.options.path,
                as_base64=self._settings.base64,
            ),
            headers=headers,
            http_members=partial(write_head, scope, headers, route, sender),
        )


def _reader(receive: Receive, headers: Headers, limit: int) -> ReadBody:
    """Return a function that reads the body at its first call, and returns it at each call."""
    body: bytes | None = None

    async def read() -> bytes:
        nonlocal body
        if body is None:
            body = await read_body(receive, headers, limit)
        return body

    return read


async def _call(route: Route, event: Event) -> Reply:
    """Call the function and return its reply.

    Raises Problem if it fails, returns no valid reply, or exceeds the API's timeout; the engine's errors if the engine
    refuses the event, or its own limit for synchronous calls is exceeded.
    """
    seconds = route.options.func_info.timeout / 1000
    try:
        # The engine's limit for synchronous calls applies as well. The invocation itself continues up to its own.
        async with asyncio.timeout(seconds):
            request_id, outcome = await route.context.call(event)
    except TimeoutError:
        message = f"Backend timeout: the function has not ended after {seconds:g} s and runs on"
        raise Problem(504, "APIG.0201", message) from None
    header = (b"X-Cff-Request-Id", request_id.encode())
    try:
        reply = _replied(outcome)
    except Problem as problem:
        problem.headers = (*problem.headers, header)
        raise
    return replace(reply, headers=(*reply.headers, header))


def _replied(outcome: Outcome) -> Reply:
    """Return the reply for an outcome.

    Raises Problem if the outcome is a failure, or its result is not a valid reply.
    """
    if outcome.ok:
        return read_reply(outcome.result)
    if outcome.engine_fault:
        raise Problem(502, "APIG.0201", "Backend unavailable: the engine could not run the function")
    if outcome.code == Code.TIMEOUT:
        raise Problem(504, "APIG.0201", f"Backend timeout: {outcome.message}")
    # Errors of user code are not shown to clients. The function's owner finds them by the request id.
    raise bad_reply(f"the function failed (code {outcome.code})")


def joined_headers(scope: Scope) -> dict[bytes, bytes]:
    """Return a request's headers by name in lower case, repeated ones joined, without cookies of the console."""
    joined: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in joined:
            value = joined[name] + (b"; " if name == b"cookie" else b", ") + value
        joined[name] = value
    if b"functiond_" in joined.get(b"cookie", b"").lower():
        pairs = joined.pop(b"cookie").split(b";")
        if pairs := [pair for pair in pairs if not pair.strip().lower().startswith(CONSOLE_COOKIES)]:
            joined[b"cookie"] = b";".join(pairs).strip()
    return joined


def _key(headers: Headers) -> str:
    """Return the idempotency key of a request, empty if it has none.

    Raises Problem if the request's key is not 1 to 200 printable ASCII characters.
    """
    if KEY not in headers:
        return ""
    text = headers[KEY].decode("latin-1")
    if not (1 <= len(text) <= 200 and text.isascii() and text.isprintable()):
        raise Problem(400, "APIG.0201", "API request error: Idempotency-Key needs 1 to 200 printable ASCII characters")
    return text


def _preflight_method(method: str, headers: Headers) -> str:
    """Return the method of the request that a preflight request announces, or an empty text for other requests."""
    is_preflight = method == "OPTIONS" and ORIGIN in headers
    return headers.get(METHOD, b"").decode("latin-1") if is_preflight else ""


def _preflight(route: Route, headers: Headers) -> HeaderPairs:
    """Return the headers of the reply to a preflight request."""
    method = route.options.req_method
    return (
        (ALLOW, b"*"),
        (b"Access-Control-Allow-Methods", METHODS if method == ANY else method.encode()),
        (b"Access-Control-Allow-Headers", headers.get(HEADERS, b"*")),
        (b"Access-Control-Max-Age", MAX_AGE),
    )


def _allow_origins(route: Route, headers: HeaderPairs) -> HeaderPairs:
    """Return a reply's headers, with any origin permitted if the API's ``cors`` is set.

    A header of the function that permits origins is left unchanged.
    """
    if not route.options.cors or any(name.lower() == ALLOW.lower() for name, _ in headers):
        return headers
    return (*headers, (ALLOW, b"*"))
