"""HTTP status of each error class, and error replies in the API's JSON form.

The API, the push sources and the gateways of plugins take statuses from this table. ``http/api/errors.py`` adds the
more precise codes of the API.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress

import msgspec

from engine import errors as e
from engine.asgi.wire import HeaderPairs, Reply

#: A class that is not listed has the status of its base class.
STATUSES: Mapping[type[e.FunctiondError], int] = {
    e.FunctiondError: 500,
    e.InvalidRequest: 400,
    e.Unauthorized: 401,
    e.Forbidden: 403,
    e.NotFound: 404,
    e.NotJson: 406,
    e.Conflict: 409,
    e.CodeChanged: 412,
    e.DependencyInUse: 412,
    e.PayloadTooLarge: 413,
    e.Unsupported: 426,
    e.FunctionDisabled: 429,
    e.Overloaded: 429,
    e.Unavailable: 503,
    e.CallTimedOut: 504,
}


def status_of(kind: type[e.FunctiondError]) -> int:
    """Return the HTTP status of errors of a class."""
    return next(STATUSES[base] for base in kind.__mro__ if base in STATUSES)


def retry_after(error: e.FunctiondError) -> HeaderPairs:
    """Return the header Retry-After for an error after which the client may retry; nothing for any other error."""
    if isinstance(error, e.Overloaded | e.Unavailable | e.FunctionDisabled):
        return ((b"Retry-After", b"%d" % error.retry_after),)
    return ()


def delay_of(error: BaseException) -> float:
    """Return the seconds by which the reply to an error must be delayed.

    The caller must not keep the error while it waits: the error's traceback keeps the request's body.
    """
    return error.delay if isinstance(error, e.Unauthorized) else 0.0


async def hold_back(seconds: float) -> None:
    """Wait before a reply that ``delay_of`` delays.

    A listener that stops ends the wait, and the reply is still sent.
    """
    if seconds:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(seconds)


def general_code(status: int) -> str:
    """Return the FSS code of errors that have no code of their own."""
    return f"FSS.{status:04}"


def problem(status: int, message: str, headers: HeaderPairs = (), *, code: str = "", repeat_id: bool = False) -> Reply:
    """Return an error reply in the API's JSON form, with a new request id in its headers.

    Without ``code``, the reply has the general code of ``status``. With ``repeat_id``, the request id is also in the
    body.
    """
    request_id = new_request_id()
    shown = {"error_code": code or general_code(status), "error_msg": message}
    if repeat_id:
        shown["request_id"] = request_id.decode()
    return Reply(status=status, body=msgspec.json.encode(shown), headers=((b"X-Request-Id", request_id), *headers))


def not_allowed(methods: Collection[str], lacks: str = "") -> Reply:
    """Return the reply to a request whose path has other methods: ``methods``. GET stands for HEAD as well.

    If they belong to a feature that the engine ``lacks``, the reply says so.
    """
    if lacks:  # not 405: Terraform prints no body of it
        return problem(status_of(e.Unsupported), str(e.Unsupported(lacks)))
    allowed = ", ".join([*methods, "HEAD"] if "GET" in methods and "HEAD" not in methods else methods)
    return problem(405, f"method not allowed; use {allowed}", ((b"Allow", allowed.encode()),))


def new_request_id() -> bytes:
    """Return an id for the header X-Request-Id of an error reply. The vendor's SDKs put it into their exceptions."""
    return str(uuid.uuid4()).encode()
