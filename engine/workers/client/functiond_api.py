"""Requests of instances to the API of their engine, and errors. Standard library only, Python 3.9 syntax.

They go by the socket that a sandbox has, or by the URL of the API. Nothing is connected before the first use.
"""

import json
import os
import sys
import threading
import time
from urllib.parse import quote, urlsplit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TRIES = 4  # while the engine does not reply
MARGIN = 1.0  # seconds of a run that are left when it gets Overloaded
# Function that the worker of this process serves; None in other programs.
INSTANCE: "Any" = getattr(getattr(sys.modules.get("__main__"), "Instance", None), "served", None)
if INSTANCE is not None:
    INSTANCE.inherit_requests(threading.Thread)


class ClientError(Exception):
    """Refusal by the engine, or a broken connection."""


class InvocationFailed(ClientError):
    """Failure of the function that was called."""


class ResultTimeout(ClientError, TimeoutError):
    """Result that there is not yet."""


class Unreachable(ClientError):
    """Request without a reply."""


class ApiError(ClientError):
    """Error reply of the engine."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(f"{code} {message}")


class Overloaded(ApiError):
    """Refusal for want of room, for as long as the run had time."""


class BatchError(ClientError):
    """Refused calls of a batch: ``errors`` by position. ``handles`` has None in their places."""

    def __init__(self, handles: "list[Any]", errors: "dict[int, ApiError]") -> None:
        self.handles, self.errors, first = handles, errors, min(errors)
        super().__init__(f"{len(errors)} of {len(handles)} calls were refused; call {first}: {errors[first]}")


def error_of(reply: "Any", status: int = 400) -> ApiError:
    reply = reply if isinstance(reply, dict) else {"error_msg": str(reply)}
    code = str(reply.get("error_code") or status)
    status = int(code[5:]) if code.startswith("FSS.0") and code[5:].isdigit() else status
    return (Overloaded if status in (429, 503) else ApiError)(status, code, reply.get("error_msg", ""))


def decoded(text: "str | bytes") -> "Any":
    try:
        return json.loads(text or "null")
    except ValueError:
        return text if isinstance(text, str) else text.decode(errors="replace")


class Api:
    """Connections of this process to the API, each with one request at a time."""

    def __init__(self, url: str, token: str, project: str, socket: str = "") -> None:
        self.url, self.socket, self.parts, self.pid = url, socket, urlsplit(url), os.getpid()
        self.base = f"{self.parts.path.rstrip('/')}/v2/{quote(project, '')}/fgs/"
        self.headers = {"Content-Type": "application/json", **({"X-Auth-Token": token} if token else {})}
        self.idle: list[Any] = []

    def send(
        self, method: str, path: str, body: "bytes | None", headers: "dict[str, str] | None" = None, timeout: float = 0
    ) -> "tuple[int, Any, bytes]":
        """Return status, headers and body of the reply. With a ``timeout``, the request is sent once."""
        if self.pid != os.getpid():  # a fork shares no connections
            self.idle, self.pid = [], os.getpid()
        while True:
            try:
                connection = None if timeout else self.idle.pop()
            except IndexError:
                connection = None
            used = connection is not None
            try:
                connection = connection or self.connect(timeout or 60.0)
                connection.request(method, self.base + path, body, {**self.headers, **(headers or {})})
                reply = connection.getresponse()
                data = reply.read()
            except Exception as error:
                if used:  # the engine had closed it
                    continue
                problem = str(error) or type(error).__name__
                raise Unreachable(f"no reply from the engine {self.url}: {problem}") from None
            if not reply.will_close:
                self.idle.append(connection)
            return reply.status, reply.headers, data

    def connect(self, timeout: float) -> "Any":
        from http.client import HTTPConnection, HTTPSConnection

        if not self.parts.netloc:
            raise OSError("the variable FUNCTIOND_URL is missing")
        secure = self.parts.scheme == "https"
        connection = (HTTPSConnection if secure else HTTPConnection)(self.parts.netloc, timeout=timeout)
        if self.socket:
            from socket import AF_UNIX, socket

            connection.sock = socket(AF_UNIX)
            connection.sock.settimeout(timeout)
            connection.sock.connect(self.socket)
        return connection


def api(opened: "list[Api]" = []) -> Api:  # noqa: B006  (one for this process)
    """Return the API of the engine of this instance. Raises RuntimeError if its functions have no access."""
    if not opened:
        if not (access := INSTANCE.setup.get("access")):
            raise RuntimeError('functions cannot use the engine: the setting executor.function_role is "none"')
        opened.append(Api(access["url"], access["token"], access["project"], access["socket"]))
    return opened[0]


def running(context: "Any" = None) -> "Any":
    """Return the context of the request for which the calling code runs. Raises RuntimeError if there is none."""
    if INSTANCE is None:
        raise RuntimeError("only the process of an instance can queue calls: queue them in the handler")
    return INSTANCE.running(context)


def exchange(context: "Any", method: str, path: str, content: "dict[str, Any] | bytes | None" = None) -> "Any":
    """Return the content of a reply. If the engine has no room, try again while the run has time."""
    body, unreachable = json.dumps(content).encode() if isinstance(content, dict) else content, 0
    while True:
        try:
            status, headers, data = api().send(method, path, body)
        except Unreachable:  # such as one of too many connections
            unreachable += 1
            if unreachable == TRIES:
                raise
            time.sleep(unreachable**2 / 10)
            continue
        reply, pause = decoded(data), float(headers.get("Retry-After") or 1)
        if isinstance(reply, dict) and "results" in reply:
            return {**reply, "pause": pause}
        if status < 400:
            return reply
        error = error_of(reply, status)
        if not isinstance(error, Overloaded):
            raise error
        wait(context, pause, error)


def wait(context: "Any", seconds: float, error: Overloaded) -> None:
    """Wait before a request that was refused for want of room is sent again. Raises the error without time for that."""
    from random import uniform

    seconds *= uniform(1, 1.5)
    if seconds + MARGIN > context.getRemainingTimeInMilliSeconds() / 1000:
        raise error
    time.sleep(seconds)


async def later(call: "Callable[..., Any]", /, *args: object, **kwargs: object) -> "Any":
    """Call in a thread, which belongs to the same request."""
    import asyncio

    return await asyncio.to_thread(call, *args, **kwargs)
