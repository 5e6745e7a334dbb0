"""Rules for the data of triggers: conversion of ``event_data`` to a plugin's options, checks, merging and masking."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from engine.config.validation import describe_issue
from engine.errors import InvalidField, InvalidTrigger, InvocationModeFixed, StatusFixed
from engine.model import Mode
from engine.model.text import MASK, without_nulls
from engine.protocols import Plugin

EVENT_DATA = "event_data"
MISSPELT = 0.87  #: likeness from which on a key counts as misspelt; keys of different kinds are less alike
UNKNOWN = 100  #: keys of ``event_data`` that the options do not have
ENTRIES = 1_000  #: of a list in ``event_data``
ENTRY = 4_096  #: characters of a text in a list
#: Fields in which clients request an invocation mode, for kinds whose options have no such field.
_MODE_FIELDS = (("invocation_type",), ("invocation_mode",), ("func_info", "invocation_type"))
#: Settings that allow options to change a fixed mode, by kind.
_SETTINGS = {"TIMER": "triggers.timer_sync_execution"}

Data = dict[str, Any]


def read_options(kind: str, plugin: Plugin, data: Data) -> Any:
    """Convert a trigger's ``event_data`` to the plugin's options.

    Raises InvalidTrigger if a value is invalid. The error shows secrets masked.
    """
    assert plugin.options is not None
    try:
        return msgspec.convert(data, plugin.options)
    except InvalidField as error:
        raise InvalidTrigger(kind, f"{EVENT_DATA}.{error.field}", error.value, error.allowed) from None
    except msgspec.ValidationError as error:
        raise _invalid(kind, plugin, data, error) from None


def _invalid(kind: str, plugin: Plugin, data: Data, error: msgspec.ValidationError) -> InvalidTrigger:
    issue = describe_issue(error, masked(plugin, data), plugin.options)
    field = f"{EVENT_DATA}.{issue.field}" if issue.field else EVENT_DATA
    return InvalidTrigger(kind, field, issue.value, issue.allowed)


def stored_form(options: Any, given: Data) -> Data:
    """Return a plugin's options as JSON data to store, with no other keys than the request has.

    Clients such as Terraform compare the reply with their request, so defaults are left out. If a key is another
    spelling of an option, which the plugin reads into that option and sets to null, the option is stored instead.
    """
    data: Data = msgspec.to_builtins(options)
    kept = _kept(data, given)
    if None not in kept.values():
        return kept
    return {name: value for name, value in data.items() if value or (name in kept and value is not None)}


def _kept(data: Data, given: Data) -> Data:
    return {
        name: _kept(data[name], value) if isinstance(data[name], dict) and isinstance(value, dict) else data[name]
        for name, value in given.items()
        if name in data
    }


def changed(plugin: Plugin, old: Data, change: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> Data:
    """Return a trigger's data after an update: an object replaces the old data, a list of objects is merged into it.

    Objects of a list are merged one after another, with their object fields. A secret that a client sends back masked
    is not changed.
    """
    secrets = marked(plugin, "secret")
    data: Data = {} if isinstance(change, Mapping) else dict(old)
    for part in [change] if isinstance(change, Mapping) else change:
        for name, value in without_nulls(part).items():
            before = data.get(name)
            if name not in secrets or value != MASK:
                data[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
            elif name in old:
                data.setdefault(name, old[name])
    return data


def check_fixed(kind: str, plugin: Plugin, old: Data, new: Data) -> None:
    """Raise InvalidTrigger if the new data changes a field that the plugin marks ``fixed``."""
    for name in marked(plugin, "fixed"):
        if old.get(name) != new.get(name):
            hint = f"it cannot be changed from {old.get(name)!r}: delete the trigger and create another"
            raise InvalidTrigger(kind, f"{EVENT_DATA}.{name}", new.get(name), hint)


def excess(kind: str, data: Data) -> InvalidTrigger | None:
    """Return the error of data that has a list with too many or too long entries, or None.

    New data is refused. Data that was stored before these limits is used, and the state of its trigger has the error.
    """
    for name, value in data.items():
        if isinstance(value, list | tuple) and (len(value) > ENTRIES or any(len(str(item)) > ENTRY for item in value)):
            allowed = f"at most {ENTRIES} entries of at most {ENTRY} characters are allowed; make several triggers"
            return InvalidTrigger(kind, f"{EVENT_DATA}.{name}", f"a list of {len(value)}", allowed)
    return None


def unknown_keys(plugin: Plugin, data: Data) -> list[str]:
    """Return the keys of a trigger's data that the plugin's options do not have."""
    known = field_names(plugin.options)
    return [name for name in data if name not in known]


def check_keys(kind: str, plugin: Plugin, unknown: Sequence[str], *, lenient: bool) -> None:
    """Raise InvalidTrigger if there is an unknown key. The error suggests a similar valid key, or lists all.

    ``lenient``: only misspelt keys are refused. The vendor's clients send keys of other kinds.
    """
    names = field_names(plugin.options)
    if len(unknown) > UNKNOWN:
        raise InvalidTrigger(kind, EVENT_DATA, f"an object with {len(unknown)} unknown keys", "leave them out")
    for name in unknown:
        near = difflib.get_close_matches(name[:ENTRY], names, n=1, cutoff=MISSPELT if lenient else 0.6)
        if near or not lenient:
            hint = f"did you mean {near[0]}?" if near else f"must be one of {', '.join(names)}"
            raise InvalidTrigger(kind, f"{EVENT_DATA}.{name}", MASK, f"no such key: {hint}")


def check_mode(kind: str, plugin: Plugin, data: Data, options: Any, *, free: bool) -> Mode:
    """Return the invocation mode of a trigger: synchronous or asynchronous.

    Raises InvocationModeFixed if the request names a mode that the kind does not allow, and InvalidTrigger if a
    synchronous trigger has an option for the order of asynchronous invocations. ``free`` allows every mode that
    the options can express.
    """
    names, mode = field_names(plugin.options), plugin.rules.mode
    for path in _MODE_FIELDS if plugin.fixed_mode else ():
        requested = _value_at(data, path)
        if path[0] not in names and requested not in (None, Mode.ASYNC.value):
            raise InvocationModeFixed(kind, ".".join((EVENT_DATA, *path)), requested)
    if mode is None:
        return Mode.ASYNC if Mode.ASYNC in plugin.modes else Mode.SYNC
    wanted = mode(options)
    if wanted is Mode.SYNC and data.get("ordering"):
        raise InvalidTrigger(kind, f"{EVENT_DATA}.ordering", data["ordering"], "needs asynchronous invocations")
    if wanted not in plugin.modes and not free:
        name, setting = plugin.rules.mode_option, _SETTINGS.get(kind)
        hint = f", unless the setting {setting} allows it" if setting else ""
        raise InvocationModeFixed(kind, f"{EVENT_DATA}.{name}", data.get(name), hint)
    return wanted


def _value_at(data: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        data = data.get(name) if isinstance(data, dict) else None
    return data


def read_status(kind: str, plugin: Plugin, status: str) -> bool | None:
    """Return True for the status ACTIVE, False for DISABLED, and None for an empty text.

    Raises InvalidTrigger for any other status; StatusFixed for DISABLED if triggers of this kind cannot be
    disabled.
    """
    if status not in ("", "ACTIVE", "DISABLED"):
        raise InvalidTrigger(kind, "trigger_status", status, "must be ACTIVE or DISABLED")
    if status == "DISABLED" and not plugin.rules.may_disable:
        raise StatusFixed(kind, status)
    return status == "ACTIVE" if status else None


def masked(plugin: Plugin, data: Data) -> Data:
    secrets = marked(plugin, "secret")
    return {name: MASK if name in secrets and value else value for name, value in data.items()} if secrets else data


def same_key(plugin: Plugin, options: Any) -> tuple[Any, ...]:
    """Return a trigger's values of the fields in ``rules.unique``.

    Two triggers of the same kind and version must differ in at least one of these values, if there are any.
    """
    return tuple(getattr(options, name) for name in plugin.rules.unique)


@cache
def field_names(options: type[Struct] | None) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(options)] if options else []


def marked(plugin: Plugin, mark: str) -> frozenset[str]:
    """Return the names of a plugin's option fields that are annotated with ``mark``: ``secret`` or ``fixed``."""
    return frozenset() if plugin.options is None else _marked(plugin.options, mark)


@cache
def _marked(options: type[Struct], mark: str) -> frozenset[str]:
    fields = msgspec.inspect.type_info(options)
    assert isinstance(fields, msgspec.inspect.StructType)
    return frozenset(
        field.encode_name for field in fields.fields if (getattr(field.type, "extra", None) or {}).get(mark)
    )
