"""Examples of events: each kind with a source has one, as its triggers make it."""

from __future__ import annotations

import json

import bson
import pytest
from bson import json_util

from engine.config.plugin_registry import Registry, load_plugins
from plugins.dds import DOCUMENT, TOKEN
from plugins.dds import example as dds_example
from plugins.dds.records import EventEncoder, change_of

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
