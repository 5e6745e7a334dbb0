"""State of the engine's clock: whether it is trusted, and its acceptance by an administrator."""

from __future__ import annotations

from msgspec import Struct

from engine.asgi.wire import Reply, json_reply
from engine.http.api.routing import BASE, Call, Resource
from engine.maintenance.clock_guard import ClockGuard, ClockState
from engine.model.clock import rfc3339


class ClockReply(Struct, frozen=True, kw_only=True):
    """State of the clock. While it is not trusted, nothing expires, and the last three fields say more."""

    time: str
    trusted: bool
    reference: str = ""  #: last trusted time
    ahead: int = 0  #: seconds by which the clock is ahead of it
    ends_in: int = 0  #: seconds until the clock is trusted without an acceptance


class ClockApi:
    def __init__(self, guard: ClockGuard) -> None:
        self._guard = guard

    def resources(self) -> list[Resource]:
        return [
            Resource(path=f"{BASE}/clock", methods={"GET": self.show}),
            Resource(path=f"{BASE}/clock/accept", methods={"POST": self.accept}),
        ]

    async def show(self, call: Call) -> Reply:
        return json_reply(_reply(self._guard.state()))

    async def accept(self, call: Call) -> Reply:
        return json_reply(_reply(await self._guard.accept()))


def _reply(state: ClockState) -> ClockReply:
    if not state.held:
        return ClockReply(time=rfc3339(state.now), trusted=True)
    return ClockReply(
        time=rfc3339(state.now),
        trusted=False,
        reference=rfc3339(state.reference),
        ahead=int(state.ahead),
        ends_in=int(state.ends_in),
    )
