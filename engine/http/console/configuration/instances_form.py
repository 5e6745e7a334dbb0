"""Form of a function's instances, and of its share of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.errors import InvalidField
from engine.functions.function_rules import OWN, WEIGHTS, priority_cap, weight
from engine.http.api.function_shapes import Strategy
from engine.http.console.configuration.limits import Limits, limits_of
from engine.http.console.configuration.settings import Setting, Value, number_text
from engine.http.console.configuration.settings_page import FieldsForm, Values
from engine.model import Function

LIMITED, UNLIMITED, DISABLED = "limited", "unlimited", "disabled"
_NUMBERS = {UNLIMITED: -1, DISABLED: 0}  #: of instances in the API


class InstancesForm(FieldsForm):
    def settings(self, function: Function) -> Sequence[Setting]:
        return _SETTINGS

    def shown(self, function: Function) -> Values:
        kinds = {number: kind for kind, number in _NUMBERS.items()}
        kind = kinds.get(function.max_instances, LIMITED)
        return {
            "instances": kind,
            "concurrency": str(function.max_instances) if kind == LIMITED else "",
            "concurrent_num": str(function.concurrent_num),
            "priority_cap": str(priority_cap(function)),
            "weight": number_text(weight(function)),
        }

    def body(self, function: Function, typed: Values, changed: dict[str, Any]) -> Mapping[str, Any]:
        """Return the body of the request. Raises InvalidField if the instances are limited without a valid number."""
        body: dict[str, Any] = {}
        strategy = {name: changed[name] for name in ("concurrent_num",) if name in changed}
        kind = str(typed["instances"])
        instances = _NUMBERS[kind] if kind in _NUMBERS else _limit(typed["concurrency"])
        if instances != function.max_instances:
            strategy["concurrency"] = instances
        if strategy:
            body["strategy_config"] = strategy
        own = {name: changed[name] for name in ("priority_cap", "weight") if name in changed}
        if own:
            cap = str(own.get("priority_cap", ""))
            if cap.isdecimal() and len(cap) < 3:  # any other text is refused
                own["priority_cap"] = int(cap)
            body[OWN] = {**function.details.get(OWN, {}), **own}
        return body


def _limit(typed: Value) -> int:
    """Return the number of instances that was typed. Raises InvalidField if it is no such number."""
    number, limits = _LIMIT.read(typed), _LIMIT.limits
    if not isinstance(number, int) or not limits.accept(number):
        advice = f"enter a whole number from {limits.text}, or choose another entry of Instances"
        raise InvalidField("concurrency", number, advice)
    return number


_LIMIT = Setting(
    name="concurrency",
    label="Most instances",
    kind="number",
    help="Of all versions together. More requests wait.",
    limits=Limits(low=1, high=limits_of(Strategy, "concurrency").high),
)
_SETTINGS = (
    Setting(
        name="instances",
        label="Instances",
        kind="choice",
        help="A disabled function refuses requests with 429. To let them wait, pause it.",
        options=((LIMITED, "Limited"), (UNLIMITED, "No limit of its own"), (DISABLED, "None: disabled")),
    ),
    _LIMIT,
    Setting(
        name="concurrent_num",
        label="Requests per instance",
        kind="number",
        help="Requests that one instance serves at the same time.",
        limits=limits_of(Strategy, "concurrent_num"),
    ),
    Setting(
        name="priority_cap",
        label="Highest priority",
        kind="choice",
        help="Callers that ask for a higher one get this. Default 9.",
        options=tuple((str(number), str(number)) for number in range(10)),
    ),
    Setting(
        name="weight",
        label="Weight",
        kind="number",
        help="Share of the slots, relative to other functions. Default 1.",
        empty=1,
        limits=Limits(low=WEIGHTS[0], high=WEIGHTS[1], whole=False),
    ),
)
