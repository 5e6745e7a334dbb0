"""Construction of the console's overview, its charts, and its events."""

from __future__ import annotations

from collections.abc import Callable

from engine.app.collectors import read_figures
from engine.app.parts import EngineParts
from engine.http.api.health import HealthChecks
from engine.http.api.routing import Call
from engine.http.console.api_requests import ApiRequests
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.live import LiveEvents
from engine.http.console.monitoring import MonitoringPage
from engine.http.console.overview import OverviewPage
from engine.http.console.pages import Pages
from engine.http.console.project_concerns import ProjectConcerns


def overview_page(engine: EngineParts, pages: Pages, health: HealthChecks, api: ApiRequests) -> OverviewPage:
    concerns = ProjectConcerns(
        catalog=engine.catalog,
        controls=engine.controls,
        usage=engine.usage,
        triggers=engine.resources.triggers,
        sources=engine.sources,
        destinations=engine.delivery,
        redrive=engine.redrive,
        backlog=engine.backlog,
        scheduler=engine.scheduler,
        clock=engine.clock,
    )
    return OverviewPage(pages, engine.catalog, health, lambda: read_figures(engine), engine.samples, concerns, api)


def live_events(engine: EngineParts, is_valid: Callable[[Call], bool]) -> LiveEvents:
    """Return the events that tell pages of changes, connected to the signals of the components that pages show."""
    live, dispatcher = LiveEvents(is_valid, engine.logs, engine.audit, engine.lag), engine.dispatcher
    engine.intake.accepted.connect(live.note_change)
    engine.intake.refused.connect(live.note_change)
    engine.intake.closed.connect(live.stop)
    dispatcher.attempt_ended.connect(live.note_change)
    dispatcher.end_stored.connect(live.note_change)
    dispatcher.waiting_cancelled.connect(live.note_change)
    dispatcher.bulk_cancellation.ended.connect(live.note_change)
    engine.delivery.begun.connect(live.note_change)
    engine.delivery.tried.connect(live.note_change)
    engine.catalog.changed.connect(live.note_change)
    engine.catalog.settings_changed.connect(live.note_change)
    engine.controls.changed.connect(live.note_change)
    engine.resources.triggers.changed.connect(live.note_change)
    return live


def monitoring_page(engine: EngineParts, frame: FunctionFrame, api: ApiRequests) -> MonitoringPage:
    return MonitoringPage(frame, api, engine.function_metrics, engine.clock)
