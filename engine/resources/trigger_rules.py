"""What triggers may look like: their ``event_data`` read as a plugin's options, merged, masked, and compared."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from engine.config.validation import describe_issue
from engine.errors import InvalidField, InvalidTrigger, InvocationModeFixed, StatusFixed
from engine.model import Mode
from engine.model.text import MASK, without_nulls
from engine.protocols import Plugin

EVENT_DATA = "event_data"
#: Where clients ask for an invocation mode, in kinds whose options know no such field.
_MODE_FIELDS = (("invocation_type",), ("invocation_mode",), ("func_info", "invocation_type"))
#: What lets options change a mode that is fixed.
_SETTINGS = {"TIMER": "triggers.timer_sync_execution"}

Data = dict[str, Any]


def read_options(kind: str, plugin: Plugin, data: Data) -> Any:
    """The plugin's options. Raises InvalidTrigger, which names field, value and range, but shows no secret."""
    assert plugin.options is not None
    try:
        return msgspec.convert(data, plugin.options)
    except InvalidField as error:
        raise InvalidTrigger(kind, f"{EVENT_DATA}.{error.field}", error.value, error.allowed) from None
    except msgspec.ValidationError as error:
        raise _misfit(kind, plugin, data, error) from None


def _misfit(kind: str, plugin: Plugin, data: Data, error: msgspec.ValidationError) -> InvalidTrigger:
    found = describe_issue(error, masked(plugin, data), plugin.options)
    field = f"{EVENT_DATA}.{found.field}" if found.field else EVENT_DATA
    return InvalidTrigger(kind, field, found.value, found.allowed)


def stored_form(options: Any, given: Data) -> Data:
    """Options as JSON data, without what is empty, unless it was given so: clients compare."""
    data: Data = msgspec.to_builtins(options)
    return {
        name: value for name, value in data.items() if value or value == 0 or (name in given and value == given[name])
    }


def merged(plugin: Plugin, old: Data, parts: Iterable[Mapping[str, Any]]) -> Data:
    """``old`` with each of ``parts`` over it, objects within them alike; a masked secret is the old one."""
    data, secrets = dict(old), marked(plugin, "secret")
    for part in parts:
        for name, value in without_nulls(part).items():
            if name in secrets and value == MASK:
                continue
            before = data.get(name)
            data[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return data


def check_fixed(kind: str, plugin: Plugin, old: Data, new: Data) -> None:
    """Some fields stay as they were created. Raises InvalidTrigger."""
    for name in marked(plugin, "fixed"):
        if old.get(name) != new.get(name):
            hint = f"it cannot be changed from {old.get(name)!r}: delete the trigger and create another"
            raise InvalidTrigger(kind, f"{EVENT_DATA}.{name}", new.get(name), hint)


def unknown_keys(plugin: Plugin, data: Data) -> list[str]:
    """Keys that the options do not know."""
    return [name for name in data if name not in field_names(plugin.options)]


def check_keys(kind: str, plugin: Plugin, unknown: Iterable[str]) -> None:
    """Our own kinds answer a key they do not know with the nearest that they do. Raises InvalidTrigger."""
    known = field_names(plugin.options)
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise InvalidTrigger(kind, f"{EVENT_DATA}.{name}", MASK, f"no such key: {hint}")


def check_mode(kind: str, plugin: Plugin, data: Data, options: Any, *, free: bool) -> Mode:
    """How the function is invoked. Raises InvocationModeFixed; ``free`` lets options have their way."""
    known, mode = field_names(plugin.options), plugin.rules.mode
    for path in _MODE_FIELDS if plugin.fixed_mode else ():
        asked = _asked(data, path)
        if path[0] not in known and asked not in (None, Mode.ASYNC.value):
            raise InvocationModeFixed(kind, ".".join((EVENT_DATA, *path)), asked)
    if mode is None:
        return Mode.ASYNC if Mode.ASYNC in plugin.modes else Mode.SYNC
    wanted = mode(options)
    if wanted not in plugin.modes and not free:
        name, setting = plugin.rules.mode_option, _SETTINGS.get(kind)
        hint = f", unless the setting {setting} allows it" if setting else ""
        raise InvocationModeFixed(kind, f"{EVENT_DATA}.{name}", data.get(name), hint)
    return wanted


def _asked(data: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        data = data.get(name) if isinstance(data, dict) else None
    return data


def read_status(kind: str, plugin: Plugin, status: str) -> bool | None:
    """Whether it shall be active; None if nothing is said. Raises InvalidTrigger."""
    if status not in ("", "ACTIVE", "DISABLED"):
        raise InvalidTrigger(kind, "trigger_status", status, "must be ACTIVE or DISABLED")
    if status == "DISABLED" and not plugin.rules.may_disable:
        raise StatusFixed(kind, status)
    return status == "ACTIVE" if status else None


def masked(plugin: Plugin, data: Data) -> Data:
    secrets = marked(plugin, "secret")
    return {name: MASK if name in secrets and value else value for name, value in data.items()}


def same_key(plugin: Plugin, options: Any) -> tuple[Any, ...]:
    """What must differ between two triggers of a version; empty if nothing must."""
    return tuple(getattr(options, name) for name in plugin.rules.unique)


def field_names(options: type[Struct] | None) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(options)] if options else []


def marked(plugin: Plugin, mark: str) -> frozenset[str]:
    """Names of the options' fields that are marked ``secret`` or ``fixed``."""
    if plugin.options is None:
        return frozenset()
    fields = msgspec.inspect.type_info(plugin.options)
    assert isinstance(fields, msgspec.inspect.StructType)
    return frozenset(
        field.encode_name for field in fields.fields if (getattr(field.type, "extra", None) or {}).get(mark)
    )
