"""Pages of a project's functions: the list with their load, creation, and deletion.

A function is created from a template of its runtime, from inline code, or from a zip package. It is deleted after its
reader has seen what goes with it and has typed its name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from msgspec import Struct

from engine.asgi.wire import Reply
from engine.code.default_code import default_code
from engine.code.store import INLINE_LIMIT, PACKAGE_LIMIT
from engine.errors import FunctiondError, InvalidField
from engine.functions.catalog import Catalog
from engine.functions.controls import FunctionControls
from engine.functions.function_rules import app_of
from engine.http.api.function_shapes import FunctionReply
from engine.http.api.paging import page_of
from engine.http.api.project_lists import CheckRuntime, problems_of_runtimes
from engine.http.api.routing import Call
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import WHOLE, Form, errors_of
from engine.http.console.functions.code import with_package, with_text
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.pages import ADMIN, PageFamily, Pages, get, post, see_other
from engine.http.console.paths import CREATE_FUNCTION, FUNCTION, PROJECT, path_of_name
from engine.http.console.struct_forms import number_of
from engine.metrics.usage import Usage
from engine.model import Alias, AsyncSettings, Function
from engine.model.controls import Controls
from engine.model.limits import MEMORY_SIZES, TIMEOUTS
from engine.model.urn import short_name
from engine.resources.triggers import Triggers
from engine.runtimes.catalog import ELSEWHERE, OFFERED, family_of, refusal_of, warning_of
from engine.scheduling.backlog import Backlog
from engine.scheduling.scheduler import Scheduler

DEFAULTS = {
    "package": "default",
    "runtime": "Python3.10",
    "handler": "index.handler",
    "memory_size": "128",
    "timeout": "30",
    "source": "inline",
}
_BOOTSTRAP = "bootstrap"  #: handler of a runtime that starts a program; it is not used
#: Fields whose errors stand beside another one.
_BESIDE = {"func_code": "code", "code_type": "code"}
ROWS = 100


class Load(Struct, frozen=True, kw_only=True):
    waiting: int  #: accepted invocations that do not run
    running: int  #: attempts, synchronous calls included
    instances: int


class FunctionLoad:
    """Load of each function. ``instances`` returns the number of live instances of functions."""

    def __init__(self, backlog: Backlog, scheduler: Scheduler, instances: Callable[[Collection[int]], int]) -> None:
        self._backlog, self._scheduler, self._instances = backlog, scheduler, instances

    def of(self, function_id: int) -> Load:
        running = self._scheduler.running(function_id)
        return Load(
            waiting=max(0, self._backlog.of(function_id)[0] - running),
            running=running,
            instances=self._instances([function_id]),
        )


class FunctionRow(Struct, frozen=True, kw_only=True):
    function: Function  #: version ``latest``
    urn: str
    app: str  #: to which it belongs; empty: to none
    controls: Controls
    versions: Sequence[str]  #: published versions
    aliases: Sequence[Alias]
    settings: AsyncSettings | None
    load: Load
    triggers: int
    failures: int  #: number of failed attempts in the last day
    warning: str  #: about its runtime; empty: none


class FunctionsPage(PageFamily):
    """Page of a project's functions: all, or those whose name contains ``name``, of an ``app``, or ``failing`` ones."""

    def __init__(
        self,
        pages: Pages,
        catalog: Catalog,
        controls: FunctionControls,
        usage: Usage,
        triggers: Triggers,
        load: FunctionLoad,
        region: str,
    ) -> None:
        self._pages, self._catalog, self._controls, self._usage = pages, catalog, controls, usage
        self._triggers, self._load, self._region = triggers, load, region

    @get("ConsoleFunctions", f"{PROJECT}/functions")
    async def show(self, call: Call) -> Reply:
        name, app = call.text("name").strip(), call.text("app")
        failures, failing = self._usage.sums("errors"), bool(call.text("failing"))
        functions = self._catalog.list(call.project, name_part=name, app=app or None)
        functions = [function for function in functions if failures.get(function.function_id)] if failing else functions
        page = page_of(call, functions, "limit", maximum=ROWS)
        triggers = Counter(trigger.function_id for trigger in self._triggers.in_project(call.project))
        rows = [
            self._row(function, triggers[function.function_id], failures.get(function.function_id, 0))
            for function in page.items
        ]
        shown: dict[str, Any] = {"page": page, "rows": rows, "limit": ROWS, "searched": name, "failing": failing}
        return await self._pages.show(call, "functions.html", app=app, **shown)

    def _row(self, function: Function, triggers: int, failures: int) -> FunctionRow:
        function_id = function.function_id
        return FunctionRow(
            function=function,
            urn=function.urn(self._region).function,
            app=app_of(function),
            controls=self._controls.of(function_id),
            versions=[version.version for version in self._catalog.versions(function_id)[1:]],
            aliases=self._catalog.aliases(function_id),
            settings=self._catalog.settings_of(function_id, function.version),
            load=self._load.of(function_id),
            triggers=triggers,
            failures=failures,
            warning=warning_of(function.runtime),
        )


class RuntimeChoice(Struct, frozen=True, kw_only=True):
    name: str
    label: str
    handler: str  #: default handler
    code: str  #: template of inline code
    problem: str = ""  #: reason why this engine cannot run it


class CreationPage(PageFamily):
    """Page with the form. ``check_runtime`` raises InvalidField if this machine cannot run a runtime."""

    def __init__(self, pages: Pages, api: ApiRequests, check_runtime: CheckRuntime) -> None:
        self._pages, self._api, self._check_runtime = pages, api, check_runtime

    @post("ConsoleMakeFunction", CREATE_FUNCTION)
    async def create(self, call: Call, form: Form) -> Reply:
        typed = {name: form.raw(name) for name in ("func_name", "description", "code", *DEFAULTS)}
        path = f"/v2/{call.project}/fgs/functions"
        try:
            reply = await self._api.send(call, "POST", path, _body(form))
        except FunctiondError as error:
            if form.file is not None:
                await form.file.discard()
            return await self._show(call, typed, _errors(error, typed["source"]))
        name = short_name(reply.read(FunctionReply).func_urn.rpartition(":")[0])
        page = path_of_name(call.project, name)
        return see_other(page, f"Created {name}.")

    @get("ConsoleCreateFunction", CREATE_FUNCTION, ADMIN)
    async def _show(
        self, call: Call, typed: Mapping[str, str] = DEFAULTS, errors: Mapping[str, str] | None = None
    ) -> Reply:
        choices = await self._choices()
        chosen = next((choice for choice in choices if choice.name == typed["runtime"]), choices[0])
        return await self._pages.show(
            call,
            "functions/create.html",
            typed={"func_name": "", "description": "", "code": chosen.code, **typed},
            errors=defaultdict(str, errors or {}),
            runtimes=[choice for choice in choices if not choice.problem],
            refused=_by_problem(choice for choice in choices if choice.problem),
            memory=[(str(size), f"{size:,} MB") for size in MEMORY_SIZES],
            timeouts=TIMEOUTS,
            inline_limit=INLINE_LIMIT,
            package_limit=PACKAGE_LIMIT,
        )

    async def _choices(self) -> list[RuntimeChoice]:
        """Return the runtimes of the catalog."""
        problems = await problems_of_runtimes(self._check_runtime)
        offered = [_choice(name, label, problems[name]) for name, label in OFFERED.items()]
        return [*offered, *(_choice(name, name, refusal_of(name)) for name in sorted(ELSEWHERE))]


def _choice(name: str, label: str, problem: str) -> RuntimeChoice:
    handler = _default_handler(name)
    code = "" if problem else default_code("inline", handler, name).decode()
    return RuntimeChoice(name=name, label=label, handler=handler, code=code, problem=problem)


def _default_handler(runtime: str) -> str:
    family = family_of(runtime)
    return DEFAULTS["handler"] if family is None or family.interpreted else _BOOTSTRAP


def _by_problem(choices: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for choice in choices:
        found.setdefault(choice.problem, []).append(choice.label)
    return found


def _body(form: Form) -> Any:
    """Return the body of CreateFunction. Raises InvalidField if the form lacks the package."""
    runtime = form.text("runtime")
    fields: dict[str, Any] = {
        "func_name": form.text("func_name"),
        "package": form.text("package") or DEFAULTS["package"],
        "runtime": runtime,
        "handler": form.text("handler") or _default_handler(runtime),
        "memory_size": number_of(form.text("memory_size")),
        "timeout": number_of(form.text("timeout")),
        "description": form.text("description"),
    }
    if form.text("source") == "zip":
        if form.file is None:
            raise InvalidField("file", None, "choose a zip file, or write inline code")
        return with_package({**fields, "code_filename": form.file.filename[:255]}, form.file.pieces)
    code = form.raw("code")
    return with_text(fields, "" if _is_template(code) else code)


def _is_template(code: str) -> bool:
    """Return whether the code is an unchanged template, for which the operation stores that of handler and runtime."""
    templates = (default_code("inline", _default_handler(name), name).decode() for name in OFFERED)
    return not code.strip() or any(code.strip() == template.strip() for template in templates)


def _errors(error: FunctiondError, source: str) -> dict[str, str]:
    errors = {_BESIDE.get(name, name): message for name, message in errors_of(error).items()}
    if source == "zip" and "code" in errors:
        errors["file"] = errors.pop("code")
    known = {"func_name", "description", "code", "file", WHOLE, *DEFAULTS}
    return {name if name in known else WHOLE: message for name, message in errors.items()}


class RemovalPage(PageFamily):
    def __init__(self, frame: FunctionFrame, catalog: Catalog, triggers: Triggers, load: FunctionLoad) -> None:
        self._frame, self._catalog, self._triggers, self._load = frame, catalog, triggers, load

    @post("ConsoleDeleteFunction", f"{FUNCTION}/delete")
    async def delete(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        try:
            if form.text("name") != function.name:
                raise InvalidField("name", form.text("name"), f"type {function.name} to confirm")
            await self._frame.send(call, "DELETE", function)
        except FunctiondError as error:
            return await self._show(call, form.text("name"), errors_of(error))
        return see_other(PROJECT.format(project_id=call.project) + "/functions", f"Deleted {function.name}.")

    @get("ConsoleFunctionRemoval", f"{FUNCTION}/delete", ADMIN)
    async def _show(self, call: Call, typed: str = "", errors: Mapping[str, str] | None = None) -> Reply:
        function_id = self._frame.function_of(call).function_id
        triggers = [
            trigger for trigger in self._triggers.in_project(call.project) if trigger.function_id == function_id
        ]
        return await self._frame.show(
            call,
            "functions/delete.html",
            tab="delete",
            triggers=triggers,
            versions=len(self._catalog.versions(function_id)) - 1,
            aliases=len(self._catalog.aliases(function_id)),
            load=self._load.of(function_id),
            typed=typed,
            errors=defaultdict(str, errors or {}),
        )
