"""List of the interpreters that run functions (extension of the API).

Clients choose packages by it that fit the interpreter, as ``functiond deploy`` does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from engine.asgi.wire import Reply, json_reply
from engine.http.api.routing import BASE, Call, Resource
from engine.runtimes.descriptions import InterpreterInfo


class InterpretersApi:
    """Interpreters of the machine. ``find`` returns that of a runtime, or all for an empty text."""

    def __init__(self, find: Callable[[str], Awaitable[list[InterpreterInfo]]]) -> None:
        self._find = find

    def resources(self) -> list[Resource]:
        return [Resource(path=f"{BASE}/interpreters", methods={"GET": self.list_interpreters})]

    async def list_interpreters(self, call: Call) -> Reply:
        """List the interpreter of the query's runtime; without one, all, the newest of each language first."""
        return json_reply(await self._find(call.text("runtime")))
