"""Rates at which events of each kind of source reach the journal.

Accepted events are queued and not executed, except for the synchronous calls that ``apig`` measures. To add a
source, add a module with a constant ``SOURCE`` to this package, and its name to ``NAMES``.
"""

from __future__ import annotations

from collections.abc import Generator
from importlib import import_module

from bench.harness import Options, Progress, Round, Scenario
from bench.intake.source import Source
from engine.metrics.prometheus import configure_logging

NAMES = ("pull", "timer", "obs", "dis", "lts", "kafka", "rabbitmq", "dds", "smn", "cts", "eventgrid", "webhook", "apig")
SOURCES: dict[str, Source] = {name: import_module(f"bench.intake.{name}").SOURCE for name in NAMES}
ABSENT = {name: why for name, source in SOURCES.items() if (why := source.absent())}


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    configure_logging("console", "error")
    while True:
        figures: Round = {}
        for name, source in SOURCES.items():
            if name not in ABSENT:
                progress(f"intake: {source.description}")
                figures |= source.measure(options)
        yield figures


SCENARIO = Scenario(
    name="intake",
    title="events of sources, about 200 bytes each, from the source to disk",
    figures=tuple(figure for source in SOURCES.values() for figure in source.figures),
    rounds=rounds,
    note="; ".join(
        (
            "pull: generated events, by batch size",
            "dis, kafka, rabbitmq, dds: messages or changes, 100 per event; lts: lines, 75 KB per event",
            "posted events: 64 connections",
            *(f"{name} not measured: {why}" for name, why in ABSENT.items()),
        )
    ),
)
