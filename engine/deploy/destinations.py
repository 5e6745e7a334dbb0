"""Destination as an option of a command: a function, or ``KIND:field=value,…`` with the fields of its parameters."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from msgspec import Struct

from engine.config.plugin_registry import Registry, load_plugins
from engine.config.validation import describe_issue
from engine.deploy.client import Client, path_of
from engine.deploy.fields import expected, read_value
from engine.deploy.services import find_topic
from engine.errors import InvalidField, UsageError

FUNCTION = "FunctionGraph"
_KIND = re.compile(r"([A-Za-z][\w.-]*):(?=[^=]*=|$)")  #: a name of a function has no ``=``
_NEXT = re.compile(r",(?=\w+=)")  #: a value may contain commas


class DestinationOption(Struct, frozen=True, kw_only=True):
    kind: str
    fields: dict[str, Any]  #: parameters

    def config(self, client: Client | None) -> dict[str, str]:
        """Return the destination as the API has it, with a client also if it names a function or topic by its name."""
        fields = dict(self.fields)
        if client and self.kind == FUNCTION and not fields["func_urn"].startswith("urn:"):
            fields["func_urn"] = client.get(path_of(fields["func_urn"], "/config"))["func_urn"]
        if client and self.kind == "SMN" and not fields["topic_urn"].startswith("urn:"):
            fields["topic_urn"] = find_topic(client, fields["topic_urn"])["topic_urn"]
        return {"destination": self.kind, "param": json.dumps(fields)}


def read_destination(option: str, text: str) -> DestinationOption:
    """Return the destination that the value of an option describes.

    Raises UsageError if a field is unknown, missing or invalid. Fields of a kind that only the engine knows are left to
    the engine.
    """
    match = _KIND.match(text)
    if match is None:
        return DestinationOption(kind=FUNCTION, fields={"func_urn": text})
    registry = Registry(load_plugins())
    plugin = registry.plugin(match[1])
    named = [name for name in registry.destinations if name.upper() == match[1].upper()]
    given = _fields(option, text, text[match.end() :])
    if plugin is None or plugin.param is None or not named:
        return DestinationOption(kind=match[1], fields={name: read_value(value) for name, value in given.items()})
    names = plugin.param.__struct_encode_fields__
    start = f"{option} is {text}"
    if unknown := [name for name in given if name not in names]:
        raise UsageError(f"{start}: {named[0]} has no field {unknown[0]}: {expected(unknown[0], names)}")
    if named[0] == FUNCTION and "func_urn" in given:  # may be a name
        return DestinationOption(kind=FUNCTION, fields=dict(given))
    try:
        values = msgspec.to_builtins(msgspec.convert(given, plugin.param, strict=False))
    except msgspec.ValidationError as error:
        issue = describe_issue(error, given, plugin.param)
        raise UsageError(f"{start}: {issue.field} {issue.allowed}; {named[0]} has {', '.join(names)}") from None
    except InvalidField as error:
        raise UsageError(f"{start}: {error}") from None
    return DestinationOption(kind=named[0], fields={name: values[name] for name in given})


def _fields(option: str, text: str, rest: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for pair in _NEXT.split(rest) if rest else []:
        name, separator, value = pair.partition("=")
        if not separator or not name or name in fields:
            raise UsageError(f"{option} is {text}: write KIND:FIELD=VALUE,FIELD=VALUE, each field once")
        fields[name] = value
    return fields
