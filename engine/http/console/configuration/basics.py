"""Page of a function's basic settings: description, runtime, memory, timeout, further handlers, log group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.http.api.function_shapes import ConfigBody
from engine.http.api.routing import Call
from engine.http.console.api_requests import ApiRequests
from engine.http.console.configuration.limits import limits_of
from engine.http.console.configuration.settings import Setting, digest_of, lines, one_line
from engine.http.console.configuration.settings_page import FieldsForm, SettingsPage, Values
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.visibility import value_shown
from engine.logs.target import project_log_target
from engine.model import Function
from engine.model.limits import MEMORY_SIZES, cpu_of
from engine.runtimes.catalog import BY_BOOTSTRAP, OFFERED, warning_of

LOG = ("group_name", "group_id", "stream_name", "stream_id")  #: fields of ``log_config``


class BasicsForm(FieldsForm):
    """Form of the basic settings. ``max_timeout`` is the engine's limit in seconds."""

    def __init__(self, frame: FunctionFrame, max_timeout: int) -> None:
        super().__init__(frame)
        self._max_timeout = max_timeout

    def settings(self, function: Function) -> Sequence[Setting]:
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

    def shown(self, function: Function) -> Values:
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

    def body(self, function: Function, typed: Values, changed: dict[str, Any]) -> Mapping[str, Any]:
        """Return the body of the request. All other fields of the log group are kept."""
        log = {name: changed.pop(name) for name in LOG if name in changed}
        if log:
            changed["log_config"] = {**function.details.get("log_config", {}), **log}
        if "memory_size" in changed:
            changed["memory_size"] = _MEMORY_SIZES.get(changed["memory_size"], changed["memory_size"])
        return changed


class BasicsPage(SettingsPage[Values]):
    """Page of the basic settings."""

    tab, template, versioned = "configuration", "functions/basics.html", True

    def __init__(self, frame: FunctionFrame, api: ApiRequests, max_timeout: int) -> None:
        self._form = BasicsForm(frame, max_timeout)
        super().__init__(frame, api, [self._form])

    def data(self, call: Call, function: Function, typed: Values | None) -> Mapping[str, Any]:
        shown = self._form.shown(function)
        return {
            "viewed": function,
            "urn": self._frame.urn_of(function),
            "settings": {one.name: one for one in self._form.settings(function)},
            "values": value_shown(call, dict(typed or shown)),
            "seen": digest_of(shown),
            "warning": warning_of(function.runtime),
        }


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
