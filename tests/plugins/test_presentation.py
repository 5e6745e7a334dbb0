"""Forms, texts and examples of events for the built-in kinds of triggers and destinations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import bson
import msgspec
import pytest
from bson import json_util

from engine import Plugin
from engine.config.plugin_registry import Registry, load_plugins
from engine.http.console.forms import Form
from engine.http.console.struct_forms import fields_of, flat, read_struct, shown_values
from plugins.dds import DOCUMENT, TOKEN
from plugins.dds import example as dds_example
from plugins.dds.records import EventEncoder, change_of
from plugins.timer import next_due
from plugins.timer.options import TimerOptions, TimerSettings
from tests.acceptance.triggering import GOOD

PLUGINS = load_plugins()
DATA = {**GOOD, "WEBHOOK": {"name": "pushes", "secret": "sixteen-characters-or-more"}}
NOON = 1_772_366_400.0  # 2026-03-01 12:00 UTC


def kinds() -> Iterator[tuple[str, Plugin]]:
    for plugin in PLUGINS:
        if plugin.options is not None:
            yield from ((kind, plugin) for kind in plugin.kinds)


@pytest.mark.parametrize(("kind", "plugin"), [pytest.param(*pair, id=pair[0]) for pair in kinds()])
def test_each_kind_of_triggers_is_described(kind: str, plugin: Plugin) -> None:
    options = msgspec.convert(DATA[kind], plugin.options)

    assert plugin.display.about[kind].endswith(".")
    assert plugin.display.subject is not None
    assert plugin.display.subject(options)


@pytest.mark.parametrize(("kind", "plugin"), [pytest.param(*pair, id=pair[0]) for pair in kinds()])
def test_a_form_that_is_sent_unchanged_changes_nothing(kind: str, plugin: Plugin) -> None:
    assert plugin.options is not None
    fields, data = fields_of(plugin.options, "event_data."), DATA[kind]
    secrets = {field.name for field in flat(fields) if field.control == "secret"}
    shown = {name: text for name, text in shown_values(fields, data).items() if name not in secrets}
    flags = {field.name for field in flat(fields) if field.control == "flag"}
    sent = Form([(name, text) for name, text in shown.items() if name not in flags or text == "true"])

    struct = read_struct(fields, sent, data)

    assert struct == {key: "******" if f"event_data.{key}" in secrets else value for key, value in data.items()}


@pytest.mark.parametrize(
    "plugin", [plugin for plugin in PLUGINS if plugin.param is not None], ids=lambda plugin: plugin.kinds[0]
)
def test_parameters_of_destinations_have_controls(plugin: Plugin) -> None:
    assert plugin.param is not None
    fields: Any = fields_of(plugin.param)

    assert fields
    assert not [field.name for field in flat(fields) if field.control == "json" or field.fixed]


@pytest.mark.parametrize(
    ("kind", "schedule", "seconds"),
    [("Rate", "15m", 870), ("Cron", "0 0 13 * * *", 3600)],
)
def test_the_next_run_of_a_timer(kind: Any, schedule: str, seconds: float) -> None:
    options = TimerOptions(name="t", schedule_type=kind, schedule=schedule)

    due = next_due(options, TimerSettings(), NOON - 30, NOON)

    assert due is not None
    assert (due.timestamp() - NOON, str(due.tzinfo)) == (seconds, "UTC")


REGISTRY = Registry(load_plugins())


@pytest.mark.parametrize("kind", REGISTRY.triggers)
def test_each_kind_with_a_source_has_an_example(kind: str) -> None:
    plugin = REGISTRY.trigger(kind)
    assert plugin is not None
    assert (plugin.example is None) == (plugin.trigger is None)
    if plugin.example is not None:
        assert isinstance(json.loads(plugin.example(kind)), dict)


@pytest.mark.parametrize("kind", ["DDS", "GAUSSMONGO"])
def test_the_example_of_a_document_database_equals_an_event_of_the_source(kind: str) -> None:
    document = {
        "_id": json.loads(TOKEN),
        "operationType": "insert",
        "fullDocument": json_util.loads(DOCUMENT),
        "ns": {"db": "shop", "coll": "orders"},
    }
    source_id = "9a0364b9-e99b-480d-d25e-1f0284c85555"
    encoder = EventEncoder(
        kind=kind, region="local-1", source_id=source_id, database="shop", collection="orders", limit=10_000
    )
    made = json.loads(encoder.events([change_of(bson.encode(document))])[0].payload)

    assert json.loads(dds_example(kind)) == made
