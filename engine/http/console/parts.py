"""What the console needs of the engine, beside what the API needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from engine.http.api.parts import ApiDependencies
from engine.metrics.prometheus import Figure
from engine.triggers.supervisor import Health


class ConsoleParts(Struct, frozen=True, kw_only=True):
    api: ApiDependencies
    figures: Callable[[], Iterable[Figure]]  #: those that /metrics shows
    unended: Callable[[int], int]  #: accepted invocations of a function that wait or run
    running: Callable[[int], int]  #: runs of a function, those of synchronous calls among them
    services: Callable[[], Mapping[str, Health]]  #: of plugins, by table
