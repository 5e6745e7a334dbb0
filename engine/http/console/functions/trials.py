"""Page that tests a function: an event, from a sample of a trigger or from a saved one, and a run with it.

A synchronous run is shown live, as server-sent events: the lines of its log while it runs, then the page with its end.
Lines of other requests are left out. The run has a trace context of its own, which the lines carry.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from urllib.parse import quote

import anyio
import msgspec
from msgspec import Struct

from engine.asgi.streaming import EVENTS, HEARTBEAT, Stream, Write, event
from engine.asgi.wire import HeaderPairs, Reply
from engine.errors import FunctiondError, InvalidField, NotFound
from engine.http.api.events import EventName
from engine.http.api.invocations import CallResult
from engine.http.api.routing import Call
from engine.http.console.api_requests import ApiReply
from engine.http.console.forms import WHOLE, Form, errors_of
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.functions.logs import shown_lines
from engine.http.console.invocations.details import SHOWN, pretty
from engine.http.console.pages import HEADERS, PageFamily, get, may, post, see_other
from engine.http.console.paths import FUNCTION, PROJECT, path_of
from engine.http.console.visibility import sees_payloads
from engine.http.live_logs import Batch, LogQueue
from engine.logs.feed import FunctionLines, LogBoard
from engine.logs.lines import PREFIX, TAIL
from engine.model import Function
from engine.model.retry_rules import FunctionError, read_error
from engine.model.trace import HEADER, TraceContext
from engine.model.urn import FunctionUrn
from engine.resources.events import MAX_SIZE, Event, Events
from engine.resources.triggers import Triggers

FIRST = '{\n  "key": "value"\n}'
#: Names of fields in the API's errors that stand beside another field of the page.
_BESIDE = {"content": "event", "function_urn": WHOLE}
#: Headers of an asynchronous run that the form has as fields of the same name.
OPTIONS = ("X-Functiond-Delay", "X-Functiond-Priority", "Idempotency-Key", "X-Functiond-Ordering-Key")
_BYTE = re.compile(r" \(byte (\d+)\)$")
PAUSE = 0.1  #: seconds between two messages of a stream
#: Runs the function with further headers of the request, and returns the page with the end of the run.
Run = Callable[[HeaderPairs], Awaitable[Reply]]


class TrialPage(PageFamily):
    """Page of the tab Test."""

    def __init__(self, frame: FunctionFrame, events: Events, triggers: Triggers, logs: LogBoard) -> None:
        self._frame, self._events, self._triggers, self._logs = frame, events, triggers, logs

    @get("ConsoleTest", f"{FUNCTION}/test")
    async def show(self, call: Call) -> Reply:
        """Show the event that the query names: ``from=sample:<kind>``, or ``from=event:<id>``."""
        kind, _, name = call.text("from").partition(":")
        typed = {"from": call.text("from"), "event": FIRST, "name": ""}
        if kind == "sample":
            example = self._triggers.example(name)
            if example is None:
                raise NotFound(f"triggers of {name[:100]!r} have no sample event")
            typed["event"] = msgspec.json.format(example, indent=2).decode()
        elif kind == "event":
            event = self._events.show(self._urn(call), name)
            typed |= {"event": _content(event) if sees_payloads(call) else "", "name": event.name}
        return await self._show(call, typed)

    @post("ConsoleTestFunction", f"{FUNCTION}/test")
    async def run(self, call: Call, form: Form) -> Reply:
        """Run the function with the event that was typed.

        A synchronous run is a stream of its log, and of the page after it, if the request accepts events.
        """
        function = self._frame.function_of(call)
        if EVENTS in call.headers.get(b"accept", b"") and form.text("mode") != "async":
            follow = partial(_follow, self._logs, function, partial(self._run, call, form))
            return Stream(content_type=EVENTS, headers=HEADERS, run=follow)
        return await self._run(call, form)

    async def _run(self, call: Call, form: Form, further: HeaderPairs = ()) -> Reply:
        function, typed = self._frame.function_of(call), _typed(form)
        path = self._frame.api_path(function, qualifier=form.text("qualifier"))
        try:
            event = event_of(form)
            if form.text("mode") == "async":
                reply = await self._frame.api.send(call, "POST", f"{path}/invocations-async", event, options_of(form))
                request_id = reply.read(dict[str, str])["request_id"]
                page = f"{PROJECT.format(project_id=call.project)}/invocations/{request_id}"
                return see_other(page, "Accepted. This page follows the invocation.")
            headers = ((b"x-cff-log-type", b"tail"), (b"x-cff-request-version", b"v1"), *further)
            reply = await self._frame.api.send(call, "POST", f"{path}/invocations", event, headers)
        except FunctiondError as error:
            return await self._show(call, typed, errors=errors_of(error))
        return await self._show(call, typed, run=run_of(reply))

    @post("ConsoleSaveEvent", f"{FUNCTION}/test/save")
    async def save(self, call: Call, form: Form) -> Reply:
        """Save the event under the name that was typed. An event of this name is replaced."""
        function, name = self._frame.function_of(call), form.text("name")
        old = next((stored for stored in self._events.list(self._urn(call)) if stored.name == name), None)
        try:
            content = base64.b64encode(event_of(form)).decode()
            body = {"name": name, "content": content}
            if old is None:
                reply = await self._frame.send(call, "POST", function, "/events", body)
            else:
                reply = await self._frame.send(call, "PUT", function, _event_part(old.id), body)
        except FunctiondError as error:
            return await self._show(call, _typed(form), errors=errors_of(error))
        return see_other(self._page(call, f"?from=event:{reply.read(EventName).id}"), f"Saved the event {name}.")

    @post("ConsoleDeleteEvent", f"{FUNCTION}/test/delete")
    async def delete(self, call: Call, form: Form) -> Reply:
        """Delete a saved event."""
        function = self._frame.function_of(call)
        try:
            await self._frame.send(call, "DELETE", function, _event_part(form.text("id")))
        except FunctiondError as error:
            return await self._show(call, _typed(form), errors={WHOLE: str(error)})
        return see_other(self._page(call), "Deleted the event.")

    def _page(self, call: Call, rest: str = "") -> str:
        return path_of(self._frame.function_of(call), "/test" + rest)

    def _urn(self, call: Call) -> FunctionUrn:
        return self._frame.function_of(call).urn(self._frame.region)

    async def _show(
        self,
        call: Call,
        typed: Mapping[str, str],
        *,
        errors: Mapping[str, str] | None = None,
        run: TrialRun | None = None,
    ) -> Reply:
        beside = {_BESIDE.get(name, name): message for name, message in (errors or {}).items()}
        known = {"event", "name", *OPTIONS}
        saved = self._events.list(self._urn(call))
        return await self._frame.show(
            call,
            "functions/test.html",
            tab="test",
            typed=defaultdict(str, typed),
            errors=defaultdict(str, {name if name in known else WHOLE: text for name, text in beside.items()}),
            run=run,
            saved=saved,
            opened=next((stored for stored in saved if typed["from"] == f"event:{stored.id}"), None),
            samples=[kind for kind in self._triggers.kinds if self._triggers.example(kind) is not None],
            qualifiers=self._frame.qualifiers(call),
            invokes=may(call, "InvokeFunction"),
            readable=sees_payloads(call),
            most=self._frame.limits.test_events,
            most_bytes=MAX_SIZE,
        )


def _event_part(event_id: str) -> str:
    return f"/events/{quote(event_id, safe='')}"


def _typed(form: Form) -> dict[str, str]:
    return {"event": form.raw("event"), **{name: form.text(name) for name in ("from", "name", "mode", "qualifier")}} | {
        name: form.text(name) for name in OPTIONS
    }


def _content(event: Event) -> str:
    """Return a saved event as text. Contents were checked when they were saved."""
    return base64.b64decode("".join(event.content.split())).decode("utf-8", "replace")


class _Summary(Struct, frozen=True, kw_only=True):
    duration: str = ""
    memoryUsed: str = ""  # noqa: N815
    memorySize: str = ""  # noqa: N815


class TrialRun(Struct, frozen=True, kw_only=True):
    """End of a synchronous run."""

    ok: bool
    request_id: str
    summary: _Summary
    code: int  #: of the error; 0 for a success
    error: str = ""  #: type and message
    trace: str = ""  #: stack trace of the error; empty: none
    result: str
    result_cut: int = 0  #: characters of the result that are left out
    log: str
    log_cut: bool = False  #: only its end is known


def event_of(form: Form) -> bytes:
    """Return the event that was typed. Raises InvalidField, with line and column, unless it is JSON."""
    event = form.raw("event").encode("utf-8", "replace")
    try:
        msgspec.json.decode(event or b"{}", type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidField("event", form.raw("event"), _position(event, str(error))) from None
    return event or b"{}"


def _position(event: bytes, problem: str) -> str:
    """Return what is wrong with JSON, with the line and the column."""
    match = _BYTE.search(problem)
    end = int(match[1]) if match else len(event)
    line = event.count(b"\n", 0, end) + 1
    column = len(event[event.rfind(b"\n", 0, end) + 1 : end].decode("utf-8", "replace")) + 1
    reason = _BYTE.sub("", problem).removeprefix("JSON is malformed: ")
    return f"not valid JSON at line {line}, column {column}: {reason}"


def options_of(form: Form) -> HeaderPairs:
    """Return the headers of an asynchronous run that were filled in."""
    typed = ((name, form.text(name)) for name in OPTIONS)
    return tuple((name.lower().encode(), value.encode("utf-8", "replace")) for name, value in typed if value)


def run_of(reply: ApiReply) -> TrialRun:
    """Return the end of a synchronous run from the reply to it."""
    call = reply.read(CallResult)
    code = int(reply.headers.get(b"X-Func-Err-Code", b"0"))
    failure = FunctionError() if call.status == 200 else read_error("", call.result.encode())
    log = _own_lines(call.log)
    return TrialRun(
        ok=call.status == 200,
        request_id=call.request_id,
        summary=msgspec.json.decode(reply.headers.get(b"X-Cff-Invoke-Summary", b"{}"), type=_Summary),
        code=code,
        error=": ".join(filter(None, (failure.kind, failure.message))),
        trace="\n".join(line.rstrip("\n") for line in failure.trace),
        result=call.result[:SHOWN] if len(call.result) > SHOWN else pretty(call.result.encode()),
        result_cut=max(0, len(call.result) - SHOWN),
        log=log,
        # It may be the end of a longer log: TAIL bytes are kept, with prefixes.
        log_cut=len(log.encode()) + PREFIX * (log.count("\n") + 2) > TAIL,
    )


def _own_lines(log: str) -> str:
    """Return a log without the lines that the platform puts around it."""
    head, _, rest = log.partition("\n")
    rest = rest if head.startswith("Start invoke request ") else log
    before, mark, _ = rest.rpartition("Finish invoke request ")
    return (before if mark else rest).rstrip("\n")


async def _follow(feed: LogBoard, function: Function, run: Run, write: Write) -> None:
    """Write the lines that ``function`` writes for a run, and then the end of it."""
    trace = str(TraceContext(secrets.token_hex(16), secrets.token_hex(8), sampled=True))
    queue = LogQueue()

    def put(batch: FunctionLines) -> None:
        if batch.trace == trace:
            queue.put(batch)

    with feed.subscribed(put, function_id=function.function_id):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_pass_on, queue, write)
            try:
                end = event("end", (await run(((HEADER, trace.encode()),))).body.decode())
            except FunctiondError as error:  # no page shows it
                end = event("failed", str(error))
            queue.end()
    await write(end)


async def _pass_on(queue: LogQueue, write: Write) -> None:
    """Write the lines of the queue until it has ended."""

    async def send(batch: Batch) -> None:
        await write(event("lines", list(shown_lines(batch.lines, batch.request_id))))

    await write(HEARTBEAT)
    await queue.pass_on(write, send, PAUSE)
