"""Parts of the engine that the console's handlers use: those of the API, and further ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from engine.http.api.parts import ApiDependencies
from engine.metrics.prometheus import Figure
from engine.triggers.supervisor import Health


class ConsoleParts(Struct, frozen=True, kw_only=True):
    api: ApiDependencies
    figures: Callable[[], Iterable[Figure]]  #: metrics, as /metrics shows them
    unended: Callable[[int], int]  #: number of accepted invocations of a function that wait or run
    running: Callable[[int], int]  #: number of running attempts of a function, synchronous calls included
    services: Callable[[], Mapping[str, Health]]  #: health of plugins' services, by name of their settings table
