"""Triggers of functions (FunctionGraph API: CreateFunctionTrigger and others), and the list of trigger kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, json
from msgspec.structs import asdict

from engine.asgi.ignored_fields import find_ignored
from engine.errors import InvalidTrigger
from engine.http.api.clients import is_terraform
from engine.http.api.paging import ITEMS, MAX_LIMIT, page_of
from engine.http.api.routing import BASE, LONG_LIMIT, ApiFamily, BodyCall, Call, Subject, operation, read
from engine.http.api.times import zoned_time
from engine.protocols import Cursors
from engine.resources.bound_trigger import BoundTrigger, name_of, subject_of
from engine.resources.triggers import TriggerDraft, Triggers
from engine.triggers.plugin_contexts import PluginContexts
from engine.triggers.sources import Sources
from engine.triggers.supervisor import STOPPED

Data = dict[str, Any]

#: Each kind restricts these values itself, with its own error code.
Status = Annotated[str, Meta(extra_json_schema={"enum": ["ACTIVE", "DISABLED"]})]

_OF_FUNCTION = f"{BASE}/triggers/{{function_urn}}"
_TRIGGER = f"{_OF_FUNCTION}/{{trigger_type_code}}/{{trigger_id}}"


class CreateTriggerBody(Struct, frozen=True, kw_only=True):
    trigger_type_code: str
    event_data: Data
    trigger_status: Status | None = None
    event_type_code: str | None = None


class UpdateTriggerBody(Struct, frozen=True, kw_only=True):
    """Body of a PUT request, which changes a trigger.

    Terraform sends ``event_data`` as one object, which replaces the old one. The vendor's SDK sends a list of objects,
    which are merged into it.
    """

    event_data: Data | Annotated[list[Data], Meta(max_length=100)] | None = None
    trigger_status: Status | None = None


class SeekBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Positions of a disabled trigger by topic or partition: an offset, ``earliest``, ``latest``, or a time."""

    positions: Annotated[dict[str, str], Meta(min_length=1)]


class TriggerReply(Struct, frozen=True, kw_only=True):
    trigger_id: str
    trigger_type_code: str
    trigger_status: str
    event_data: Data
    path: str | UnsetType = UNSET  #: path to which senders of events send them; absent: the kind has none
    subscription_status: str | UnsetType = UNSET  #: Confirmed or Unconfirmed; absent: the kind has no subscriptions
    created_time: str
    last_updated_time: str


class TriggerState(Struct, frozen=True, kw_only=True):
    """State of a trigger's source, and numbers of events accepted, refused and lost since the engine started."""

    state: str  #: starting, running, failing (restarts later), disabled, stopped, or ``no source``
    problem: str  #: problem of the source; empty: none
    since: str
    failures: int  #: consecutive failures
    next_try: str = ""  #: time of the next restart of a failing source; empty: none
    accepted: int
    refused: int  #: events rejected permanently, and pushes that are not accepted as proven
    lost: int = 0  #: events that left what the source reads before they were read
    lag: Mapping[str, int] = {}  #: events that the source has not read yet, by partition; empty: unknown
    due: list[str] = []  #: next due times of an active timer
    zone: str = ""  #: time zone of ``due``


class ProjectTrigger(TriggerReply, frozen=True, kw_only=True):
    func_urn: str
    source: TriggerState
    name: str
    subject: str  #: schedule, address or topic in one line; empty: the kind has none
    mode: str  #: ``sync`` or ``async``; empty: the stored data cannot be read
    mode_fixed: bool  #: the mode cannot be changed
    given_data: Data  #: ``event_data`` without the fields that the vendor's API adds


class ProjectTriggers(Struct, frozen=True, kw_only=True):
    triggers: list[ProjectTrigger]
    count: int
    next_marker: int


class SampleEvent(Struct, frozen=True, kw_only=True):
    """Event as triggers of a kind make it."""

    trigger_type_code: str
    event: Any


class TriggersApi(ApiFamily):
    """Operations on triggers."""

    subject = Subject("trigger", ("trigger_id",), ("trigger_type_code",))

    def __init__(self, triggers: Triggers, sources: Sources, plugins: PluginContexts, cursors: Cursors) -> None:
        self._triggers, self._sources, self._plugins, self._cursors = triggers, sources, plugins, cursors

    @operation(
        "CreateFunctionTrigger", "POST", _OF_FUNCTION, CreateTriggerBody, TriggerReply, status=201, limit=LONG_LIMIT
    )
    async def create(self, call: BodyCall[CreateTriggerBody]) -> TriggerReply:
        urn = call.urn
        body = await call.read()
        draft = TriggerDraft(
            kind=body.trigger_type_code,
            data=body.event_data,
            status=body.trigger_status or "",
            event_type_code=body.event_type_code or "",
        )
        trigger = await self._triggers.create(urn, draft)
        await self.settle(trigger)
        return self._reply(call, trigger, body.event_data)

    @read("ListFunctionTriggers", _OF_FUNCTION, list[TriggerReply])
    async def list_all(self, call: Call) -> list[TriggerReply]:
        return [self._reply(call, trigger) for trigger in self._triggers.list(call.urn)]

    @operation("BatchDeleteFunctionTriggers", "DELETE", _OF_FUNCTION, status=204)
    async def delete_all(self, call: Call) -> None:
        await self._triggers.delete_all(call.urn)

    @read("ShowFunctionTrigger", _TRIGGER, TriggerReply)
    async def show(self, call: Call) -> TriggerReply:
        return self._reply(call, self._triggers.show(call.urn, *_kind_and_id(call)))

    @operation("UpdateTrigger", "PUT", _TRIGGER, UpdateTriggerBody, TriggerReply, limit=LONG_LIMIT)
    async def update(self, call: BodyCall[UpdateTriggerBody]) -> TriggerReply:
        urn = call.urn
        body = await call.read()
        change = [] if body.event_data is None else body.event_data
        trigger = await self._triggers.update(urn, *_kind_and_id(call), change, body.trigger_status or "")
        await self.settle(trigger)
        return self._reply(call, trigger, body.event_data)

    @operation("DeleteFunctionTrigger", "DELETE", _TRIGGER, status=204)
    async def delete(self, call: Call) -> None:
        trigger = self._triggers.show(call.urn, *_kind_and_id(call))
        await self._triggers.delete(call.urn, *_kind_and_id(call))
        await self.settle(trigger)

    @read("ShowTriggerState", f"{_TRIGGER}/state", TriggerState, own=True)
    async def show_state(self, call: Call) -> TriggerState:
        return self._state(self._triggers.show(call.urn, *_kind_and_id(call)))

    @operation("SeekTrigger", "POST", f"{_TRIGGER}/seek", SeekBody, TriggerState, own=True)
    async def seek(self, call: BodyCall[SeekBody]) -> TriggerState:
        body, trigger = await call.read(), self._triggers.show(call.urn, *_kind_and_id(call))
        seek = trigger.plugin.seek if trigger.options is not None else None
        if seek is None or trigger.stored.active:
            problem = "disable the trigger first" if seek else "the position of its source cannot be set"
            raise InvalidTrigger(trigger.kind, "positions", body.positions, problem)
        before = await self._cursors.read(trigger.id)
        await self._cursors.append([], trigger.move(before, seek(trigger.options, before, body.positions)))
        return self._state(trigger)

    async def settle(self, trigger: BoundTrigger) -> None:
        """Wait until the source of a trigger has applied the stored change, if the trigger receives events (push).

        The next event is then handled by the changed trigger.
        """
        if trigger.plugin.rules.start_before_stop:
            await self._sources.settled(trigger.id)

    def _state(self, trigger: BoundTrigger) -> TriggerState:
        source, due = self._sources.state(trigger.id), self._plugins.due_times(trigger)
        times: Data = {"due": [moment.isoformat() for moment in due], "zone": str(due[0].tzinfo) if due else ""}
        if source is None:  # the engine is starting or stopping
            return TriggerState(state=STOPPED, problem="", since="", failures=0, accepted=0, refused=0, **times)
        times |= {"since": zoned_time(source.since), "next_try": zoned_time(source.next_try) if source.next_try else ""}
        return TriggerState(**(asdict(source) | times))

    @read("ListProjectTriggers", f"{BASE}/triggers", ProjectTriggers, query=(*ITEMS, "trigger_type"), own=True)
    async def list_project(self, call: Call) -> ProjectTriggers:
        page = page_of(
            call, self._triggers.in_project(call.project, call.text("trigger_type")), "maxitems", maximum=MAX_LIMIT
        )
        triggers = [self.project_trigger(trigger) for trigger in page.items]
        return ProjectTriggers(triggers=triggers, count=page.count, next_marker=page.next_marker)

    @read("ListTriggerTypes", f"{BASE}/triggertypes", list[Any], own=True)
    async def list_kinds(self, call: Call) -> list[Any]:
        return list(self._triggers.kinds)

    @read("ListSampleEvents", f"{BASE}/sample-events", list[SampleEvent], own=True)
    async def list_samples(self, call: Call) -> list[SampleEvent]:
        """List an event of each trigger kind that has a sample, for tests of functions."""
        samples = ((kind, self._triggers.example(kind)) for kind in self._triggers.kinds)
        return [SampleEvent(trigger_type_code=kind, event=Raw(event)) for kind, event in samples if event]

    @read("ShowFeatures", f"{BASE}/feature", dict[str, Any], own=True, lacks="optional features")
    async def show_features(self, call: Call) -> dict[str, Any]:
        """Return an empty object, as the vendor's platform does for an account without optional features."""
        return {}

    def _reply(self, call: Call, trigger: BoundTrigger, sent: Any = ()) -> TriggerReply:
        """Return the reply about a trigger. Note the fields of ``sent``, its new data, that its kind does not have."""
        call.ignored += [f"event_data.{name}" for name in find_ignored(json.encode(sent), trigger.plugin.options)]
        data = trigger.given if is_terraform(call.headers) else self._shown(trigger)
        return TriggerReply(event_data=data, **self._fields(trigger))

    def _shown(self, trigger: BoundTrigger) -> Data:
        address = self._plugins.address(trigger)
        return {**trigger.shown, "invoke_url": address} if address else trigger.shown

    def project_trigger(self, trigger: BoundTrigger) -> ProjectTrigger:
        """Return a trigger in the form in which the list of a project's triggers describes it."""
        return ProjectTrigger(
            func_urn=trigger.function,
            source=self._state(trigger),
            name=name_of(trigger),
            subject=subject_of(trigger),
            mode=trigger.mode.value if trigger.options is not None else "",
            mode_fixed=trigger.mode_fixed,
            event_data=self._shown(trigger),
            given_data=trigger.given,
            **self._fields(trigger),
        )

    def _fields(self, trigger: BoundTrigger) -> Data:
        stored = trigger.stored
        return {
            "trigger_id": stored.id,
            "trigger_type_code": stored.kind,
            "trigger_status": "ACTIVE" if stored.active else "DISABLED",
            "path": trigger.path or UNSET,
            "subscription_status": self._plugins.subscription_status(trigger) or UNSET,
            "created_time": zoned_time(stored.created_at),
            "last_updated_time": zoned_time(stored.modified_at),
        }


def _kind_and_id(call: Call) -> tuple[str, str]:
    return call.part("trigger_type_code"), call.part("trigger_id")
