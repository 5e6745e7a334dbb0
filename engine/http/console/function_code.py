"""Page of a function's code, the first of its tabs."""

from __future__ import annotations

from collections.abc import Mapping

from engine.asgi.wire import Reply
from engine.http.api.routing import Call, Handler
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.pages import Action
from engine.http.console.paths import FUNCTION


class CodePage:
    def __init__(self, frame: FunctionFrame) -> None:
        self._frame = frame

    def pages(self) -> Mapping[str, Handler]:
        return {FUNCTION: self.show}

    def actions(self) -> Mapping[str, Action]:
        return {}

    async def show(self, call: Call) -> Reply:
        return await self._frame.show(call, "functions/code.html", tab="")
