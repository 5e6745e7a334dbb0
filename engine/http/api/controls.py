"""Controls of a function: pause, start rate, recycling of its instances, soft timeout (extension of the API)."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from engine.asgi.wire import Reply, json_reply
from engine.functions.controls import FunctionControls
from engine.http.api.routing import BASE, Call, Resource
from engine.model.controls import Burst, Controls, Rate, Reason, RecycleMemory, RecycleRequests, SoftTimeout


class ControlsBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Controls to change. Those that the body leaves out stay as they are."""

    paused: bool | UnsetType = UNSET
    pause_reason: Reason | UnsetType = UNSET
    rate: Rate | UnsetType = UNSET
    burst: Burst | UnsetType = UNSET
    recycle_requests: RecycleRequests | UnsetType = UNSET
    recycle_memory: RecycleMemory | UnsetType = UNSET
    soft_timeout: SoftTimeout | UnsetType = UNSET


class PauseBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Reason = ""


class ControlsApi:
    def __init__(self, controls: FunctionControls) -> None:
        self._controls = controls

    def resources(self) -> list[Resource]:
        function = f"{BASE}/functions/{{function_urn}}"
        return [
            Resource(path=f"{function}/controls", methods={"GET": self.show, "PATCH": self.change}),
            Resource(path=f"{function}/pause", methods={"POST": self.pause}),
            Resource(path=f"{function}/resume", methods={"POST": self.resume}),
        ]

    async def show(self, call: Call) -> Reply:
        return json_reply(self._controls.show(call.urn))

    async def change(self, call: Call) -> Reply:
        self._controls.show(call.urn)
        body = await call.read(ControlsBody)
        given: dict[str, Any] = {name: getattr(body, name) for name in Controls.__struct_fields__}
        changes = {name: value for name, value in given.items() if value is not UNSET}
        return json_reply(await self._controls.change(call.urn, changes))

    async def pause(self, call: Call) -> Reply:
        """Pause the function. A reason that the body leaves out removes an earlier one."""
        self._controls.show(call.urn)
        body = await call.read(PauseBody, empty=PauseBody())
        return json_reply(await self._controls.change(call.urn, {"paused": True, "pause_reason": body.reason}))

    async def resume(self, call: Call) -> Reply:
        return json_reply(await self._controls.change(call.urn, {"paused": False}))
