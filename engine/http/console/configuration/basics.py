"""Page of a function's basic settings: description, runtime, memory, timeout, further handlers, log group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from engine.functions.function_rules import OWN
from engine.http.api.function_shapes import PatchBody
from engine.http.api.routing import Call
from engine.http.console.configuration.forms import FieldsForm, SettingsPage, Values, digest_of
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.struct_forms import Choice, Field, fields_of
from engine.http.console.visibility import value_shown
from engine.isolation.folders import Folder, offered_to
from engine.logs.target import LogTarget, project_log_target
from engine.model import Function
from engine.model.limits import MEMORY_SIZES, cpu_of
from engine.runtimes.catalog import BY_BOOTSTRAP, OFFERED, warning_of

LOG = LogTarget.__struct_fields__  #: fields of ``log_config``
_MEMORY = tuple(Choice(value=size, label=f"{size:,} MB, {cpu_of(size) / 1000:.1f} CPU") for size in MEMORY_SIZES)


class BasicsForm(FieldsForm):
    """Form of the basic settings. ``max_timeout`` is the engine's limit in seconds, ``folders`` those of the host."""

    def __init__(self, frame: FunctionFrame, max_timeout: int, folders: Mapping[str, Folder]) -> None:
        super().__init__(frame)
        self._max_timeout, self._folders = max_timeout, folders

    def fields(self, function: Function) -> Sequence[Field]:
        changes: dict[str, dict[str, Any]] = {
            "runtime": {"control": "choice", "choices": _runtimes(function.runtime)},
            "memory_size": {"choices": _MEMORY},
            "timeout": {"help": f"Above {self._max_timeout:,}, executor.long_time_functions must list it."},
        }
        log, stored = project_log_target(function.project), self.stored(function)
        offered = ", ".join(offered_to(function.project, self._folders)) or "none"
        help = f"Names, one a line. This project may use: {offered}."
        return (
            *(replace(field, **changes.get(field.key, {})) for field in fields_of(PatchBody) if field.key in stored),
            *(replace(field, example=getattr(log, field.key), required=False) for field in fields_of(LogTarget)),
            Field(name="folders", key="folders", label="Folders of the host", control="lines", help=help),
        )

    def stored(self, function: Function) -> Mapping[str, Any]:
        log = function.details.get("log_config", {})
        return {
            "description": function.description,
            "runtime": function.runtime,
            "handler": function.handler,
            "memory_size": function.memory_size,
            "enable_dynamic_memory": function.dynamic_memory,
            "timeout": function.timeout,
            "initializer_handler": function.initializer_handler,
            "initializer_timeout": function.initializer_timeout,
            "pre_stop_handler": function.pre_stop_handler,
            "pre_stop_timeout": function.pre_stop_timeout,
            "folders": function.details.get(OWN, {}).get("folders", []),
            **{name: log.get(name, "") for name in LOG},
        }

    def body(self, function: Function, typed: Values, changed: dict[str, Any]) -> Mapping[str, Any]:
        """Return the body of the request. All other fields of the log group are kept."""
        log = {name: changed.pop(name) for name in LOG if name in changed}
        if "folders" in changed:
            changed[OWN] = {**function.details.get(OWN, {}), "folders": changed.pop("folders")}
        return changed | ({"log_config": {**function.details.get("log_config", {}), **log}} if log else {})


class BasicsPage(SettingsPage[Values]):
    """Page of the basic settings."""

    operation, actions = "ConsoleBasics", {"ConsoleSaveBasics": ""}
    tab, template, versioned = "configuration", "functions/basics.html", True

    def __init__(self, frame: FunctionFrame, max_timeout: int, folders: Mapping[str, Folder]) -> None:
        self._form = BasicsForm(frame, max_timeout, folders)
        super().__init__(frame, self._form)

    def data(self, call: Call, function: Function, typed: Values | None) -> Mapping[str, Any]:
        shown = self._form.shown(function)
        return {
            "viewed": function,
            "urn": self._frame.urn_of(function),
            "settings": {field.name: field for field in self._form.fields(function)},
            "values": value_shown(call, dict(typed or shown)),
            "seen": digest_of(shown),
            "warning": warning_of(function.runtime),
        }


def _runtimes(current: str) -> tuple[Choice, ...]:
    offered = {**OFFERED, **{name: name for name in BY_BOOTSTRAP if name not in OFFERED}}
    labels = {**({} if current in offered else {current: current}), **offered}
    return tuple(Choice(value=name, label=label) for name, label in labels.items())
