"""Construction of the console's pages of asynchronous settings and of deliveries."""

from __future__ import annotations

from engine.app.parts import EngineParts
from engine.http.console.api_requests import ApiRequests
from engine.http.console.asynchronous.destination_forms import DestinationForms
from engine.http.console.asynchronous.settings_page import AsyncSettingsPage
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.pages import PageFamily


def async_settings_page(engine: EngineParts, frame: FunctionFrame, api: ApiRequests) -> PageFamily:
    return AsyncSettingsPage(frame, api, engine.catalog, DestinationForms(engine.registry), engine.settings.retry)
