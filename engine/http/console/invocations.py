"""Console pages of asynchronous invocations: list of a project's or a function's, and details of one invocation.

A list reads only a limited number of the newest records, however many are stored.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from engine.asgi.wire import Reply
from engine.errors import UnknownInvocation
from engine.functions.catalog import Catalog
from engine.functions.invocation_filter import selection_of
from engine.http.api.logs import LogArchive, attempt_of, log_of
from engine.http.api.paging import bounds
from engine.http.api.records import read_states
from engine.http.api.redrive import RedriveApi
from engine.http.api.routing import Call, Handler, own_urn
from engine.http.console.pages import Action, Pages
from engine.http.console.paths import PROJECT
from engine.http.console.visibility import delivery_shown, sees_payloads
from engine.logs.lines import Line, decode, last
from engine.model import Record, State
from engine.model.identity import Identity
from engine.model.urn import LATEST
from engine.pipeline.redrive import Redrive
from engine.protocols import Records, Selection

ROWS = 50
WITHIN = 10_000  #: newest rows that a list reads
TEXT = 16 << 10  #: bytes shown of an event, and of a result
LOG = 64 << 10  #: bytes shown of a log, at its end


class InvocationsPage:
    def __init__(
        self,
        pages: Pages,
        catalog: Catalog,
        records: Records,
        identity: Identity,
        archive: LogArchive,
        redrive: Redrive,
        api: RedriveApi,
        region: str,
    ) -> None:
        self._pages, self._catalog, self._records, self._identity = pages, catalog, records, identity
        self._archive, self._redrive, self._item, self._region = archive, redrive, api.item, region

    def pages(self) -> Mapping[str, Handler]:
        return {f"{PROJECT}/invocations": self.show_all, f"{PROJECT}/invocations/{{request_id}}": self.show}

    def actions(self) -> Mapping[str, Action]:
        return {}

    async def show_all(self, call: Call) -> Reply:
        functions = {one.function_id: one for one in self._catalog.list(call.project)}
        offset, limit = bounds(call, "limit", maximum=ROWS)
        states = read_states(call.text("status"))
        selection = replace(
            self._selection(call, frozenset(functions)), states=states, within=WITHIN, offset=offset, limit=limit
        )
        records, count = await self._records.list(selection) if functions else ([], 0)
        return await self._pages.show(
            call,
            "invocations.html",
            functions=functions,
            function=call.text("function"),
            status=call.text("status"),
            states=list(State),
            records=records,
            incomplete=self._records.incomplete,
            count=count,
            within=WITHIN,
            offset=offset,
            limit=limit,
        )

    async def show(self, call: Call) -> Reply:
        record = await self._record(call)
        function = self._catalog.resolve(record.function_id, LATEST)
        attempt = attempt_of(call, record)
        log, cut = await self._log(record, attempt)
        pending = [delivery_shown(call, self._item(one)) for one in await self._redrive.deliveries_of(record)]
        readable = sees_payloads(call)
        return await self._pages.show(
            call,
            "invocation.html",
            live=not record.state.final or any(one.next_try for one in pending),
            record=record,
            progress=None if record.state.final else self._archive.progress(record.key),
            function=function,
            payload=_text(record.payload) if readable else None,
            result=_text(record.result) if readable else None,
            log=log,
            log_cut=cut,
            log_attempt=attempt,
            pending=pending,
        )

    def _selection(self, call: Call, functions: frozenset[int]) -> Selection:
        name = call.text("function")
        if not name:
            return Selection(functions=functions)
        return selection_of(self._catalog, own_urn(name, call.project, self._region))

    async def _record(self, call: Call) -> Record:
        """Return the record of the invocation that the path names.

        Raises UnknownInvocation if it is not stored, or belongs to another project than the path.
        """
        request_id = call.part("request_id")
        key = self._identity.key_of(request_id)
        record = await self._records.get(key) if key is not None else None
        if record is None or self._catalog.project_of(record.function_id) != call.project:
            raise UnknownInvocation(request_id)
        return record

    async def _log(self, record: Record, attempt: int | None) -> tuple[list[Line], bool]:
        """Return the lines at the end of an attempt's log, and whether earlier lines are left out."""
        log = await log_of(self._archive, record, attempt)
        return list(decode(last(log, LOG))), len(log) > LOG


def _text(body: bytes) -> tuple[str, int]:
    """Return the first ``TEXT`` bytes of ``body`` as text, and the number of bytes left out."""
    return body[:TEXT].decode("utf-8", "replace"), max(0, len(body) - TEXT)
