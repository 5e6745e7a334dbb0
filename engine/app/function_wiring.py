"""Construction of the console's pages that list, create, test and delete functions, and show their code."""

from __future__ import annotations

from engine.app.parts import EngineParts
from engine.http.console.api_requests import ApiRequests
from engine.http.console.function_actions import FunctionActions
from engine.http.console.function_code import CodePage
from engine.http.console.function_creation import CreationPage
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.function_load import FunctionLoad
from engine.http.console.function_removal import RemovalPage
from engine.http.console.function_trials import TrialPage
from engine.http.console.functions import FunctionsPage
from engine.http.console.pages import PageFamily, Pages
from engine.runtimes.interpreters import Interpreters


def function_pages(engine: EngineParts, pages: Pages, frame: FunctionFrame, api: ApiRequests) -> list[PageFamily]:
    catalog, resources, region = engine.catalog, engine.resources, engine.settings.http.region
    interpreters = Interpreters(python=engine.settings.executor.python, node=engine.settings.executor.node)
    code = CodePage(frame, api, engine.codes, resources.dependencies, interpreters.find)
    load = FunctionLoad(engine.backlog, engine.scheduler, engine.pool.alive)
    return [
        FunctionsPage(pages, catalog, engine.controls, engine.usage, resources.triggers, load, region),
        CreationPage(pages, api, engine.pool.check_runtime),
        code,
        FunctionActions(frame, api, code.show),
        TrialPage(frame, api, resources.events, resources.triggers, engine.logs, region),
        RemovalPage(frame, api, catalog, resources.triggers, load),
    ]
