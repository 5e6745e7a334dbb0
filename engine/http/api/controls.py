"""Controls of a function: pause, start rate, recycling of its instances, soft timeout (extension of the API)."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from engine.functions.controls import FunctionControls
from engine.http.api.decoding import given_fields
from engine.http.api.routing import FUNCTION, ApiFamily, BodyCall, Call, operation, read
from engine.model.controls import Burst, Controls, Rate, Reason, RecycleMemory, RecycleRequests, SoftTimeout

_CONTROLS = f"{FUNCTION}/controls"


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


class ControlsApi(ApiFamily):
    def __init__(self, controls: FunctionControls) -> None:
        self._controls = controls

    @read("ShowFunctionControls", _CONTROLS, Controls, own=True)
    async def show(self, call: Call) -> Controls:
        return self._controls.show(call.urn)

    @operation("UpdateFunctionControls", "PATCH", _CONTROLS, ControlsBody, Controls, own=True)
    async def change(self, call: BodyCall[ControlsBody]) -> Controls:
        self._controls.show(call.urn)
        body = await call.read()
        changes = given_fields(body, Controls.__struct_fields__)
        return await self._controls.change(call.urn, changes)

    @operation("PauseFunction", "POST", f"{FUNCTION}/pause", PauseBody, Controls, optional=True, own=True)
    async def pause(self, call: BodyCall[PauseBody]) -> Controls:
        """Pause the function. A reason that the body leaves out removes an earlier one."""
        self._controls.show(call.urn)
        body = await call.read()
        return await self._controls.change(call.urn, {"paused": True, "pause_reason": body.reason})

    @operation("ResumeFunction", "POST", f"{FUNCTION}/resume", reply=Controls, own=True)
    async def resume(self, call: Call) -> Controls:
        return await self._controls.change(call.urn, {"paused": False})
