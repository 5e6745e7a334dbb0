"""Construction of the console's pages of a function's configuration, except triggers and asynchronous settings."""

from __future__ import annotations

from engine.app.parts import EngineParts
from engine.http.console.api_requests import ApiRequests
from engine.http.console.configuration.aliases import AliasPages
from engine.http.console.configuration.basics import BasicsPage
from engine.http.console.configuration.concurrency import ConcurrencyPage
from engine.http.console.configuration.environment import EnvironmentPage
from engine.http.console.configuration.reserved import ReservedPages
from engine.http.console.configuration.tags import TagsPage
from engine.http.console.configuration.versions import VersionsPage
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.pages import PageFamily


def configuration_pages(engine: EngineParts, frame: FunctionFrame, api: ApiRequests) -> list[PageFamily]:
    return [
        BasicsPage(frame, api, engine.settings.executor.max_timeout),
        EnvironmentPage(frame, api),
        ConcurrencyPage(frame, api, engine.controls),
        VersionsPage(frame, api, engine.catalog),
        AliasPages(frame, api, engine.catalog),
        TagsPage(frame, api, engine.resources.tags),
        ReservedPages(frame, api, engine.catalog, engine.resources.reservations),
    ]
