"""Web applications in instances: an ASGI or WSGI application that answers the requests of gateways.

uvicorn, from the package of the function, serves the application on the event loop of the instance. A request has a
connection of its own, in memory: there is no port. WSGI applications run in threads of a2wsgi. Python 3.9 syntax.
"""

import os
import sys
from contextvars import copy_context
from urllib.parse import unquote

from functiond_api import INSTANCE  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from contextvars import Context
    from typing import Any

PREFIX, REQUEST_ID = b"x-forwarded-prefix", b"x-cff-request-id"
LONGEST_TASK = 5.0  # seconds of the time for the end of an instance
WORKERS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Application:
    """Handler that runs the application ``target``, such as ``main:app``. Nothing is imported before ``startup``."""

    def __init__(self, target: str, kind: str) -> None:
        self.target, self.kind = target, kind
        self.contexts: dict[str, Context] = {}  # of requests, by their ids

    async def startup(self, context: object) -> None:
        """Import the application, and start its lifespan. Raises RuntimeError if it refuses to start."""
        from importlib import import_module

        sys.path.insert(0, WORKERS)
        try:
            self.events, self.http = import_module("bridge_apig"), import_module("bridge_http")
            self.frames = import_module("worker_frames")
        finally:
            del sys.path[0]
        for name in ("bridge_apig", "bridge_http", "worker_frames"):  # the application may have such modules
            sys.modules.pop(name)
        self.current = import_module("functiond")._context  # for ``get_context``
        module, _, name = self.target.partition(":")
        self.app = getattr(import_module(module), name)
        from uvicorn import Config, Server

        if self.kind == "wsgi":
            from a2wsgi import WSGIMiddleware

            self.app = WSGIMiddleware(self.app, workers=INSTANCE.setup.get("concurrency", 1))
        options: dict[str, Any] = {"log_config": None, "access_log": False, "interface": "asgi3"}
        self.config = Config(self.serve, forwarded_allow_ips="*", **options)
        self.config.load()
        self.state = Server(self.config).server_state
        self.lifespan = self.config.lifespan_class(self.config)
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise RuntimeError(f"the application {self.target} has failed to start: see its log")

    async def serve(self, scope: "Any", receive: "Any", send: "Any") -> None:
        """Call the application, with the beginning of the path that the gateway has added as ``root_path``."""
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            root = unquote(headers.get(PREFIX, b"").decode("latin-1"))
            scope["root_path"] = "" if root[1:2] in ("/", "\\", "\t", "\n", "\r") else root  # links would name a host
            for variable, value in self.contexts.get(headers[REQUEST_ID].decode(), {}).items():
                variable.set(value)  # some versions of uvicorn begin a new context
        await self.app(scope, receive, send)

    async def shutdown(self) -> None:
        """Wait for background tasks, then end the lifespan."""
        from asyncio import wait

        if self.state.tasks:
            await wait(self.state.tasks, timeout=LONGEST_TASK)
        await self.lifespan.shutdown()

    async def __call__(self, event: object, context: "Any") -> str:
        """Return the reply to the request of an event. The response is complete; background tasks may go on."""
        self.current.set(context)
        deadline = int(context.deadline.timestamp() * 1000)
        run = self.frames.run_headers(context._request_id, context.traceparent, context._facts, deadline)
        run.append(("Connection", "close"))
        method, request = self.events.read_event(event, context._request_id, run, INSTANCE.setup)
        reader = self.http.Reader(sys.maxsize, response=True)
        reader.bodiless = method == "HEAD"
        connection = Connection()
        kind: Any = self.config.http_protocol_class
        protocol = kind(config=self.config, server_state=self.state, app_state=self.lifespan.state)
        protocol.connection_made(connection)
        self.contexts[context._request_id] = copy_context()
        try:
            protocol.data_received(request)
            await connection.closed
        finally:
            del self.contexts[context._request_id]
            protocol.connection_lost(None)  # the application learns of a cancelled request by this
            if connection.closed.cancelled() and len(self.state.tasks) > INSTANCE.setup.get("concurrency", 1):
                os._exit(1)  # requests that were cancelled before still run, and may hold all threads
        if connection.size > connection.limit:
            return " " * connection.size  # refused like other results that are too large
        message = reader.feed(b"".join(connection.sent)) or reader.end()
        if message is None:
            raise RuntimeError("the application has ended before its response was complete: see its log")
        return str(self.events.write_reply(message), "utf-8")


class Connection:
    """Transport of one request, as protocols of asyncio use it. It keeps what is written, up to a limit."""

    def __init__(self) -> None:
        from asyncio import get_running_loop

        self.sent: list[bytes] = []
        self.size, self.limit = 0, 2 * INSTANCE.setup["result_limit"]  # with the heads of small chunks
        self.closed: asyncio.Future[None] = get_running_loop().create_future()

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.limit:
            self.close()
        else:
            self.sent.append(bytes(data))

    def close(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def is_closing(self) -> bool:
        return self.closed.done()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"peername": ("127.0.0.1", 0), "sockname": ("127.0.0.1", 8000)}.get(name, default)

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...
