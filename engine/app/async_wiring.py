"""Construction of the console's pages of asynchronous settings and of deliveries."""

from __future__ import annotations

from engine.app.api_parts import deliveries_api, failed_deliveries
from engine.app.parts import EngineParts
from engine.http.console.api_requests import ApiRequests
from engine.http.console.asynchronous.destination_forms import DestinationForms
from engine.http.console.asynchronous.settings_page import AsyncSettingsPage
from engine.http.console.asynchronous.status_lines_page import StatusLinesPage
from engine.http.console.deliveries.bulk import DeliveriesBulk
from engine.http.console.deliveries.destination_rows import DestinationRows
from engine.http.console.deliveries.page import DeliveriesPage
from engine.http.console.deliveries.scope import ScopeReader
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.pages import PageFamily, Pages


def async_settings_pages(engine: EngineParts, frame: FunctionFrame, api: ApiRequests) -> list[PageFamily]:
    kinds = DestinationForms(engine.registry, engine.plugins.context_for)
    return [
        AsyncSettingsPage(frame, api, engine.catalog, kinds, engine.settings.retry),
        StatusLinesPage(frame, api, engine.catalog, engine.settings.http.region),
    ]


def deliveries_pages(engine: EngineParts, pages: Pages, api: ApiRequests) -> list[PageFamily]:
    region, deliveries, items = engine.settings.http.region, failed_deliveries(engine), deliveries_api(engine)
    rows = DestinationRows(engine.catalog, engine.delivery)
    scopes = ScopeReader(engine.catalog, deliveries, rows, region)
    return [
        DeliveriesPage(pages, deliveries, scopes, rows, api, items),
        DeliveriesBulk(pages, deliveries, scopes, api, items),
    ]
