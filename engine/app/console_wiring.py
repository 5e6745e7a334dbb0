"""Construction of the console and of its pages."""

from __future__ import annotations

from collections.abc import Callable

from engine import __version__
from engine.app.collectors import read_figures
from engine.app.parts import EngineParts
from engine.http.api.health import HealthChecks
from engine.http.api.routing import Call
from engine.http.console.api_requests import ApiRequests
from engine.http.console.asynchronous.form import DestinationForms
from engine.http.console.asynchronous.page import AsyncSettingsPage, StatusLinesPage
from engine.http.console.configuration.basics import BasicsPage
from engine.http.console.configuration.concurrency import ConcurrencyPage
from engine.http.console.configuration.reserved import ReservedPages
from engine.http.console.configuration.rows import EnvironmentPage, TagsPage
from engine.http.console.configuration.versions import AliasPages, VersionsPage
from engine.http.console.deliveries import DeliveriesPage, Destinations
from engine.http.console.docs import DocsPage
from engine.http.console.functions.code import CodePage
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.functions.listing import CreationPage, FunctionLoad, FunctionsPage, RemovalPage
from engine.http.console.functions.logs import FunctionLogs
from engine.http.console.functions.monitoring import MonitoringPage
from engine.http.console.functions.trials import TrialPage
from engine.http.console.invocations.details import InvocationDetails
from engine.http.console.invocations.filters import Filters, InvocationTriggers
from engine.http.console.invocations.listing import InvocationLists
from engine.http.console.invocations.many import ManyInvocations
from engine.http.console.invocations.record import InvocationPage
from engine.http.console.live import LiveEvents
from engine.http.console.nodes import NodesPage
from engine.http.console.overview.concerns import ProjectConcerns
from engine.http.console.overview.page import OverviewPage
from engine.http.console.pages import PageFamily, Pages
from engine.http.console.queues import QueueRows, QueuesPage
from engine.http.console.session.sessions import SESSION, FormTokens
from engine.http.console.session.sign_in import SignIn
from engine.http.console.site import Console
from engine.http.console.triggers.forms import TriggerRows
from engine.http.console.triggers.gateway import GatewayPages
from engine.http.console.triggers.pages import FunctionTriggersPages, TriggersPage
from engine.pipeline.redrive import SOURCE
from engine.protocols.calls import CALL
from engine.runtimes.interpreters import Interpreters


def build_console(engine: EngineParts, health: HealthChecks, api: ApiRequests) -> Console:
    tokens, sessions = FormTokens(engine.sessions.form_key), engine.sessions
    credentials = engine.authenticator is not None
    nodes = engine.pool.nodes is not None
    pages = Pages(engine.catalog, engine.clock, __version__, tokens, sessions, credentials=credentials, nodes=nodes)
    frame = FunctionFrame(pages, api, engine.catalog, engine.controls, engine.settings.http.region)
    families: list[PageFamily] = [
        _overview_page(engine, pages, health, api),
        *_function_pages(engine, pages, frame, api),
        *_configuration_pages(engine, frame),
        *_invocation_pages(engine, pages, frame),
        _queues_page(engine, pages),
        *_trigger_pages(engine, pages, frame, api),
        _deliveries_page(engine, pages, api),
        NodesPage(pages, api),
        DocsPage(pages),
        _live_events(engine),
    ]
    cookie = session_cookie(engine)
    sign_in = SignIn(pages, tokens, sessions, engine.authenticator, cookie, engine.audit, engine.clock)
    return Console(pages, tokens, sign_in, families)


def session_cookie(engine: EngineParts) -> str:
    """Return the name of the cookie with the id of a session, which no other engine and no other port has."""
    return f"functiond_session_{engine.settings.http.port}_{engine.storage.identity.name}"


def _overview_page(engine: EngineParts, pages: Pages, health: HealthChecks, api: ApiRequests) -> OverviewPage:
    concerns = ProjectConcerns(
        catalog=engine.catalog,
        controls=engine.controls,
        usage=engine.usage,
        triggers=engine.resources.triggers,
        sources=engine.sources,
        destinations=engine.delivery,
        deliveries=engine.failed_deliveries,
        backlog=engine.backlog,
        scheduler=engine.scheduler,
        clock=engine.clock,
    )
    return OverviewPage(pages, engine.catalog, health, lambda: read_figures(engine), engine.usage, concerns, api)


def _function_pages(engine: EngineParts, pages: Pages, frame: FunctionFrame, api: ApiRequests) -> list[PageFamily]:
    catalog, resources, storage = engine.catalog, engine.resources, engine.storage
    region = engine.settings.http.region
    interpreters = Interpreters(python=engine.settings.executor.python, node=engine.settings.executor.node)
    load = FunctionLoad(engine.backlog, engine.scheduler, engine.pool.alive)
    logs = FunctionLogs(frame, storage.records, storage.identity, engine.pool, engine.logs, _validity(engine))
    engine.intake.closed.connect(logs.stop)
    return [
        FunctionsPage(pages, catalog, engine.controls, engine.usage, resources.triggers, load, region),
        CreationPage(pages, api, engine.pool.check_runtime),
        CodePage(frame, engine.codes, resources.dependencies, interpreters.find),
        TrialPage(frame, resources.events, resources.triggers, engine.logs),
        RemovalPage(frame, catalog, resources.triggers, load),
        logs,
        MonitoringPage(frame, engine.function_metrics, engine.clock),
    ]


def _configuration_pages(engine: EngineParts, frame: FunctionFrame) -> list[PageFamily]:
    catalog, resources, settings = engine.catalog, engine.resources, engine.settings
    kinds = DestinationForms(engine.registry, engine.plugins.context_for)
    return [
        BasicsPage(frame, settings.executor.max_timeout, settings.executor.folders),
        EnvironmentPage(frame),
        ConcurrencyPage(frame, engine.controls),
        VersionsPage(frame, catalog),
        AliasPages(frame, catalog),
        TagsPage(frame, resources.tags),
        ReservedPages(frame, resources.reservations),
        AsyncSettingsPage(frame, catalog, kinds, settings.retry),
        StatusLinesPage(frame, catalog),
    ]


def _invocation_pages(engine: EngineParts, pages: Pages, frame: FunctionFrame) -> list[PageFamily]:
    catalog, storage = engine.catalog, engine.storage
    filters = Filters(catalog, storage.identity, engine.clock.now, engine.settings.http.region)
    triggers = InvocationTriggers(engine.resources.triggers)
    api, calls = engine.deliveries_api, storage.calls
    details = InvocationDetails(
        catalog, storage.records, storage.identity, engine.pool, storage.outbox, api, triggers, calls
    )
    sources = {"API", CALL, "FunctionGraph", SOURCE, *engine.resources.triggers.kinds}
    return [
        InvocationLists(pages, frame, catalog, storage.records, filters, sources, triggers),
        InvocationPage(pages, frame, catalog, details),
        ManyInvocations(pages, frame, catalog, storage.records, filters),
    ]


def _queues_page(engine: EngineParts, pages: Pages) -> QueuesPage:
    storage, scheduler = engine.storage, engine.scheduler
    rows = QueueRows(
        engine.catalog,
        engine.controls,
        engine.backlog,
        scheduler,
        engine.explainer,
        storage.records,
        storage.identity,
        engine.dispatcher.running,
    )
    return QueuesPage(pages, rows, engine.backlog, scheduler.statistics)


def _trigger_pages(engine: EngineParts, pages: Pages, frame: FunctionFrame, api: ApiRequests) -> list[PageFamily]:
    catalog, region, triggers = engine.catalog, engine.settings.http.region, engine.resources.triggers
    rows = TriggerRows(engine.triggers_api)
    return [
        TriggersPage(pages, catalog, triggers, engine.sources, rows, region),
        FunctionTriggersPages(frame, triggers, rows),
        GatewayPages(pages, api, triggers, rows),
    ]


def _deliveries_page(engine: EngineParts, pages: Pages, api: ApiRequests) -> DeliveriesPage:
    deliveries = engine.failed_deliveries
    destinations = Destinations(engine.catalog, engine.delivery, deliveries, engine.settings.http.region)
    return DeliveriesPage(pages, deliveries, destinations, api, engine.deliveries_api)


def _live_events(engine: EngineParts) -> LiveEvents:
    """Return the events that tell pages of changes, connected to the signals of the components that pages show."""
    live = LiveEvents(_validity(engine), engine.logs, engine.audit, engine.lag)
    engine.intake.accepted.connect(live.note_change)
    engine.intake.refused.connect(live.note_change)
    engine.intake.closed.connect(live.stop)
    engine.dispatcher.attempt_ended.connect(live.note_change)
    engine.ends.end_stored.connect(live.note_change)
    engine.ends.waiting_ended.connect(live.note_change)
    engine.delivery.begun.connect(live.note_change)
    engine.delivery.tried.connect(live.note_change)
    engine.catalog.changed.connect(live.note_change)
    engine.catalog.settings_changed.connect(live.note_change)
    engine.controls.changed.connect(live.note_change)
    engine.resources.triggers.changed.connect(live.note_change)
    return live


def _validity(engine: EngineParts) -> Callable[[Call], bool]:
    """Return a function that tells whether the credentials of a request are still accepted, with the same rights."""

    def is_valid(call: Call) -> bool:
        if engine.authenticator is None or call.principal is None:
            return True
        principals, session_id = engine.authenticator.principals, call.scope.get(SESSION)
        present = principals.named(call.principal.name)
        if session_id:
            present = engine.sessions.find(session_id, principals)
        return present == call.principal and engine.clock.now() < call.principal.expires

    return is_valid
