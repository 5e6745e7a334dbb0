"""Changes to triggers. A trigger of the manifest is found among those of its function by its kind and its identity."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from msgspec import UNSET, Struct, structs

from engine.deploy.apis import apis_of, serves_http
from engine.deploy.client import path_of, path_of_trigger
from engine.deploy.fields import expected
from engine.deploy.manifest.changes import Change, Field, Plan, created, deletion, differences, hidden
from engine.deploy.manifest.kinds import Kinds
from engine.deploy.manifest.project import Data, Project, References
from engine.deploy.manifest.reading import Function, TriggerTable
from engine.deploy.timers import for_api, next_due, warn
from engine.errors import UsageError
from engine.model.text import MASK
from engine.model.urn import LATEST, short_name


class Wanted(Struct, frozen=True, kw_only=True):
    """Trigger of the manifest."""

    function: str
    kind: str  #: in upper case
    table: TriggerTable
    data: Data  #: event_data as the engine will show it


class TriggerPlanner:
    """``send_secrets``: secrets count as changed, because the engine does not show stored ones."""

    def __init__(self, project: Project, references: References, kinds: Kinds, *, send_secrets: bool) -> None:
        self._project, self._references, self._kinds = project, references, kinds
        self._send_secrets = send_secrets

    def plan(self, function: Function) -> Plan:
        """Return the changes to triggers of a function, and the deletions of those that the manifest does not name."""
        left = self._project.triggers_of(function.name)
        changes: list[Change] = []
        seen: dict[tuple[str, str, str], int] = {}
        prefix = serves_http({"runtime": "", **self._project.functions.get(function.name, {}), **function.config})
        apis = (TriggerTable(**api) for api in apis_of(function.own.http, prefix=prefix))
        for index, table in enumerate([*function.own.triggers, *apis]):
            path = f"functions.{function.name}.triggers[{index}]"
            wanted = self._wanted(function, table, path)
            key = (table.qualifier, wanted.kind, self._kinds.identity(wanted.kind, wanted.data))
            if key in seen:
                raise UsageError(f"{path} is the same trigger as triggers[{seen[key]}]: remove one")
            seen[key] = index
            old = next((trigger for trigger in left if self._key(trigger) == key), None)
            if old is not None:
                left.remove(old)
            changes += self._changes(wanted, old)
        return Plan(changes=changes, unnamed=[*map(self.deletion, left)])

    def _wanted(self, function: Function, table: TriggerTable, path: str) -> Wanted:
        kind, known = table.trigger_type_code.upper(), self._project.trigger_types
        if kind not in {code.upper() for code in known}:
            raise UsageError(f"{path}.trigger_type_code is {table.trigger_type_code!r}: {expected(kind, known)}")
        warn(kind, table.event_data)
        try:
            table = structs.replace(table, event_data=for_api(kind, table.event_data))
            data = self._references.event_data(kind, table.event_data)
        except UsageError as error:
            raise UsageError(f"{path}.event_data: {error}") from None
        return Wanted(function=function.name, kind=kind, table=table, data=self._kinds.checked(kind, data, path))

    def _key(self, trigger: Data) -> tuple[str, str, str]:
        kind = trigger["trigger_type_code"].upper()
        return qualifier_of(trigger), kind, self._kinds.identity(kind, trigger["given_data"])

    def _changes(self, wanted: Wanted, old: Data | None) -> Iterator[Change]:
        masked, secrets = self._kinds.masked(wanted.kind, wanted.data), self._kinds.secrets(wanted.kind)
        name = self._name(wanted.kind, wanted.function, wanted.table.qualifier, wanted.table.event_data)
        status = wanted.table.trigger_status
        change = partial(Change, kind="trigger", name=name, due=partial(self._due, wanted))
        if old is None:
            fields = created({**masked, "trigger_status": status or "ACTIVE"})
            yield change(action="create", fields=fields, run=partial(self._create, wanted))
            return
        fields = differences(old["given_data"], masked)
        if self._send_secrets:
            fields |= hidden({secret: Field(old=MASK, new=MASK) for secret in sorted(secrets & masked.keys())})
        new_data, new_status = bool(fields), status if status not in (UNSET, old["trigger_status"]) else None
        if new_status:
            fields["trigger_status"] = Field(old=old["trigger_status"], new=new_status)
        if fields:
            run = partial(self._update, wanted, old, new_data=new_data, status=new_status)
            yield change(action="update", fields=fields, run=run)

    def _create(self, wanted: Wanted) -> Any:
        table = wanted.table
        body = {
            "trigger_type_code": wanted.kind,
            "trigger_status": table.trigger_status or "ACTIVE",
            "event_type_code": table.event_type_code or None,
            "event_data": self._sent(wanted),
        }
        urn = self._project.urn(wanted.function, table.qualifier)
        return self._project.client.of_project.post(f"/triggers{path_of(urn)}", body)

    def _update(self, wanted: Wanted, old: Data, *, new_data: bool, status: str | None) -> Any:
        body = ({"event_data": self._sent(wanted)} if new_data else {}) | {"trigger_status": status}
        return self._project.client.of_project.put(path_of_trigger(old), body)

    def _due(self, wanted: Wanted, made: Data) -> str:
        return next_due(self._project.client, self._project.urn(wanted.function, wanted.table.qualifier), made)

    def deletion(self, trigger: Data) -> Change:
        kind = trigger["trigger_type_code"]
        data = self._references.named_event_data(kind, trigger["given_data"])
        name = self._name(kind, short_name(trigger["func_urn"]), qualifier_of(trigger), data)
        return deletion(self._project.client.of_project, "trigger", name, path_of_trigger(trigger))

    def _name(self, kind: str, function: str, qualifier: str, data: Data) -> str:
        """Return the description of a trigger: kind, name, function."""
        owner = function if qualifier == LATEST else f"{function}:{qualifier}"
        return " ".join(filter(None, (kind, self._kinds.label(kind, data), "of", owner)))

    def _sent(self, wanted: Wanted) -> Data:
        """Return event_data to send. Names that were of nothing when the plan was made have their URNs now."""
        return self._references.event_data(wanted.kind, wanted.table.event_data)


def qualifier_of(trigger: Data) -> str:
    """Return the version of a trigger, or ``!`` and its alias."""
    return str(trigger["func_urn"].split(":", 7)[-1])
