"""Page of a function's basic settings: description, runtime, memory, timeout, further handlers, log group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.asgi.wire import Reply
from engine.errors import FunctiondError
from engine.http.api.function_shapes import ConfigBody
from engine.http.api.routing import Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.configuration.limits import limits_of
from engine.http.console.configuration.settings import (
    CHANGED,
    Setting,
    Value,
    changes,
    digest_of,
    errors_beside,
    is_stale,
    lines,
    one_line,
    typed_in,
)
from engine.http.console.forms import WHOLE, Form
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.notes import see_other
from engine.http.console.pages import Action
from engine.http.console.paths import FUNCTION
from engine.http.console.visibility import value_shown
from engine.logs.target import project_log_target
from engine.model import Function
from engine.model.limits import MEMORY_SIZES, cpu_of
from engine.runtimes.catalog import BY_BOOTSTRAP, OFFERED, warning_of

TAB = "configuration"
PATH = f"/{TAB}"
LOG = ("group_name", "group_id", "stream_name", "stream_id")  #: fields of ``log_config``


class BasicsPage:
    """Page of the basic settings, also of a published version. ``max_timeout`` is the engine's limit in seconds."""

    def __init__(self, frame: FunctionFrame, api: ApiRequests, max_timeout: int) -> None:
        self._frame, self._api, self._max_timeout = frame, api, max_timeout

    def pages(self) -> Mapping[str, Handler]:
        return {FUNCTION + PATH: self.show}

    def actions(self) -> Mapping[str, Action]:
        return {FUNCTION + PATH: self.save}

    async def show(self, call: Call) -> Reply:
        function = self._frame.version_of(call)
        return await self._show(call, function, _shown(function))

    async def save(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        settings, shown = self._settings(function), _shown(function)
        typed = typed_in(settings, form, shown)
        if is_stale(form, shown):
            return await self._show(call, function, typed, {WHOLE: CHANGED})
        body = _body(function, changes(settings, typed, shown))
        if not body:
            return see_other(self._frame.page_path(function, PATH), "Nothing was changed.")
        try:
            await self._api.send(call, "PATCH", self._frame.api_path(function, "/config"), body)
        except FunctiondError as error:
            return await self._show(call, function, typed, errors_beside(error, shown))
        return see_other(self._frame.page_path(function, PATH), "Saved.")

    async def _show(
        self, call: Call, function: Function, values: Mapping[str, Value], errors: Mapping[str, str] | None = None
    ) -> Reply:
        return await self._frame.show(
            call,
            "functions/basics.html",
            tab=TAB,
            live=False,
            http_status=400 if errors else 200,
            viewed=function,
            urn=self._frame.urn_of(function),
            settings={one.name: one for one in self._settings(function)},
            values=value_shown(call, dict(values)),
            errors=errors or {},
            seen=digest_of(_shown(function)),
            warning=warning_of(function.runtime),
        )

    def _settings(self, function: Function) -> tuple[Setting, ...]:
        log = project_log_target(function.project)
        return (
            *_GENERAL,
            _choice("runtime", "Runtime", _runtimes(function.runtime), "Needs its interpreter on this machine."),
            _choice("memory_size", "Memory", _MEMORY, "Of one instance. The share of CPU grows with it."),
            _number("timeout", "Timeout", f"Above {self._max_timeout:,}, executor.long_time_functions must list it."),
            *_HANDLERS,
            _log("group_name", "Log group", log.group_name),
            _log("group_id", "Id of the group", log.group_id),
            _log("stream_name", "Log stream", log.stream_name),
            _log("stream_id", "Id of the stream", log.stream_id),
        )


def _shown(function: Function) -> dict[str, Value]:
    log = function.details.get("log_config", {})
    return {
        "description": lines(function.description),
        "runtime": function.runtime,
        "handler": one_line(function.handler),
        "memory_size": str(function.memory_size),
        "enable_dynamic_memory": function.dynamic_memory,
        "timeout": str(function.timeout),
        "initializer_handler": one_line(function.initializer_handler),
        "initializer_timeout": str(function.initializer_timeout),
        "pre_stop_handler": one_line(function.pre_stop_handler),
        "pre_stop_timeout": "" if function.pre_stop_timeout is None else str(function.pre_stop_timeout),
        **{name: one_line(str(log.get(name, ""))) for name in LOG},
    }


def _body(function: Function, changed: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a request that makes the changes. All other fields of the log group are kept."""
    log = {name: changed.pop(name) for name in LOG if name in changed}
    if log:
        changed["log_config"] = {**function.details.get("log_config", {}), **log}
    if "memory_size" in changed:
        changed["memory_size"] = _MEMORY_SIZES.get(changed["memory_size"], changed["memory_size"])
    return changed


def _number(name: str, label: str, help: str, empty: float | None = None) -> Setting:
    limits, placeholder = limits_of(ConfigBody, name), "" if empty is None else f"{empty:g}"
    return Setting(
        name=name,
        label=label,
        kind="number",
        help=help,
        unit="seconds",
        empty=empty,
        placeholder=placeholder,
        limits=limits,
    )


def _choice(name: str, label: str, options: tuple[tuple[str, str], ...], help: str) -> Setting:
    return Setting(name=name, label=label, kind="choice", options=options, help=help)


def _log(name: str, label: str, default: str) -> Setting:
    return Setting(name=name, label=label, placeholder=default)


def _runtimes(current: str) -> tuple[tuple[str, str], ...]:
    offered = {**OFFERED, **{name: name for name in BY_BOOTSTRAP if name not in OFFERED}}
    return tuple({**({} if current in offered else {current: current}), **offered}.items())


_MEMORY_SIZES = {str(size): size for size in MEMORY_SIZES}
_MEMORY = tuple((str(size), f"{size:,} MB, {cpu_of(size) / 1000:.1f} CPU") for size in MEMORY_SIZES)
_FORM_OF_HANDLER = "file.function for Python and Node.js; any text for a bootstrap."
_GENERAL = (
    Setting(
        name="description",
        label="Description",
        kind="area",
        help="Shown in lists of functions.",
        limits=limits_of(ConfigBody, "description"),
    ),
    Setting(name="handler", label="Handler", help=_FORM_OF_HANDLER, limits=limits_of(ConfigBody, "handler")),
)
_HANDLERS = (
    Setting(
        name="enable_dynamic_memory",
        label="Callers may choose the memory",
        kind="flag",
        help="With the header X-Cff-Instance-Memory of a request.",
    ),
    Setting(
        name="initializer_handler",
        label="Initializer",
        help="Handler that runs once in each new instance, before its first request. Empty means none.",
        limits=limits_of(ConfigBody, "initializer_handler"),
    ),
    _number("initializer_timeout", "Timeout of the initializer", "Default 300.", empty=300),
    Setting(
        name="pre_stop_handler",
        label="Pre-stop handler",
        help="Runs before an instance is stopped. Empty means none.",
        limits=limits_of(ConfigBody, "pre_stop_handler"),
    ),
    _number("pre_stop_timeout", "Timeout of the pre-stop handler", "Default 90.", empty=90),
)
