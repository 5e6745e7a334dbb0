"""Triggers of invocations: those that a list can be filtered by, and the one that made an invocation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from msgspec import Struct

from engine.errors import NotFound
from engine.http.console.triggers.rows import page_of_trigger
from engine.model import Record
from engine.model.urn import short_name
from engine.resources.bound_trigger import BoundTrigger, name_of
from engine.resources.triggers import Triggers

OFFERED = 200  #: triggers to choose from


class TriggerLink(Struct, frozen=True, kw_only=True):
    id: str
    name: str = ""  #: empty: the trigger was deleted
    path: str = ""


class InvocationTriggers:
    def __init__(self, triggers: Triggers) -> None:
        self._triggers = triggers

    def options(self, project: str, function_id: int, chosen: str) -> list[tuple[str, str]]:
        """Return the ids and labels of a function's triggers, or of the project's if ``function_id`` is 0.

        The trigger ``chosen`` is among them, even if it was deleted.
        """
        labels = {
            one.id: _label(one, of_all=not function_id) for one in islice(self._those(project, function_id), OFFERED)
        }
        if chosen and chosen not in labels:
            link = self._link(project, chosen)
            labels[chosen] = link.name or f"{chosen} (deleted)"
        return sorted(labels.items(), key=lambda one: one[1])

    def of(self, project: str, record: Record) -> TriggerLink | None:
        """Return the trigger that made an invocation; None if none did."""
        return self._link(project, record.trigger_id) if record.trigger_id else None

    def _those(self, project: str, function_id: int) -> Iterator[BoundTrigger]:
        if function_id:
            return iter(self._triggers.of_function(function_id))
        return (one for one in self._triggers.all() if one.project == project)

    def _link(self, project: str, trigger_id: str) -> TriggerLink:
        try:
            trigger = self._triggers.find(project, trigger_id)
        except NotFound:
            return TriggerLink(id=trigger_id)
        return TriggerLink(id=trigger_id, name=name_of(trigger), path=page_of_trigger(trigger))


def _label(trigger: BoundTrigger, *, of_all: bool) -> str:
    text = f"{name_of(trigger)} ({trigger.kind})"
    return f"{short_name(trigger.function)}: {text}" if of_all else text
