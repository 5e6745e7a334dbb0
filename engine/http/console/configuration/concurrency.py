"""Page of a function's concurrency: instances, requests, share of the slots, and the controls of functiond's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, to_builtins
from msgspec.structs import replace

from engine.errors import InvalidField
from engine.functions.controls import FunctionControls
from engine.functions.function_rules import OWN, PER_KEY, WEIGHTS, per_key, priority_cap, weight
from engine.http.api.controls import ControlsBody
from engine.http.api.routing import Call
from engine.http.console.configuration.forms import FieldsForm, SettingsPage, Values, digest_of
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.struct_forms import Field, fields_of, number_of, one_line
from engine.http.console.visibility import value_shown
from engine.model import Function
from engine.model.controls import Controls
from engine.model.limits import INSTANCES, Requests, words

LIMITED, UNLIMITED, DISABLED = "limited", "unlimited", "disabled"
_NUMBERS = {UNLIMITED: -1, DISABLED: 0}  #: of instances in the API
_KINDS = {LIMITED: "Limited", UNLIMITED: "No limit of its own", DISABLED: "None: disabled"}


class Share(Struct, frozen=True, kw_only=True):
    """Instances of a function, and its share of the engine."""

    instances: Annotated[
        Literal["limited", "unlimited", "disabled"],
        words("Instances", "A disabled function refuses requests with 429. To let them wait, pause it.", labels=_KINDS),
    ]
    concurrency: Annotated[
        int,
        Meta(ge=1, le=INSTANCES[1]),
        words("Most instances", "Of all versions together. More requests wait."),
    ]
    concurrent_num: Requests
    priority_cap: Annotated[
        Literal[0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        words("Highest priority", "Callers that ask for a higher one get this. Default 9."),
    ]
    per_key: Annotated[
        int,
        Meta(ge=PER_KEY[0], le=PER_KEY[1]),
        words("Per ordering key", "Invocations of one ordering key that run at a time. Default 1.", initial=1),
    ]
    weight: Annotated[
        float,
        Meta(ge=WEIGHTS[0], le=WEIGHTS[1]),
        words("Weight", "Share of the slots, relative to other functions. Default 1.", initial=1),
    ]


class InstancesForm(FieldsForm):
    def fields(self, function: Function) -> Sequence[Field]:
        return fields_of(Share)

    def stored(self, function: Function) -> Mapping[str, Any]:
        kinds = {number: kind for kind, number in _NUMBERS.items()}
        kind = kinds.get(function.max_instances, LIMITED)
        return {
            "instances": kind,
            "concurrency": function.max_instances if kind == LIMITED else None,
            "concurrent_num": function.concurrent_num,
            "priority_cap": priority_cap(function),
            "per_key": per_key(function),
            "weight": weight(function),
        }

    def body(self, function: Function, typed: Values, changed: dict[str, Any]) -> Mapping[str, Any]:
        """Return the body of the request. Raises InvalidField if the instances are limited without a valid number."""
        body: dict[str, Any] = {}
        strategy = {name: changed[name] for name in ("concurrent_num",) if name in changed}
        kind = typed["instances"]
        instances = _NUMBERS[kind] if kind in _NUMBERS else _limit(typed["concurrency"])
        if instances != function.max_instances:
            strategy["concurrency"] = instances
        if strategy:
            body["strategy_config"] = strategy
        own = {name: changed[name] for name in ("priority_cap", "per_key", "weight") if name in changed}
        if own:
            body[OWN] = {**function.details.get(OWN, {}), **own}
        return body


class ControlsForm(FieldsForm):
    target = "/controls"

    def __init__(self, frame: FunctionFrame, controls: FunctionControls) -> None:
        super().__init__(frame)
        self._controls = controls

    def fields(self, function: Function) -> Sequence[Field]:
        """Return the fields of all controls except those of the pause, which has a form of its own."""
        initial = to_builtins(Controls())
        fields = (field for field in fields_of(ControlsBody) if not field.key.startswith("pause"))
        return [replace(field, initial=initial[field.key]) for field in fields]

    def stored(self, function: Function) -> Mapping[str, Any]:
        stored: Mapping[str, Any] = to_builtins(self._controls.of(function.function_id))
        return stored

    def body(self, function: Function, typed: Values, changed: dict[str, Any]) -> Mapping[str, Any]:
        return changed


class ConcurrencyPage(SettingsPage[Values]):
    """Page with a form of the instances and one of the controls, and with the pause."""

    operation = "ConsoleConcurrency"
    actions = {"ConsoleSaveConcurrency": "", "ConsoleSaveControls": "/controls"}
    tab, template = "configuration/concurrency", "functions/concurrency.html"

    def __init__(self, frame: FunctionFrame, controls: FunctionControls) -> None:
        self._fields = {"instances": InstancesForm(frame), "controls": ControlsForm(frame, controls)}
        super().__init__(frame, *self._fields.values())
        self._controls = controls

    def data(self, call: Call, function: Function, typed: Values | None) -> Mapping[str, Any]:
        shown = {name: field.shown(function) for name, field in self._fields.items()}
        fields = {field.name: field for field in (*fields_of(ControlsBody), *fields_of(Share))}
        reason = self._controls.of(function.function_id).pause_reason
        return {
            "settings": fields,
            "values": value_shown(
                call, {**shown["instances"], **shown["controls"], "pause_reason": one_line(reason), **(typed or {})}
            ),
            "seen": {name: digest_of(some) for name, some in shown.items()},
        }


def _limit(typed: str) -> int:
    """Return the number of instances that was typed. Raises InvalidField if it is no such number."""
    number, highest = number_of(typed), INSTANCES[1]
    if not isinstance(number, int) or not 1 <= number <= highest:
        advice = f"enter a whole number from 1 to {highest:,}, or choose another entry of Instances"
        raise InvalidField("concurrency", number, advice)
    return number
