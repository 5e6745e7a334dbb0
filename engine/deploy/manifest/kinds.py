"""Kinds of triggers and destinations, as the plugins of this installation define them.

The engine may have further kinds, from plugins that are not installed here. Only the engine checks data of those.
"""

from __future__ import annotations

import json
from typing import Any

from engine.config.plugin_registry import Registry, load_plugins
from engine.errors import InvalidField, UsageError
from engine.model import DestinationSpec
from engine.model.text import MASK, without_nulls
from engine.resources import trigger_rules as rules

Data = dict[str, Any]
#: Fields that tell triggers of a function apart, for kinds whose rules name none.
_IDENTITY = {"OBS": ("bucket", "prefix", "suffix"), "CTS": ("name",)}


class Kinds:
    """``secrets`` are texts that errors must not show."""

    def __init__(self, secrets: frozenset[str]) -> None:
        self._registry, self._hidden = Registry(load_plugins()), secrets

    def checked(self, kind: str, data: Data, path: str) -> Data:
        """Return event_data in the form in which the engine stores it. Raise UsageError if it is invalid.

        ``path`` is that of the trigger in the manifest.
        """
        plugin = self._registry.trigger(kind)
        if plugin is None:
            return data
        try:
            rules.check_keys(kind, plugin, rules.unknown_keys(plugin, data), lenient=False)
            stored = rules.stored_form(rules.read_options(kind, plugin, data), without_nulls(data))
        except InvalidField as error:
            raise UsageError(f"{path}.{self._problem(error)}") from None
        as_shown: Data = json.loads(json.dumps(stored))  # with lists in place of tuples
        return as_shown

    def masked(self, kind: str, data: Data) -> Data:
        """Return event_data with secrets masked, as the engine shows it."""
        plugin = self._registry.trigger(kind)
        return rules.masked(plugin, data) if plugin else data

    def secrets(self, kind: str) -> frozenset[str]:
        """Return the names of the fields of event_data that the engine never shows."""
        plugin = self._registry.trigger(kind)
        return rules.marked(plugin, "secret") if plugin else frozenset()

    def identity(self, kind: str, data: Data) -> str:
        """Return a text that is equal for an event_data and a changed one of the same trigger."""
        names = self._identity(kind)
        return json.dumps([data.get(name) or "" for name in names] if names else data, sort_keys=True)

    def label(self, kind: str, data: Data) -> str:
        """Return the name of a trigger in event_data; for kinds without names, such as SMN, what it listens to."""
        named = ("name", *self._identity(kind))
        label = next((data[name] for name in named if data.get(name)), "")
        return ", ".join(map(str, label)) if isinstance(label, list | tuple) else str(label)

    def _identity(self, kind: str) -> tuple[str, ...]:
        plugin = self._registry.trigger(kind)
        return (plugin.rules.unique if plugin else ()) or _IDENTITY.get(kind, ())

    def check_destination(self, destination: str, param: Data, path: str) -> None:
        """Raise UsageError if the parameters of a destination are invalid."""
        plugin = self._registry.plugin(destination)
        if plugin is None or plugin.destination is None:
            return
        try:
            self._registry.destination(DestinationSpec(destination=destination, param=json.dumps(param)))
        except InvalidField as error:
            raise UsageError(f"{path}.{self._problem(error)}") from None

    def _problem(self, error: InvalidField) -> str:
        value = error.value
        if isinstance(value, str) and value in self._hidden:
            value = MASK
        shown = "" if value in (None, MASK) or isinstance(value, dict | list) else f" is {value!r}"
        return f"{error.field}{shown}: {error.allowed}"
