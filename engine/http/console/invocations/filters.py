"""Filter of a list of invocations, as the query of a page has it, and as storage and API take it.

Triggers are among the fields: those that a list can be filtered by, and the one that made an invocation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import urlencode

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.errors import BadQuery, FunctiondError, NotFound
from engine.functions.catalog import Catalog
from engine.functions.invocation_filter import selection_of
from engine.http.api.records import read_states
from engine.http.api.routing import own_urn, whole_number
from engine.http.api.times import LAST_SECOND, exact_time, read_end, read_time
from engine.http.console.triggers.forms import page_of_trigger
from engine.model import Record
from engine.model.identity import Identity
from engine.model.urn import FunctionUrn, short_name
from engine.protocols import LAST_KEY, Selection
from engine.resources.bound_trigger import BoundTrigger, name_of
from engine.resources.triggers import Triggers

#: Times to choose from, with their names and seconds.
SPANS = {
    "15m": ("Last 15 minutes", 900.0),
    "1h": ("Last hour", 3600.0),
    "24h": ("Last 24 hours", 86_400.0),
    "7d": ("Last 7 days", 604_800.0),
}
OFFERED = 200  #: triggers to choose from
ANY = "any"
LONGEST = 200  #: characters of a text to search for, or of the id of a trigger


class InvocationFilter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Fields of the form above a list, as they were typed. An empty one does not filter."""

    function: str = ""
    status: str = ""  #: names of states, with commas
    source: str = ""
    trigger: str = ""  #: id
    parent: str = ""  #: request id of the invocation that queued them
    code: str = ""  #: of the error; ``any``: there is one, such as that of a failed attempt that is tried again
    time: str = ""  #: a key of ``SPANS``
    begin: str = ""
    end: str = ""
    request: str = ""  #: begin of a request id
    text: str = ""  #: part of the error

    @property
    def fields(self) -> Mapping[str, str]:
        """Return the fields that filter, by name."""
        values: dict[str, str] = msgspec.to_builtins(self)
        return values

    def query(self, **changes: object) -> str:
        """Return the filter as a query, with changed or further fields. Empty ones are left out."""
        fields = {**self.fields, **changes}
        return urlencode({name: value for name, value in fields.items() if value not in ("", 0)})

    @property
    def by_form(self) -> bool:
        """Return whether a field besides the status filters."""
        return bool(set(self.fields) - {"status"})


def filter_of(read: Callable[[str], str]) -> InvocationFilter:
    """Return the filter whose fields ``read`` returns by name."""
    return InvocationFilter(**{name: read(name).strip() for name in InvocationFilter.__struct_fields__})


class Filters:
    """Reader of filters. Errors name the field of the form."""

    def __init__(self, catalog: Catalog, identity: Identity, now: Callable[[], float], region: str) -> None:
        self._catalog, self._identity, self._now, self._region = catalog, identity, now, region

    def urn(self, chosen: InvocationFilter, project: str) -> FunctionUrn:
        """Return the function that a filter names, with its version or alias.

        ``a:b`` is the function ``b`` of the package ``a``. If there is none such, it is the version, or ``!`` and the
        alias, ``b`` of the function ``a``; likewise ``a:b:c``.
        """
        text = chosen.function
        name, _, qualifier = text.rpartition(":")
        short = bool(name and qualifier) and name.count(":") < 2
        if short and not self._is_function(text, project) and self._is_function(name, project):
            return replace(own_urn(name, project, self._region), qualifier=qualifier, qualified=True)
        return own_urn(text, project, self._region)

    def _is_function(self, text: str, project: str) -> bool:
        try:
            self._catalog.find(own_urn(text, project, self._region))
        except FunctiondError:
            return False
        return True

    def selection(self, chosen: InvocationFilter, project: str, functions: frozenset[int]) -> Selection:
        """Return the records that a filter selects: those of its function, or else of ``functions``.

        Raises BadQuery, which names a field, if a field is invalid; UnknownFunction and others of ``selection_of``.
        """
        base = Selection(functions=functions)
        if chosen.function:
            base = selection_of(self._catalog, self.urn(chosen, project))
        since, below = self._keys(chosen.request)
        parent = self._identity.key_of(chosen.parent) if chosen.parent else 0
        if parent is None:
            raise BadQuery("parent", chosen.parent, "must be a request id of this engine")
        begin, end = self.times(chosen)
        for field in ("text", "trigger"):
            if len(value := getattr(chosen, field)) > LONGEST:
                raise BadQuery(field, value, f"must be at most {LONGEST} characters")
        return replace(
            base,
            states=read_states(chosen.status),
            source=chosen.source,
            trigger_id=chosen.trigger,
            parent=parent,
            codes=self.codes(chosen),
            without=frozenset({0} if chosen.code == ANY else ()),
            text=chosen.text,
            begin=begin,
            end=end,
            since=since,
            below=below,
        )

    def times(self, chosen: InvocationFilter) -> tuple[float, float]:
        """Return the begin and the end of the time in which an invocation was accepted."""
        begin = read_time("begin", chosen.begin) if chosen.begin else 0.0
        if chosen.time:
            if chosen.time not in SPANS:
                raise BadQuery("time", chosen.time, f"must be one of {', '.join(SPANS)}")
            begin = max(begin, self._now() - SPANS[chosen.time][1])
        return begin, read_end("end", chosen.end) if chosen.end else math.inf

    def codes(self, chosen: InvocationFilter) -> frozenset[int]:
        return frozenset([whole_number("code", chosen.code, 0, BadQuery)] if chosen.code not in ("", ANY) else ())

    def settled(self, chosen: InvocationFilter) -> InvocationFilter:
        """Return a filter for the same records, and for none that are accepted from now on."""
        begin, end = self.times(chosen)
        until = chosen.end if end < self._now() else exact_time(self._now() - LAST_SECOND)
        return replace(chosen, time="", begin=exact_time(begin), end=until)

    def api_body(self, chosen: InvocationFilter) -> dict[str, Any]:
        """Return the fields of a settled filter that operations of the API on many invocations take."""
        return {
            "source": chosen.source,
            "trigger_id": chosen.trigger,
            "error_codes": sorted(self.codes(chosen)),
            "query_begin_time": chosen.begin,
            "query_end_time": chosen.end,
        }

    def _keys(self, prefix: str) -> tuple[int, int | None]:
        """Return the smallest key, and the key below which all are, of request ids that begin with ``prefix``."""
        if not prefix:
            return 0, None
        keys = self._identity.range_of(prefix)
        if keys is None:
            allowed = "must be a request id of this engine, or its beginning, such as 01a21a4f-a46e"
            raise BadQuery("request", prefix, allowed)
        return keys[0], None if keys[1] >= LAST_KEY else keys[1] + 1


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
            trigger.id: _label(trigger, of_all=not function_id)
            for trigger in islice(self._those(project, function_id), OFFERED)
        }
        if chosen and chosen not in labels:
            link = self._link(project, chosen)
            labels[chosen] = link.name or f"{chosen} (deleted)"
        return sorted(labels.items(), key=lambda option: option[1])

    def of(self, project: str, record: Record) -> TriggerLink | None:
        """Return the trigger that made an invocation; None if none did."""
        return self._link(project, record.trigger_id) if record.trigger_id else None

    def _those(self, project: str, function_id: int) -> Iterator[BoundTrigger]:
        if function_id:
            return iter(self._triggers.of_function(function_id))
        return (trigger for trigger in self._triggers.all() if trigger.project == project)

    def _link(self, project: str, trigger_id: str) -> TriggerLink:
        try:
            trigger = self._triggers.find(project, trigger_id)
        except NotFound:
            return TriggerLink(id=trigger_id)
        return TriggerLink(id=trigger_id, name=name_of(trigger), path=page_of_trigger(trigger))


def _label(trigger: BoundTrigger, *, of_all: bool) -> str:
    text = f"{name_of(trigger)} ({trigger.kind})"
    return f"{short_name(trigger.function)}: {text}" if of_all else text
