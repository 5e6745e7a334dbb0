"""Page that tests a function: an event, from a sample of a trigger or from a saved one, and a run with it."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from engine.asgi.streaming import EVENTS
from engine.asgi.wire import HeaderPairs, Reply
from engine.errors import FunctiondError, NotFound
from engine.http.api.events import EventName
from engine.http.api.routing import Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import WHOLE, Form, errors_of
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.notes import see_other
from engine.http.console.pages import Action, may
from engine.http.console.paths import FUNCTION, PROJECT
from engine.http.console.trial_runs import OPTIONS, TrialRun, event_of, options_of, run_of
from engine.http.console.trial_streams import trial_stream
from engine.http.console.visibility import sees_payloads
from engine.logs.feed import LogFeed
from engine.model.urn import FunctionUrn
from engine.resources.events import MAX_EVENTS, MAX_SIZE, Event, Events
from engine.resources.triggers import Triggers

FIRST = '{\n  "key": "value"\n}'
#: Names of fields in the API's errors that stand beside another field of the page.
_BESIDE = {"content": "event", "function_urn": WHOLE}


class TrialPage:
    """Page of the tab Test."""

    def __init__(
        self, frame: FunctionFrame, api: ApiRequests, events: Events, triggers: Triggers, logs: LogFeed, region: str
    ) -> None:
        self._frame, self._api, self._events, self._triggers = frame, api, events, triggers
        self._logs, self._region = logs, region

    def pages(self) -> Mapping[str, Handler]:
        return {f"{FUNCTION}/test": self.show}

    def actions(self) -> Mapping[str, Action]:
        path = f"{FUNCTION}/test"
        return {path: self.run, f"{path}/save": self.save, f"{path}/delete": self.delete}

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

    async def run(self, call: Call, form: Form) -> Reply:
        """Run the function with the event that was typed.

        A synchronous run is a stream of its log, and of the page after it, if the request accepts events.
        """
        function = self._frame.function_of(call)
        if EVENTS in call.headers.get(b"accept", b"") and form.text("mode") != "async":
            return trial_stream(self._logs, function, lambda headers: self._run(call, form, headers))
        return await self._run(call, form)

    async def _run(self, call: Call, form: Form, further: HeaderPairs = ()) -> Reply:
        function, typed = self._frame.function_of(call), _typed(form)
        path = self._frame.api_path(function, qualifier=form.text("qualifier"))
        try:
            event = event_of(form)
            if form.text("mode") == "async":
                reply = await self._api.send(call, "POST", f"{path}/invocations-async", event, options_of(form))
                request_id = reply.read(dict[str, str])["request_id"]
                page = f"{PROJECT.format(project_id=call.project)}/invocations/{request_id}"
                return see_other(page, "Accepted. This page follows the invocation.")
            headers = ((b"x-cff-log-type", b"tail"), (b"x-cff-request-version", b"v1"), *further)
            reply = await self._api.send(call, "POST", f"{path}/invocations", event, headers)
        except FunctiondError as error:
            return await self._show(call, typed, errors=errors_of(error))
        return await self._show(call, typed, run=run_of(reply))

    async def save(self, call: Call, form: Form) -> Reply:
        """Save the event under the name that was typed. An event of this name is replaced."""
        function, name = self._frame.function_of(call), form.text("name")
        path = self._frame.api_path(function, "/events")
        old = next((one for one in self._events.list(self._urn(call)) if one.name == name), None)
        try:
            content = base64.b64encode(event_of(form)).decode()
            body = {"name": name, "content": content}
            if old is None:
                reply = await self._api.send(call, "POST", path, body)
            else:
                reply = await self._api.send(call, "PUT", f"{path}/{quote(old.id, safe='')}", body)
        except FunctiondError as error:
            return await self._show(call, _typed(form), errors=errors_of(error))
        return see_other(self._page(call, f"?from=event:{reply.read(EventName).id}"), f"Saved the event {name}.")

    async def delete(self, call: Call, form: Form) -> Reply:
        """Delete a saved event."""
        path = self._frame.api_path(self._frame.function_of(call), f"/events/{quote(form.text('id'), safe='')}")
        try:
            await self._api.send(call, "DELETE", path)
        except FunctiondError as error:
            return await self._show(call, _typed(form), errors={WHOLE: str(error)})
        return see_other(self._page(call), "Deleted the event.")

    def _page(self, call: Call, rest: str = "") -> str:
        return self._frame.page_path(self._frame.function_of(call), "/test" + rest)

    def _urn(self, call: Call) -> FunctionUrn:
        return self._frame.function_of(call).urn(self._region)

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
            opened=next((one for one in saved if typed["from"] == f"event:{one.id}"), None),
            samples=[kind for kind in self._triggers.kinds if self._triggers.example(kind) is not None],
            qualifiers=self._frame.qualifiers(call),
            invokes=may(call, "InvokeFunction"),
            readable=sees_payloads(call),
            most=MAX_EVENTS,
            most_bytes=MAX_SIZE,
        )


def _typed(form: Form) -> dict[str, str]:
    return {"event": form.raw("event"), **{name: form.text(name) for name in ("from", "name", "mode", "qualifier")}} | {
        name: form.text(name) for name in OPTIONS
    }


def _content(event: Event) -> str:
    """Return a saved event as text. Contents were checked when they were saved."""
    return base64.b64decode("".join(event.content.split())).decode("utf-8", "replace")
