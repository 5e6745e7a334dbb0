"""How many events a second sources bring into the journal.

What is accepted is queued, and not executed meanwhile, but for the calls of a gateway that wait for it. A source adds a
module with a ``SOURCE`` to this folder, and its name to the list.
"""

from __future__ import annotations

from collections.abc import Generator
from importlib import import_module

from bench.harness import Options, Round, Say, Scenario
from bench.intake.source import Source
from engine.metrics.prometheus import configure_logging

NAMES = ("pull", "timer", "obs", "dis", "lts", "kafka", "rabbitmq", "dds", "smn", "cts", "eventgrid", "webhook", "apig")
SOURCES: dict[str, Source] = {name: import_module(f"bench.intake.{name}").SOURCE for name in NAMES}
ABSENT = {name: why for name, source in SOURCES.items() if (why := source.absent())}


def rounds(options: Options, say: Say) -> Generator[Round, None, None]:
    configure_logging("console", "error")
    while True:
        found: Round = {}
        for name, source in SOURCES.items():
            if name not in ABSENT:
                say(f"intake: {source.what}")
                found |= source.measure(options)
        yield found


SCENARIO = Scenario(
    name="intake",
    title="events of sources, about 200 bytes each, from the source to disk",
    figures=tuple(figure for source in SOURCES.values() for figure in source.figures),
    rounds=rounds,
    note="; ".join(
        (
            "pull: made up, so many in a batch",
            "dis, kafka, rabbitmq, dds: messages or changes, 100 in an event; lts: lines, 75 KB in an event",
            "what is posted: 64 connections",
            *(f"{name} is left out: {why}" for name, why in ABSENT.items()),
        )
    ),
)
