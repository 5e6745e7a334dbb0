"""Page of a function's concurrency: instances, requests, share of the slots, and the controls of functiond's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from engine.asgi.wire import Reply
from engine.errors import FunctiondError, InvalidField
from engine.functions.controls import FunctionControls
from engine.functions.function_rules import OWN, WEIGHTS, priority_cap, weight
from engine.http.api.controls import ControlsBody
from engine.http.api.function_shapes import Strategy
from engine.http.api.routing import Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.configuration.limits import Limits, limits_of
from engine.http.console.configuration.settings import (
    CHANGED,
    Setting,
    Value,
    changes,
    digest_of,
    errors_beside,
    is_stale,
    number_text,
    one_line,
    typed_in,
)
from engine.http.console.forms import WHOLE, Form
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.notes import see_other
from engine.http.console.pages import Action
from engine.http.console.paths import FUNCTION
from engine.http.console.visibility import value_shown
from engine.model import Function
from engine.model.controls import Controls

TAB = "configuration/concurrency"
PATH = f"/{TAB}"
LIMITED, UNLIMITED, DISABLED = "limited", "unlimited", "disabled"
_INSTANCES = {UNLIMITED: -1, DISABLED: 0}


class _Part(Struct, frozen=True, kw_only=True):
    """Form of the page, and the request that it makes."""

    name: str
    settings: tuple[Setting, ...]
    target: str  #: path of the operation, below that of the function
    shown: Callable[[Function, Controls], dict[str, Value]]
    body: Callable[[Function, dict[str, Value], dict[str, Any]], dict[str, Any]]


class ConcurrencyPage:
    def __init__(self, frame: FunctionFrame, api: ApiRequests, controls: FunctionControls) -> None:
        self._frame, self._api, self._controls = frame, api, controls

    def pages(self) -> Mapping[str, Handler]:
        return {FUNCTION + PATH: self.show}

    def actions(self) -> Mapping[str, Action]:
        return {
            FUNCTION + PATH: self.save_instances,
            f"{FUNCTION}{PATH}/controls": self.save_controls,
            f"{FUNCTION}{PATH}/pause": self.pause,
            f"{FUNCTION}{PATH}/resume": self.resume,
        }

    async def show(self, call: Call) -> Reply:
        return await self._show(call, self._frame.function_of(call))

    async def save_instances(self, call: Call, form: Form) -> Reply:
        return await self._save(call, form, _INSTANCES_PART)

    async def save_controls(self, call: Call, form: Form) -> Reply:
        return await self._save(call, form, _CONTROLS_PART)

    async def pause(self, call: Call, form: Form) -> Reply:
        """Pause the function, or change the reason of its pause."""
        function, reason = self._frame.function_of(call), form.text("pause_reason")
        try:
            await self._api.send(call, "POST", self._frame.api_path(function, "/pause"), {"reason": reason})
        except FunctiondError as error:
            found = errors_beside(error, ("reason",))
            errors = {"pause_reason" if name else WHOLE: text for name, text in found.items()}
            return await self._show(call, function, {"pause_reason": reason}, errors)
        return see_other(self._frame.page_path(function, PATH), "Paused. Requests are accepted and wait.")

    async def resume(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        await self._api.send(call, "POST", self._frame.api_path(function, "/resume"))
        return see_other(self._frame.page_path(function, PATH), "Resumed.")

    async def _save(self, call: Call, form: Form, part: _Part) -> Reply:
        function = self._frame.function_of(call)
        shown = part.shown(function, self._controls.of(function.function_id))
        typed = typed_in(part.settings, form, shown)
        if is_stale(form, shown):
            return await self._show(call, function, typed, {WHOLE: CHANGED})
        try:
            body = part.body(function, typed, changes(part.settings, typed, shown))
            if not body:
                return see_other(self._frame.page_path(function, PATH), "Nothing was changed.")
            await self._api.send(call, "PATCH", self._frame.api_path(function, part.target), body)
        except FunctiondError as error:
            return await self._show(call, function, typed, errors_beside(error, shown))
        return see_other(self._frame.page_path(function, PATH), "Saved.")

    async def _show(
        self,
        call: Call,
        function: Function,
        typed: Mapping[str, Value] | None = None,
        errors: Mapping[str, str] | None = None,
    ) -> Reply:
        controls = self._controls.of(function.function_id)
        shown = {part.name: part.shown(function, controls) for part in _PARTS}
        stored = {name: value for values in shown.values() for name, value in values.items()}
        return await self._frame.show(
            call,
            "functions/concurrency.html",
            tab=TAB,
            live=False,
            http_status=400 if errors else 200,
            settings={one.name: one for part in _PARTS for one in part.settings} | {_REASON.name: _REASON},
            values=value_shown(call, {**stored, "pause_reason": one_line(controls.pause_reason), **(typed or {})}),
            errors=errors or {},
            seen={name: digest_of(values) for name, values in shown.items()},
        )


def _instances_shown(function: Function, controls: Controls) -> dict[str, Value]:
    kinds = {number: kind for kind, number in _INSTANCES.items()}
    kind = kinds.get(function.max_instances, LIMITED)
    return {
        "instances": kind,
        "concurrency": str(function.max_instances) if kind == LIMITED else "",
        "concurrent_num": str(function.concurrent_num),
        "priority_cap": str(priority_cap(function)),
        "weight": number_text(weight(function)),
    }


def _instances_body(function: Function, typed: dict[str, Value], changed: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a request that makes the changes. A number of instances counts only if they are limited.

    Raises InvalidField if they are limited to a number by which the API means something else: none, or any.
    """
    body: dict[str, Any] = {}
    kind = str(typed["instances"])
    strategy = {name: changed[name] for name in ("concurrent_num",) if name in changed}
    limit = _INSTANCES.get(kind, _LIMIT.read(typed["concurrency"]))
    if kind == LIMITED and limit in _INSTANCES.values():
        raise InvalidField("concurrency", limit, f"must be from {_LIMIT.limits.text}")
    if limit != function.max_instances:
        strategy["concurrency"] = limit
    if strategy:
        body["strategy_config"] = strategy
    own = {name: changed[name] for name in ("priority_cap", "weight") if name in changed}
    if own:
        cap = str(own.get("priority_cap", ""))
        if cap.isdecimal() and len(cap) < 3:  # any other text is refused
            own["priority_cap"] = int(cap)
        body[OWN] = {**function.details.get(OWN, {}), **own}
    return body


def _controls_shown(function: Function, controls: Controls) -> dict[str, Value]:
    return {one.name: number_text(getattr(controls, one.name)) for one in _CONTROLS_PART.settings}


def _control(name: str, label: str, unit: str, help: str) -> Setting:
    default = float(getattr(Controls(), name))
    limits = limits_of(ControlsBody, name)
    return Setting(name=name, label=label, kind="number", unit=unit, help=help, empty=default, limits=limits)


_LIMIT = Setting(
    name="concurrency",
    label="Most instances",
    kind="number",
    help="Of all versions together. More requests wait.",
    limits=Limits(low=1, high=limits_of(Strategy, "concurrency").high),
)
_INSTANCES_PART = _Part(
    name="instances",
    settings=(
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
    ),
    target="/config",
    shown=_instances_shown,
    body=_instances_body,
)
_CONTROLS_PART = _Part(
    name="controls",
    settings=(
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
        _control(
            "soft_timeout", "Soft timeout", "seconds", "A handler that runs longer is warned once. 0 means never."
        ),
    ),
    target="/controls",
    shown=_controls_shown,
    body=lambda function, typed, changed: changed,
)
_REASON = Setting(name="pause_reason", label="Reason for the pause", help="Callers see it. May be empty.")
_PARTS = (_INSTANCES_PART, _CONTROLS_PART)
