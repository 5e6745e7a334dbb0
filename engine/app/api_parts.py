"""Construction of the API's handlers whose replies the console shows too, and of parts that both use."""

from __future__ import annotations

from engine.app.parts import EngineParts
from engine.http.api.deliveries import DeliveriesApi
from engine.http.api.triggers import TriggersApi
from engine.pipeline.failed_deliveries import FailedDeliveries


def deliveries_api(engine: EngineParts) -> DeliveriesApi:
    failed, region = failed_deliveries(engine), engine.settings.http.region
    return DeliveriesApi(failed, engine.delivery, engine.catalog, engine.storage.identity, region)


def failed_deliveries(engine: EngineParts) -> FailedDeliveries:
    return FailedDeliveries(engine.storage.outbox, engine.catalog, engine.delivery, engine.clock)


def triggers_api(engine: EngineParts) -> TriggersApi:
    return TriggersApi(engine.resources.triggers, engine.sources, engine.plugins, engine.storage.cursors)
