"""Families of API operations whose replies the console shows too, and parts that both use."""

from __future__ import annotations

from engine.app.parts import EngineParts
from engine.http.api.redrive import RedriveApi
from engine.http.api.triggers import TriggersApi
from engine.pipeline.failed_deliveries import FailedDeliveries


def redrive_api(engine: EngineParts) -> RedriveApi:
    region = engine.settings.http.region
    return RedriveApi(engine.redrive, engine.catalog, engine.storage.identity, engine.clock, region)


def failed_deliveries(engine: EngineParts) -> FailedDeliveries:
    return FailedDeliveries(engine.storage.outbox, engine.catalog, engine.redrive)


def triggers_api(engine: EngineParts) -> TriggersApi:
    return TriggersApi(engine.resources.triggers, engine.sources, engine.plugins, engine.storage.cursors)
