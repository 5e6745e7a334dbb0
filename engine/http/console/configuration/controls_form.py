"""Form of a function's controls: start rate, recycling of instances, soft timeout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.functions.controls import FunctionControls
from engine.http.api.controls import ControlsBody
from engine.http.console.configuration.limits import limits_of
from engine.http.console.configuration.settings import Setting, number_text
from engine.http.console.configuration.settings_page import FieldsForm, Values
from engine.http.console.function_frame import FunctionFrame
from engine.model import Function
from engine.model.controls import Controls


class ControlsForm(FieldsForm):
    path = target = "/controls"

    def __init__(self, frame: FunctionFrame, controls: FunctionControls) -> None:
        super().__init__(frame)
        self._controls = controls

    def settings(self, function: Function) -> Sequence[Setting]:
        return _SETTINGS

    def shown(self, function: Function) -> Values:
        stored = self._controls.of(function.function_id)
        return {one.name: number_text(getattr(stored, one.name)) for one in _SETTINGS}

    def body(self, function: Function, typed: Values, changed: dict[str, Any]) -> Mapping[str, Any]:
        return changed


def _control(name: str, label: str, unit: str, help: str) -> Setting:
    default = float(getattr(Controls(), name))
    limits = limits_of(ControlsBody, name)
    return Setting(name=name, label=label, kind="number", unit=unit, help=help, empty=default, limits=limits)


_SETTINGS = (
    _control("rate", "Start rate", "per second", "Asynchronous invocations, retries included. 0 means no limit."),
    _control("burst", "Burst", "", "Invocations that may start at once under the rate. Default 1."),
    _control(
        "recycle_requests", "Requests of an instance", "", "An instance is replaced after so many. 0 means never."
    ),
    _control(
        "recycle_memory",
        "Memory of an instance",
        "percent",
        "An instance is replaced when it has used so much. 0 means never.",
    ),
    _control("soft_timeout", "Soft timeout", "seconds", "A handler that runs longer is warned once. 0 means never."),
)
