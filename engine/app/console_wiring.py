"""Construction of the console and of its pages."""

from __future__ import annotations

from collections.abc import Callable

from engine import __version__
from engine.app.api_parts import deliveries_api, triggers_api
from engine.app.async_wiring import async_settings_pages, deliveries_pages
from engine.app.configuration_wiring import configuration_pages
from engine.app.function_wiring import function_pages
from engine.app.overview_wiring import live_events, monitoring_page, overview_page
from engine.app.parts import EngineParts
from engine.http.api.health import HealthChecks
from engine.http.api.routing import Call
from engine.http.console.api_requests import ApiRequests
from engine.http.console.form_tokens import FormTokens
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.function_logs import FunctionLogs
from engine.http.console.invocations.bulk_steps import BulkSteps
from engine.http.console.invocations.details import InvocationDetails
from engine.http.console.invocations.filters import Filters
from engine.http.console.invocations.listing import InvocationLists
from engine.http.console.invocations.many import ManyInvocations
from engine.http.console.invocations.record import InvocationPage
from engine.http.console.invocations.triggers import InvocationTriggers
from engine.http.console.pages import PageFamily, Pages
from engine.http.console.queue_purge import QueuePurge
from engine.http.console.queue_rows import QueueRows
from engine.http.console.queues import QueuesPage
from engine.http.console.sessions import SESSION
from engine.http.console.sign_in import SignIn
from engine.http.console.site import Console
from engine.http.console.triggers.function import FunctionTriggersPages
from engine.http.console.triggers.gateway import GatewayPages
from engine.http.console.triggers.project import TriggersPage
from engine.http.console.triggers.rows import TriggerRows
from engine.http.console.triggers.trigger import TriggerPage
from engine.pipeline.explanation import Explainer
from engine.pipeline.redrive import SOURCE


def build_console(engine: EngineParts, health: HealthChecks, api: ApiRequests) -> Console:
    catalog = engine.catalog
    tokens, sessions = FormTokens(engine.sessions.form_key), engine.sessions
    credentials = engine.authenticator is not None
    pages = Pages(catalog, engine.clock, __version__, tokens, sessions, credentials=credentials)
    families: list[PageFamily] = [
        overview_page(engine, pages, health, api),
        *_invocation_pages(engine, pages, api),
        *_queue_pages(engine, pages, api),
        *_trigger_pages(engine, pages, api),
        *deliveries_pages(engine, pages, api),
        *_function_pages(engine, pages, api),
        live_events(engine, _validity(engine)),
    ]
    return Console(pages, tokens, _sign_in(engine, pages, tokens), families)


def session_cookie(engine: EngineParts) -> str:
    """Return the name of the cookie with the id of a session, which no other engine and no other port has."""
    return f"functiond_session_{engine.settings.http.port}_{engine.storage.identity.name}"


def _sign_in(engine: EngineParts, pages: Pages, tokens: FormTokens) -> SignIn:
    cookie = session_cookie(engine)
    return SignIn(pages, tokens, engine.sessions, engine.authenticator, cookie, engine.audit, engine.clock)


def _invocation_pages(engine: EngineParts, pages: Pages, api: ApiRequests) -> list[PageFamily]:
    catalog, storage, region = engine.catalog, engine.storage, engine.settings.http.region
    frame = FunctionFrame(pages, catalog, engine.controls, region)
    filters = Filters(catalog, storage.identity, engine.clock.now, region)
    triggers = InvocationTriggers(engine.resources.triggers)
    details = InvocationDetails(
        catalog, storage.records, storage.identity, engine.pool, engine.redrive, deliveries_api(engine), triggers
    )
    steps = BulkSteps(catalog, storage.records, filters, api)
    sources = {"API", "FunctionGraph", SOURCE, *engine.resources.triggers.kinds}
    return [
        InvocationLists(pages, frame, catalog, storage.records, filters, sources, triggers),
        InvocationPage(pages, frame, catalog, details, api),
        ManyInvocations(pages, frame, storage.records, filters, steps),
    ]


def _queue_pages(engine: EngineParts, pages: Pages, api: ApiRequests) -> list[PageFamily]:
    frame = FunctionFrame(pages, engine.catalog, engine.controls, engine.settings.http.region)
    storage, scheduler = engine.storage, engine.scheduler
    rows = QueueRows(
        engine.catalog,
        engine.controls,
        engine.backlog,
        scheduler,
        Explainer(storage.records, scheduler, engine.clock, storage.identity),
        storage.records,
        storage.identity,
        engine.dispatcher.running,
    )
    return [
        QueuesPage(pages, rows, frame, api, engine.backlog, scheduler.statistics),
        QueuePurge(pages, rows, frame, api, storage.records, engine.clock),
    ]


def _function_pages(engine: EngineParts, pages: Pages, api: ApiRequests) -> list[PageFamily]:
    """Return the pages of one function."""
    frame = FunctionFrame(pages, engine.catalog, engine.controls, engine.settings.http.region)
    return [
        *function_pages(engine, pages, frame, api),
        *configuration_pages(engine, frame, api),
        *async_settings_pages(engine, frame, api),
        _function_logs(engine, frame),
        monitoring_page(engine, frame, api),
    ]


def _function_logs(engine: EngineParts, frame: FunctionFrame) -> FunctionLogs:
    storage = engine.storage
    logs = FunctionLogs(frame, storage.records, storage.identity, engine.pool, engine.logs, _validity(engine))
    engine.intake.closed.connect(logs.stop)
    return logs


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


def _trigger_pages(engine: EngineParts, pages: Pages, api: ApiRequests) -> list[PageFamily]:
    catalog, region, triggers = engine.catalog, engine.settings.http.region, engine.resources.triggers
    frame = FunctionFrame(pages, catalog, engine.controls, region)
    rows = TriggerRows(triggers_api(engine))
    return [
        TriggersPage(pages, catalog, triggers, engine.sources, rows, region),
        FunctionTriggersPages(frame, api, catalog, triggers, rows, region),
        TriggerPage(frame, api, triggers, rows),
        GatewayPages(pages, api, triggers, rows),
    ]
