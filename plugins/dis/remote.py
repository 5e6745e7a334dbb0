"""Streams of a remote DIS endpoint, used through its REST API with signed requests."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import anyio
import msgspec
from msgspec import Struct

from engine import Clock
from plugins._shared.http_client import Endpoint, HttpService
from plugins.dis.access import Entry, Layout, Page, Part, Put, Start
from plugins.dis.options import DisSettings
from plugins.dis.problems import DisProblem

T = TypeVar("T")

_PARTITION = re.compile(r"shardId-\d+")


class _Error(Struct, frozen=True, kw_only=True):
    code: str = msgspec.field(default="", name="errorCode")
    message: str = ""


class _Partition(Struct, frozen=True, kw_only=True):
    partition_id: str
    status: str = "ACTIVE"
    parent_partitions: str | None = None


class _Description(Struct, frozen=True, kw_only=True):
    stream_id: str
    partitions: list[_Partition]
    has_more_partitions: bool = False


class _Cursor(Struct, frozen=True, kw_only=True):
    partition_cursor: str


class _Results(Struct, frozen=True, kw_only=True):
    records: list[Put]


class RemoteStreams:
    """Streams of a remote endpoint, with the methods of ``Streams`` for readers. It stores no hops.

    Raises DisProblem if DIS refuses; ConnectionError for other error replies; httpx's errors if no reply arrives; and
    msgspec's errors if a reply has another form.
    """

    fresh_for = 30.0  #: seconds for which a reader may use a layout that it has read

    def __init__(self, settings: DisSettings, http: HttpService, clock: Clock) -> None:
        self._endpoint, self._url = Endpoint(settings, http, clock), settings.endpoint

    async def layout(self, project: str, stream: str) -> Layout:
        parts, more = list[Part](), True
        after = stream_id = ""
        while more:
            query = {"limit_partitions": "1000", **({"start_partitionId": after} if after else {})}
            page = await self._request("GET", project, f"streams/{quote(stream)}", _Description, query=query)
            parts += [_part(partition) for partition in page.partitions]
            stream_id, more = page.stream_id, page.has_more_partitions and bool(page.partitions)
            after = parts[-1].id if parts else ""
        return Layout(stream_id=stream_id, parts=tuple(parts))

    async def cursor(self, project: str, stream: str, partition_id: str, start: Start) -> str:
        query = {"stream-name": stream, "partition-id": partition_id, "cursor-type": start.type}
        if start.sequence_number:
            query["starting-sequence-number"] = start.sequence_number
        if start.timestamp:
            query["timestamp"] = str(start.timestamp)
        return (await self._request("GET", project, "cursors", _Cursor, query=query)).partition_cursor

    async def read(self, project: str, cursor: str, max_bytes: int) -> Page:
        query = {"partition-cursor": cursor, "max_fetch_bytes": str(max_bytes)}
        return await self._request("GET", project, "records", Page, query=query)

    def ended(self, stream_id: str) -> None:
        return None

    async def put(self, project: str, stream: str, entries: Sequence[Entry], hops: int = 0) -> Sequence[Put]:
        body = {"stream_name": stream, "records": entries}
        return (await self._request("POST", project, "records", _Results, body=body)).records

    def news(self, project: str, stream: str, partition_id: str, interval: float) -> Callable[[], Awaitable[object]]:
        """Return a function that waits ``interval`` seconds, since the endpoint reports no changes."""
        return partial(anyio.sleep, interval)

    async def _request(
        self,
        method: str,
        project: str,
        path: str,
        answer: type[T],
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> T:
        reply = await self._endpoint.request(method, project, path, query=query, body=body)
        if reply.is_success:
            return msgspec.json.decode(reply.content, type=answer)
        raise _refusal(reply.status_code, reply.content, f"{method} {self._url} /{path.partition('/')[0]}")


def _part(partition: _Partition) -> Part:
    return Part(
        id=partition.partition_id,
        open=partition.status in ("ACTIVE", "CREATING"),
        expired=partition.status == "EXPIRED",
        parents=tuple(_PARTITION.findall(partition.parent_partitions or "")),
    )


def _refusal(status: int, content: bytes, request: str) -> Exception:
    """Return the error for an error reply: a DisProblem if it has an error code of DIS, otherwise a ConnectionError."""
    try:
        error = msgspec.json.decode(content, type=_Error)
    except msgspec.DecodeError:
        error = _Error()
    if error.code.startswith("DIS."):
        return DisProblem(error.code, error.message)
    return ConnectionError(f"{request} was answered {status}: {content[:200].decode(errors='replace')}")
