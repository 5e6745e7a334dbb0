"""Redrive: repeats failed or discarded asynchronous invocations.

The failed invocations of a function are redriven in steps of limited size, from the newest to the oldest. A repeated
invocation is newer than the position of the next step, so it is not repeated again if it fails meanwhile. The intake
applies the same limits to these requests as to all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import asdict, replace

from engine.errors import (
    FunctiondError,
    FunctionDisabled,
    InvalidField,
    Overloaded,
    Unavailable,
)
from engine.functions.catalog import Catalog
from engine.functions.invocation_filter import record_of, selection_of
from engine.model import Code, Record, Request, State
from engine.model.identity import Identity
from engine.model.urn import FunctionUrn, parse_urn
from engine.pipeline.intake import Intake
from engine.protocols import Records

SOURCE = "REDRIVE"
FAILED = frozenset({State.FAIL, State.DISCARD})


class Chosen(Struct, frozen=True, kw_only=True):
    """Filter of failed invocations: fields of ``Selection``. Cancelled ones match only if ``codes`` has their code."""

    states: frozenset[State] = FAILED
    codes: frozenset[int] = frozenset()  #: empty: any
    source: str = ""  #: empty: any
    trigger_id: str = ""  #: empty: any, or none
    begin: float = 0.0  #: accepted from this time on
    end: float = math.inf  #: accepted before this time


class Edit(Struct, frozen=True, kw_only=True):
    """Changes of an invocation that is run again."""

    payload: bytes | None = None  #: None: the earlier one
    priority: int | None = None  #: None: the earlier one
    delay: float = 0.0  #: seconds
    idempotency_key: str = ""


class Step(Struct, frozen=True, kw_only=True):
    """Result of one step of redriving the failed invocations of a function."""

    sent: Sequence[tuple[str, str]]  #: request ids of a failed invocation and of the new one
    refused: Sequence[tuple[str, str]]  #: request id, and why it can never be redriven
    count: int | None  #: failed, discarded and cancelled invocations of this step and later ones; None: not counted
    below: int | None  #: ``below`` for the next step; None: this was the last step


class Redrive:
    def __init__(self, records: Records, intake: Intake, catalog: Catalog, identity: Identity, region: str) -> None:
        self._records, self._intake, self._catalog = records, intake, catalog
        self._identity, self._region = identity, region

    async def invoke(self, urn: FunctionUrn, request_id: str) -> str:
        """Invoke the function again with the event of a failed or discarded invocation. Return the new request id.

        The new invocation has the ordering key of the earlier one, and takes the last place of this key. The same
        version is invoked again. If the earlier request named an alias, the version that the alias selects now is
        invoked. A repeated call returns the same id while idempotency keys are stored (by default, for a day).

        Raises UnknownInvocation if the function has no such invocation, InvalidField if the invocation is not FAIL or
        DISCARD, and the errors of ``Intake.accept``.
        """
        function = self._catalog.find(urn)
        record = await record_of(self._records, self._identity, function, request_id)
        if record.state not in FAILED:
            raise InvalidField("request_ids", request_id, f"is {record.state}; only FAIL and DISCARD can be redriven")
        return await self._intake.accept(self._request(urn, record))

    async def run_again(self, urn: FunctionUrn, request_id: str, edit: Edit) -> str:
        """Invoke the function with the event of an invocation that has ended, or with another. Return the new id.

        The version is chosen as by ``invoke``. Raises UnknownInvocation if the function has no such invocation,
        InvalidField if it has not ended, and the errors of ``Intake.accept``.
        """
        record = await record_of(self._records, self._identity, self._catalog.find(urn), request_id)
        if not record.state.final:
            raise InvalidField("request_id", request_id, f"is {record.state}; cancel it, or wait for its end")
        if edit.payload is not None:
            record = replace(record, payload=edit.payload, damaged=record.damaged - {"payload"})
        request = self._request(urn, record)
        priority = record.priority if edit.priority is None else edit.priority
        return await self._intake.accept(
            replace(request, priority=priority, delay=edit.delay, idempotency_key=edit.idempotency_key)
        )

    async def invoke_failed(
        self, urn: FunctionUrn, chosen: Chosen, *, below: int | None, limit: int, counted: bool = True
    ) -> Step:
        """Redrive up to ``limit`` failed or discarded invocations that match, newest first.

        The URN selects a version or an alias. Only invocations with keys below ``below`` are redriven. All that are
        left are counted if ``counted`` is set, which takes long if they are many. If the intake raises Overloaded,
        Unavailable or FunctionDisabled after some invocations, the step ends early. If this happens at the first
        invocation, the error is raised.
        """
        scope = replace(selection_of(self._catalog, urn), **asdict(chosen), below=below, limit=limit, counted=counted)
        records, total = await self._records.list(scope)
        count = total if counted else None
        last = len(records) < limit if count is None else count <= len(records)
        sent: list[tuple[str, str]] = []
        refused: list[tuple[str, str]] = []
        for listed in records:
            try:
                wanted = listed.code != Code.CANCELLED or listed.code in chosen.codes
                if wanted and (record := await self._records.get(listed.key)) is not None:
                    sent.append((record.request_id, await self._intake.accept(self._request(urn, record))))
            except (Overloaded, Unavailable, FunctionDisabled):
                if below == scope.below:
                    raise
                return Step(sent=sent, refused=refused, count=count, below=below)
            except FunctiondError as error:
                refused.append((listed.request_id, str(error)))
            below = listed.key
        return Step(sent=sent, refused=refused, count=count, below=None if last else below)

    # --- inside ---------------------------------------------------------------------------------------------

    def _request(self, urn: FunctionUrn, record: Record) -> Request:
        if "payload" in record.damaged:
            problem = "has a damaged payload on disk; send the event again"
            raise InvalidField("request_ids", record.request_id, problem)
        qualifier = f"!{record.alias}" if record.alias else record.version
        return Request(
            function=parse_urn(f"{urn.function}:{qualifier}", region=self._region, project=urn.project),
            payload=record.payload,
            source=SOURCE,
            priority=record.priority,
            hops=record.hops,
            trace=record.trace,
            idempotency_key=f"redrive:{record.request_id}",
            ordering_key=record.ordering_key,
            cause=record.key,
        )
