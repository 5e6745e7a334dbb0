"""Pages of a function's versions: asynchronous settings, and the status log of their invocations, newest first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.asgi.wire import Reply
from engine.config.settings import RetrySettings
from engine.errors import FunctiondError, NoAsyncSettings
from engine.functions.catalog import Catalog
from engine.http.api.routing import Call
from engine.http.console.asynchronous.form import (
    CONDITIONS,
    LOG,
    AsyncSettingsForm,
    DestinationForms,
    Settings,
    Shown,
    changed_order,
    is_unchanged,
    rule_fields,
    simple_fields,
    stored,
)
from engine.http.console.configuration.forms import CHANGED, digest_of, is_stale
from engine.http.console.forms import WHOLE, Form, errors_of
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.pages import PageFamily, get, post, see_other
from engine.http.console.paths import ASYNC_SETTINGS, path_of
from engine.http.console.struct_forms import lost_secrets, missing_values
from engine.logs.target import LogTarget, status_log_target_of
from engine.model import Function, State
from engine.model.retry_rules import MAX_RULES
from engine.pipeline.status_log import SEQ_STATUS

ROWS = 50
LATEST_TIME = 4_000_000_000_000  #: milliseconds
_STATES = {number: state for state, number in SEQ_STATUS.items()}
TAB = "configuration/asynchronous"
PATH = f"/{TAB}"


class AsyncSettingsPage(PageFamily):
    """Page of the settings, for each version. ``defaults`` are the engine's retries for functions without settings."""

    def __init__(
        self, frame: FunctionFrame, catalog: Catalog, kinds: DestinationForms, defaults: RetrySettings
    ) -> None:
        self._frame, self._catalog, self._defaults = frame, catalog, defaults
        self._kinds, self._form = kinds, AsyncSettingsForm(kinds)

    @get("ConsoleAsyncSettings", ASYNC_SETTINGS)
    async def show(self, call: Call) -> Reply:
        version = self._version(call)
        settings = await self._settings(call, version)
        return await self._show(call, version, settings, self._form.shown(settings))

    @post("ConsoleSaveAsyncSettings", ASYNC_SETTINGS)
    async def save(self, call: Call, form: Form) -> Reply:
        """Store the settings, or change the number or order of the rules in the form, which stores nothing."""
        version = self._version(call)
        settings = await self._settings(call, version)
        shown = self._form.typed(form, settings)
        fields = self._kinds.fields(shown.kinds)
        lost = lost_secrets(fields, form)
        if change := form.text("rules"):
            shown = replace(shown, rules=changed_order(shown.rules, change))
            return await self._show(call, version, settings, shown, lost, seen=form.text("seen"))
        if is_stale(form, settings):
            return await self._show(call, version, settings, shown, {**lost, WHOLE: CHANGED})
        if missing := missing_values(fields, form):
            return await self._show(call, version, settings, shown, {**lost, **missing})
        body = self._form.body(form, settings)
        if is_unchanged(body, settings, shown):
            return see_other(self._page_of(version), "Nothing was changed.")
        try:
            await self._frame.send(call, "PUT", version, _api_part(version), body)
        except FunctiondError as error:
            return await self._show(call, version, settings, shown, {**lost, **self._form.errors(error, shown)})
        return see_other(self._page_of(version), "Saved. The settings hold for the next attempts and outcomes.")

    @post("ConsoleRemoveAsyncSettings", f"{ASYNC_SETTINGS}/remove")
    async def remove(self, call: Call, form: Form) -> Reply:
        version = self._version(call)
        await self._frame.send(call, "DELETE", version, _api_part(version))
        return see_other(self._page_of(version), f"The settings of {version.version} are removed.")

    # --- inside ---------------------------------------------------------------------------------------------

    async def _show(
        self,
        call: Call,
        version: Function,
        settings: Settings | None,
        shown: Shown,
        errors: Mapping[str, str] | None = None,
        *,
        seen: str = "",
    ) -> Reply:
        stored_now = self._catalog.settings_of(version.function_id, version.version)
        return await self._frame.show(
            call,
            "functions/asynchronous.html",
            tab=TAB,
            http_status=400 if errors else 200,
            viewed=version,
            versions=self._versions(version),
            aliases=self._catalog.aliases(version.function_id),
            alias=call.text("alias"),
            settings=settings,
            fields=simple_fields(version.project),
            log_fields=LOG,
            log_open=any(shown.values[name] for name in LOG),
            shown=shown,
            rule_fields=rule_fields(self._defaults),
            most_rules=MAX_RULES,
            kinds={condition: self._kinds.kinds(condition, stored(settings, condition)) for condition in CONDITIONS},
            target=status_log_target_of(version.project, settings or {}),
            defaults=self._defaults,
            errors=self._kinds.unknown(stored_now, version.project) if errors is None else errors,
            refused=bool(errors),
            seen=seen or digest_of(settings),
        )

    def _version(self, call: Call) -> Function:
        """Return the version that the query names: ``qualifier`` is a version, ``alias`` an alias of it."""
        name, latest = call.text("alias"), self._frame.version_of(call)
        alias = next((alias for alias in self._catalog.aliases(latest.function_id) if alias.name == name), None)
        named = self._catalog.resolve(latest.function_id, alias.version) if alias is not None else None
        return named or latest

    def _versions(self, version: Function) -> list[tuple[str, bool]]:
        """Return the versions of the function, ``latest`` first, each with whether it has settings."""
        latest, *published = (function.version for function in self._catalog.versions(version.function_id))
        function_id = version.function_id
        return [(name, self._catalog.settings_of(function_id, name) is not None) for name in (latest, *published[::-1])]

    async def _settings(self, call: Call, version: Function) -> Settings | None:
        """Return the stored settings as the API shows them to the reader; None: the version has none."""
        try:
            reply = await self._frame.send(call, "GET", version, _api_part(version))
        except NoAsyncSettings:
            return None
        return reply.read(dict[str, Any])

    def _page_of(self, version: Function) -> str:
        query = "" if version.version == "latest" else f"?qualifier={quote(version.version, safe='')}"
        return path_of(version, f"{PATH}{query}")


def _api_part(version: Function) -> str:
    return f":{quote(version.version, safe='')}/async-invoke-config"


class StatusLine(Struct, frozen=True, kw_only=True):
    function_urn: str
    request_id: str
    seq_status: int
    operation_timestamp: int  #: milliseconds
    error_code: int = 0
    error_message: str = ""

    @property
    def state(self) -> State | None:
        return _STATES.get(self.seq_status)


class FoundLine(Struct, frozen=True, kw_only=True):
    content: str
    line_num: str


class FoundLines(Struct, frozen=True, kw_only=True):
    """Reply of the log service."""

    logs: list[FoundLine]
    isQueryComplete: bool  # noqa: N815  (the service's spelling)
    next_line_num: str


class StatusLinesPage(PageFamily):
    def __init__(self, frame: FunctionFrame, catalog: Catalog) -> None:
        self._frame, self._catalog = frame, catalog

    @get("ConsoleStatusLog", f"{ASYNC_SETTINGS}/status-log")
    async def show(self, call: Call) -> Reply:
        version, before = self._frame.version_of(call), call.text("before")
        settings = self._catalog.settings_of(version.function_id, version.version)
        target = status_log_target_of(version.project, settings.details if settings else {})
        found, problem = await self._lines(call, version, target, before)
        return await self._frame.show(
            call,
            "functions/status_log.html",
            tab=TAB,
            live=not before,
            viewed=version,
            target=target,
            enabled=settings is not None and settings.status_log,
            lines=[line for log in found.logs if (line := _read(log.content))],
            before=before,
            next_before="" if found.isQueryComplete else found.next_line_num,
            problem=problem,
        )

    async def _lines(self, call: Call, version: Function, target: LogTarget, before: str) -> tuple[FoundLines, str]:
        """Return a page of lines, and why there is none; empty: there is one."""
        parts = (call.project, "groups", target.group_id, "streams", target.stream_id, "content", "query")
        body = {
            "start_time": 0,
            "end_time": LATEST_TIME,
            "is_desc": True,
            "limit": ROWS,
            "keywords": str(version.urn(self._frame.region)),
            **({"line_num": before} if before else {}),
        }
        try:
            path = "/v2/" + "/".join(quote(part, safe="") for part in parts)
            reply = await self._frame.api.send(call, "POST", path, body)
        except FunctiondError as error:
            return FoundLines(logs=[], isQueryComplete=True, next_line_num=""), errors_of(error).get(WHOLE, str(error))
        return reply.read(FoundLines), ""


def _read(content: str) -> StatusLine | None:
    """Return the line in a text; None if other programs have written it."""
    try:
        return msgspec.json.decode(content, type=StatusLine)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
