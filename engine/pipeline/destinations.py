"""Destinations of outcomes, made from the settings of functions."""

from __future__ import annotations

from collections.abc import Callable

from engine.config.plugin_registry import Registry
from engine.model import DestinationSpec, PendingDelivery, Record
from engine.protocols import Destination, PluginContext


class Destinations:
    """Destinations by their settings. Each is made once.

    ``context_for`` returns the context of the plugin that has a kind of destination. ``trace_of`` returns the trace
    context that a try of a delivery sends.
    """

    def __init__(
        self,
        registry: Registry,
        context_for: Callable[[str], PluginContext],
        trace_of: Callable[[PendingDelivery, Record], str],
    ) -> None:
        self._registry, self._context_for, self.trace_of = registry, context_for, trace_of
        self._made: dict[DestinationSpec, Destination] = {}

    def get(self, spec: DestinationSpec) -> Destination:
        destination = self._made.get(spec)
        if destination is None:
            destination = self._made[spec] = self._registry.destination(spec)
        return destination

    def plugin(self, spec: DestinationSpec) -> PluginContext:
        """Return the context of the plugin that implements the destination."""
        return self._context_for(spec.destination)


def trace_of_request(pending: PendingDelivery, record: Record) -> str:
    """Return the trace context of the request, which goes out unchanged if the engine makes no spans."""
    return record.trace
