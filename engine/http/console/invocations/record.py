"""Page of one invocation, and its actions: cancel, redrive, run again, deliver again."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import UNSET

from engine.asgi.wire import HeaderPairs, Reply
from engine.errors import AccessDenied, FunctiondError, InvalidField, NotFound
from engine.functions.catalog import Catalog
from engine.http.api.invocation_actions import RedrivenInvocations, RunAgainReply
from engine.http.api.records import ExplanationReply
from engine.http.api.routing import BASE, Call, whole_number
from engine.http.console.api_requests import ApiReply
from engine.http.console.forms import WHOLE, Form, errors_of
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.invocations.details import SHOWN, InvocationDetails, body_of, headers_of, pretty
from engine.http.console.pages import ADMIN, HEADERS, PageFamily, Pages, get, post, see_other
from engine.http.console.paths import INVOCATION, name_of, path_of
from engine.http.console.visibility import sees_payloads
from engine.model import Function, Record
from engine.model.limits import LONGEST_DELAY
from engine.model.retry_rules import read_error
from engine.model.urn import LATEST

EDITED = 1 << 20  #: bytes of the largest event that a page offers to edit
ONCE = "once"  #: hidden field: a form that is sent twice makes one invocation
_TEXT = b"text/plain; charset=utf-8"


class InvocationPage(PageFamily):
    def __init__(self, pages: Pages, frame: FunctionFrame, catalog: Catalog, details: InvocationDetails) -> None:
        self._pages, self._frame, self._catalog = pages, frame, catalog
        self._details = details

    @get("ConsoleInvocation", INVOCATION)
    async def show(self, call: Call) -> Reply:
        return await self._show(call, await self._details.record(call))

    @post("ConsoleCancelInvocation", f"{INVOCATION}/cancel")
    async def cancel(self, call: Call, form: Form) -> Reply:
        record = await self._details.record(call)
        body = {"request_id": record.request_id, "type": "force"}
        try:
            await self._send(call, "POST", record, "/cancel", body)
        except FunctiondError as error:
            return await self._refused(call, error)
        return see_other(self._path(call, record.request_id), "Cancelled.")

    @post("ConsoleRedriveInvocation", f"{INVOCATION}/redrive")
    async def redrive(self, call: Call, form: Form) -> Reply:
        record = await self._details.record(call)
        body = {"request_ids": [record.request_id]}
        try:
            reply = await self._send(call, "POST", record, "/async-invocations/redrive", body)
        except FunctiondError as error:
            return await self._refused(call, error)
        [sent] = reply.read(RedrivenInvocations).redriven
        text = "Redriven." if sent.repeated is UNSET else "Nothing was sent, as it was redriven before."
        return see_other(self._path(call, sent.new_request_id), f"{text} This invocation repeats {sent.request_id}.")

    @post("ConsoleDeliverAgain", f"{INVOCATION}/deliver")
    async def deliver(self, call: Call, form: Form) -> Reply:
        record = await self._details.record(call)
        target = f"{BASE.format(project_id=call.project)}/deliveries/redrive"
        try:
            number = whole_number("delivery", form.text("delivery"), 0)
            await self._frame.api.send(call, "POST", target, {"delivery_ids": [number]})
        except FunctiondError as error:
            return await self._refused(call, error)
        return see_other(self._path(call, record.request_id), "The delivery is tried again.")

    @get("ConsoleRunAgain", f"{INVOCATION}/again", ADMIN)
    async def edit(self, call: Call) -> Reply:
        record = await self._details.record(call)
        event = pretty(record.payload) if sees_payloads(call) and len(record.payload) <= EDITED else ""
        return await self._editor(call, record, {"event": event, "priority": str(record.priority), "delay": ""})

    @post("ConsoleInvokeAgain", f"{INVOCATION}/again")
    async def run_again(self, call: Call, form: Form) -> Reply:
        """Invoke again, with the event of the form if it has one."""
        record = await self._details.record(call)
        typed = {name: form.raw(name) for name in ("event", "priority", "delay")}
        try:
            body = _changes(typed) if "event" in form else b"{}"
            key = sha256(form.raw(ONCE).encode() + b" " + body).hexdigest()[:32]
            path = f"/async-invocations/{record.request_id}/run-again"
            headers = ((b"idempotency-key", f"console:{key}".encode()),)
            reply = await self._send(call, "POST", record, path, body, headers)
        except FunctiondError as error:
            if "event" in form:
                return await self._editor(call, record, typed, errors_of(error))
            return await self._refused(call, error)
        new = reply.read(RunAgainReply).request_id
        return see_other(self._path(call, new), f"Accepted. This invocation repeats {record.request_id}.")

    @get("ConsoleEvent", f"{INVOCATION}/event", part="event")
    @get("ConsoleResult", f"{INVOCATION}/result", part="result")
    async def download(self, call: Call, part: str) -> Reply:
        record = await self._details.record(call)
        if not sees_payloads(call):
            raise AccessDenied("your role may not see events and results")
        attachment = f'attachment; filename="{record.request_id}-{part}.json"'.encode()
        content = record.payload if part == "event" else record.result
        return Reply(body=content, headers=(*HEADERS, (b"Content-Disposition", attachment)), content_type=_TEXT)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _show(self, call: Call, record: Record, errors: Mapping[str, str] | None = None) -> Reply:
        deliveries = await self._details.deliveries(call, record)
        readable, linked = sees_payloads(call), await self._details.linked(record)
        unended = not record.state.final or any(not called.state.final for _, called in linked.calls)
        return await self._pages.show(
            call,
            "invocation.html",
            live=not errors and (unended or any(delivery.next_try for delivery in deliveries)),
            errors=errors or {},
            progress=self._details.progress(record),
            explanation=None if record.state.final else await self._explanation(call, record),
            runs=await self._details.runs(call, record),
            deliveries=deliveries,
            trigger=self._details.triggers.of(call.project, record),
            related=await self._details.related(call, record, readable=readable),
            linked=linked,
            request_id=self._details.request_id,
            event=body_of(record.payload) if readable else None,
            result=body_of(record.result) if readable and record.state.final else None,
            failure=read_error("", record.result[:SHOWN]) if readable and record.code else None,
            headers=headers_of(record.payload) if readable else (),
            **self._common(call, record),
        )

    async def _refused(self, call: Call, error: FunctiondError) -> Reply:
        """Show the page of an invocation with the error of an action. Its record may have changed meanwhile."""
        if isinstance(error, AccessDenied | NotFound):
            raise error
        return await self._show(call, await self._details.record(call), {WHOLE: str(error)})

    async def _editor(
        self, call: Call, record: Record, typed: Mapping[str, str], errors: Mapping[str, str] | None = None
    ) -> Reply:
        return await self._pages.show(
            call,
            "invocation/again.html",
            typed=typed,
            errors=errors or {},
            too_large=len(record.payload) > EDITED,
            readable=sees_payloads(call),
            **self._common(call, record),
        )

    def _common(self, call: Call, record: Record) -> dict[str, Any]:
        function = self._function(record)
        return {
            "record": record,
            "function": function,
            "name": name_of(function),
            "function_path": path_of(function),
            "path": self._path(call, record.request_id),
            "once": secrets.token_urlsafe(12),
        }

    async def _explanation(self, call: Call, record: Record) -> ExplanationReply | None:
        path = f"/async-invocations/{record.request_id}/explain"
        try:
            return (await self._send(call, "GET", record, path)).read(ExplanationReply)
        except FunctiondError:
            return None  # the record has just been pruned, or its place is on a damaged page

    def _function(self, record: Record) -> Function:
        function = self._catalog.resolve(record.function_id, LATEST)
        if function is None:
            raise NotFound(f"the function of {record.request_id} was deleted")
        return function

    async def _send(
        self, call: Call, method: str, record: Record, rest: str, body: Any = None, headers: HeaderPairs = ()
    ) -> ApiReply:
        """Make a request to the API about the function of an invocation."""
        return await self._frame.send(call, method, self._function(record), rest, body, headers)

    def _path(self, call: Call, request_id: str) -> str:
        return INVOCATION.format(project_id=call.project, request_id=request_id)


def _changes(typed: Mapping[str, str]) -> bytes:
    """Return the body of a request that runs an invocation again as the editor has it.

    Raises InvalidField if the event is not JSON, or a number is none.
    """
    event, delay = typed["event"].encode(), typed["delay"].strip()
    try:
        msgspec.json.decode(event, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidField("event", "", f"is not JSON: {error}") from None
    return msgspec.json.encode(
        {
            "event": msgspec.Raw(event),
            "priority": whole_number("priority", typed["priority"], 0),
            "delay": _seconds(delay or "0"),
        }
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_DELAY:
        raise InvalidField("delay", text, f"must be seconds, 0 to {LONGEST_DELAY:.0f}")
    return seconds
