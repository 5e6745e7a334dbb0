"""Page of a function's concurrency: instances, requests, share of the slots, and the controls of functiond's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.asgi.wire import Reply
from engine.errors import FunctiondError
from engine.functions.controls import FunctionControls
from engine.http.api.routing import Call
from engine.http.console.api_requests import ApiRequests
from engine.http.console.configuration.controls_form import ControlsForm
from engine.http.console.configuration.instances_form import InstancesForm
from engine.http.console.configuration.settings import Setting, digest_of, errors_beside, one_line
from engine.http.console.configuration.settings_page import SettingsPage, Values
from engine.http.console.forms import WHOLE, Form
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.pages import Action
from engine.http.console.paths import FUNCTION
from engine.http.console.visibility import value_shown
from engine.model import Function

REASON = Setting(name="pause_reason", label="Reason for the pause", help="Callers see it. May be empty.")


class ConcurrencyPage(SettingsPage[Values]):
    """Page with a form of the instances, one of the controls, and one that pauses the function."""

    tab, template = "configuration/concurrency", "functions/concurrency.html"

    def __init__(self, frame: FunctionFrame, api: ApiRequests, controls: FunctionControls) -> None:
        self._fields = {"instances": InstancesForm(frame), "controls": ControlsForm(frame, controls)}
        super().__init__(frame, api, self._fields.values())
        self._controls = controls

    def actions(self) -> Mapping[str, Action]:
        path = f"{FUNCTION}/{self.tab}"
        return {**super().actions(), f"{path}/pause": self.pause, f"{path}/resume": self.resume}

    async def pause(self, call: Call, form: Form) -> Reply:
        """Pause the function, or change the reason of its pause."""
        function, reason = self._frame.function_of(call), form.text("pause_reason")
        try:
            await self._api.send(call, "POST", self._frame.api_path(function, "/pause"), {"reason": reason})
        except FunctiondError as error:
            found = errors_beside(error, ("reason",))
            errors = {REASON.name if name else WHOLE: text for name, text in found.items()}
            return await self._show(call, function, {REASON.name: reason}, errors)
        return self._done(function, "Paused. Requests are accepted and wait.")

    async def resume(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        await self._api.send(call, "POST", self._frame.api_path(function, "/resume"))
        return self._done(function, "Resumed.")

    def data(self, call: Call, function: Function, typed: Values | None) -> Mapping[str, Any]:
        shown = {name: one.shown(function) for name, one in self._fields.items()}
        reason = one_line(self._controls.of(function.function_id).pause_reason)
        settings = (REASON, *(setting for one in self._fields.values() for setting in one.settings(function)))
        return {
            "settings": {one.name: one for one in settings},
            "values": value_shown(
                call, {**shown["instances"], **shown["controls"], REASON.name: reason, **(typed or {})}
            ),
            "seen": {name: digest_of(some) for name, some in shown.items()},
        }
