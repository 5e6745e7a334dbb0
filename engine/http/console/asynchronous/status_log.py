"""Page of the status log of a version: the lines about states of its invocations, newest first."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
from msgspec import Struct

from engine.asgi.wire import Reply
from engine.errors import FunctiondError
from engine.functions.catalog import Catalog
from engine.http.api.routing import Call
from engine.http.console.forms import WHOLE, errors_of
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.pages import PageFamily, get
from engine.http.console.paths import ASYNC_SETTINGS
from engine.logs.target import LogTarget, status_log_target_of
from engine.model import Function, State
from engine.pipeline.status_log import SEQ_STATUS

ROWS = 50
LATEST_TIME = 4_000_000_000_000  #: milliseconds
_STATES = {number: state for state, number in SEQ_STATUS.items()}


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
            tab="configuration/asynchronous",
            live=not before,
            viewed=version,
            target=target,
            enabled=settings is not None and settings.status_log,
            lines=[line for one in found.logs if (line := _read(one.content))],
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
