"""Actions in the frame of a function's pages: pause and resume."""

from __future__ import annotations

from collections.abc import Mapping

from engine.asgi.wire import Reply
from engine.http.api.routing import Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import Form
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.notes import see_other
from engine.http.console.pages import Action
from engine.http.console.paths import FUNCTION


class FunctionActions:
    def __init__(self, frame: FunctionFrame, api: ApiRequests) -> None:
        self._frame, self._api = frame, api

    def pages(self) -> Mapping[str, Handler]:
        return {}

    def actions(self) -> Mapping[str, Action]:
        return {f"{FUNCTION}/pause": self.pause, f"{FUNCTION}/resume": self.resume}

    async def pause(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        body = {"reason": form.text("reason")}
        await self._api.send(call, "POST", self._frame.api_path(function, "/pause"), body)
        return see_other(self._frame.page_path(function), "Paused. Requests are accepted and wait.")

    async def resume(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        await self._api.send(call, "POST", self._frame.api_path(function, "/resume"))
        return see_other(self._frame.page_path(function), "Resumed.")
