"""Actions in the frame of a function's pages: pause and resume."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from engine.asgi.wire import Reply
from engine.errors import FunctiondError
from engine.http.api.routing import Call
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import Form, errors_of
from engine.http.console.function_frame import FunctionFrame, PauseForm
from engine.http.console.notes import see_other
from engine.http.console.pages import Action, PageFamily
from engine.http.console.paths import FUNCTION


class FunctionActions(PageFamily):
    """``page`` shows the function's first page with the form of a refused pause."""

    def __init__(
        self, frame: FunctionFrame, api: ApiRequests, page: Callable[[Call, PauseForm], Awaitable[Reply]]
    ) -> None:
        self._frame, self._api, self._page = frame, api, page

    def actions(self) -> Mapping[str, Action]:
        return {f"{FUNCTION}/pause": self.pause, f"{FUNCTION}/resume": self.resume}

    async def pause(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        reason = form.text("reason")
        try:
            await self._api.send(call, "POST", self._frame.api_path(function, "/pause"), {"reason": reason})
        except FunctiondError as error:
            return await self._page(call, PauseForm(reason=reason, error="; ".join(errors_of(error).values())))
        return see_other(self._frame.page_path(function), "Paused. Requests are accepted and wait.")

    async def resume(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        await self._api.send(call, "POST", self._frame.api_path(function, "/resume"))
        return see_other(self._frame.page_path(function), "Resumed.")
