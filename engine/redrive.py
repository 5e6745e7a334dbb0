"""What ended badly is sent again: deliveries that were given up, and asynchronous invocations that failed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from engine.clock import Clock
from engine.errors import InvalidField, UnknownInvocation
from engine.functions.catalog import Catalog
from engine.identity import Identity
from engine.model import Owed, Record, Request, State
from engine.protocols import Outbox, Records
from engine.urn import FunctionUrn, parse_urn

#: Deliveries taken up in one transaction when all are meant.
TOGETHER = 500
SOURCE = "REDRIVE"


class Accepting(Protocol):
    async def accept(self, request: Request) -> str: ...


class Redrive:
    """``wake`` is called once deliveries are due again."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        records: Records,
        intake: Accepting,
        catalog: Catalog,
        identity: Identity,
        clock: Clock,
        region: str,
        wake: Callable[[], None],
    ) -> None:
        self._outbox, self._records, self._intake, self._catalog = outbox, records, intake, catalog
        self._identity, self._clock, self._region, self._wake = identity, clock, region, wake

    async def given_up(self, project: str, offset: int, limit: int) -> tuple[Sequence[Owed], int]:
        """Deliveries of the project's functions, the oldest first, and the count of all."""
        return await self._outbox.given_up(self._functions(project), offset, limit)

    async def retrying(self, project: str, limit: int) -> Sequence[Owed]:
        """Deliveries that failed and will be tried again, the next first."""
        return await self._outbox.retrying(self._functions(project), self._clock.now(), limit)

    async def deliver(self, project: str, owed_ids: Collection[int]) -> Sequence[int]:
        """Try these deliveries again, for a day from now; gives those that were given up, and are the project's."""
        found = await self._outbox.revive(self._functions(project), owed_ids, self._clock.now())
        if found:
            self._wake()
        return found

    async def deliver_all(self, project: str) -> Sequence[int]:
        """Those that are given up now."""
        done: list[int] = []
        _, count = await self.given_up(project, 0, 0)
        while len(done) < count:
            page, _ = await self.given_up(project, 0, min(TOGETHER, count - len(done)))
            found = await self.deliver(project, [owed.owed_id for owed in page])
            if not found:
                break  # somebody else was quicker
            done += found
        return done

    async def invoke(self, urn: FunctionUrn, request_id: str) -> str:
        """Send the event of an invocation that failed or was discarded once more, as a new one; gives its id.

        It goes where the first went: to the same version, or to what the alias stands for now. Asked again within a
        day, the answer is the same. Raises UnknownInvocation, InvalidField, and what accepting raises.
        """
        function = self._catalog.find(urn)
        key = self._identity.key_of(request_id)
        record = await self._records.get(key) if key is not None else None
        if record is None or record.function_id != function.function_id:
            raise UnknownInvocation(request_id)
        if record.state not in (State.FAIL, State.DISCARD):
            raise InvalidField("request_ids", request_id, f"is {record.state}: only FAIL and DISCARD are sent again")
        return await self._intake.accept(self._request(urn, record))

    # --- inside ---------------------------------------------------------------------------------------------

    def _functions(self, project: str) -> list[int]:
        return [function.function_id for function in self._catalog.list(project)]

    def _request(self, urn: FunctionUrn, record: Record) -> Request:
        qualifier = f"!{record.alias}" if record.alias else record.version
        return Request(
            function=parse_urn(f"{urn.function}:{qualifier}", region=self._region, project=urn.project),
            payload=record.payload,
            source=SOURCE,
            priority=record.priority,
            hops=record.hops,
            idempotency_key=f"redrive:{record.request_id}",
        )
