"""New invocation with the event of an earlier one, or with an edited event (extension of the API)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from engine.asgi.wire import Reply, json_reply
from engine.errors import PayloadTooLarge
from engine.functions.catalog import Catalog
from engine.http.api.invocations import read_idempotency_key
from engine.http.api.routing import BASE, SHORT_LIMIT, Call, Resource
from engine.model.limits import LONGEST_DELAY
from engine.pipeline.redrive import Edit, Redrive

Priority = Annotated[int, Meta(ge=0, le=9)]
Delay = Annotated[float, Meta(ge=0, le=LONGEST_DELAY)]


class RunAgainBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes of the new invocation. Without any, the event is invoked again as it was."""

    event: msgspec.Raw | UnsetType = UNSET  #: any JSON value, in place of the earlier event
    priority: Priority | UnsetType = UNSET
    delay: Delay = 0.0  #: seconds


class RunAgainReply(Struct, frozen=True, kw_only=True):
    request_id: str  #: of the new invocation


class RunAgainApi:
    """Family with one operation. ``limit`` is the largest event in bytes."""

    def __init__(self, catalog: Catalog, redrive: Redrive, limit: int) -> None:
        self._catalog, self._redrive, self._limit = catalog, redrive, limit

    def resources(self) -> list[Resource]:
        path = f"{BASE}/functions/{{function_urn}}/async-invocations/{{request_id}}/run-again"
        return [Resource(path=path, methods={"POST": self.run_again})]

    async def run_again(self, call: Call) -> Reply:
        urn = call.urn
        self._catalog.find(urn)
        key = read_idempotency_key(call.headers.get(b"idempotency-key"))
        body = await call.read(RunAgainBody, self._limit + SHORT_LIMIT, empty=RunAgainBody())
        event = None if body.event is UNSET else bytes(body.event)
        if event is not None and len(event) > self._limit:
            raise PayloadTooLarge(self._limit)
        edit = Edit(
            payload=event,
            priority=None if body.priority is UNSET else body.priority,
            delay=body.delay,
            idempotency_key=key,
        )
        request_id = await self._redrive.run_again(urn, call.part("request_id"), edit)
        reply = json_reply(RunAgainReply(request_id=request_id))
        return msgspec.structs.replace(reply, status=202, headers=((b"x-cff-request-id", request_id.encode()),))
