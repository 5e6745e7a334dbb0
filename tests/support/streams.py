"""Client of DIS over plain HTTP (DIS API: streams, cursors and records)."""

from __future__ import annotations

import base64
from typing import Any

import httpx

from tests.support.http_app import PROJECT


def encoded(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


class Dis:
    """Client of one project's streams at an address, or over an existing HTTP client."""

    def __init__(self, client: httpx.AsyncClient, project: str = PROJECT) -> None:
        self._client, self._project = client, project

    async def ask(
        self, method: str, path: str, body: Any = None, *, version: str = "v2", **query: Any
    ) -> httpx.Response:
        named = {name.replace("__", "-"): value for name, value in query.items()}
        return await self._client.request(method, f"/{version}/{self._project}/{path}", json=body, params=named or None)

    async def create(self, name: str = "clicks", partitions: int = 1) -> None:
        reply = await self.ask("POST", "streams", {"stream_name": name, "partition_count": partitions})
        assert reply.status_code == 201, reply.text

    async def scale(self, count: int, name: str = "clicks") -> None:
        body = {"stream_name": name, "target_partition_count": count}
        reply = await self.ask("PUT", f"streams/{name}", body)
        assert reply.status_code == 200, reply.text

    async def shown(self, name: str = "clicks") -> Any:
        return (await self.ask("GET", f"streams/{name}")).json()

    async def put(self, *data: str, name: str = "clicks", **entry: Any) -> list[dict[str, Any]]:
        records = [{"data": encoded(text), **({"partition_key": text[:256]} | entry)} for text in data]
        reply = await self.ask("POST", "records", {"stream_name": name, "records": records})
        assert reply.status_code == 200, reply.text
        return list(reply.json()["records"])

    async def cursor(self, kind: str = "TRIM_HORIZON", part: str = "0", name: str = "clicks", **query: Any) -> Any:
        query |= {"stream__name": name, "partition__id": part, "cursor__type": kind}
        return (await self.ask("GET", "cursors", **query)).json()

    async def get(self, cursor: str, **query: Any) -> Any:
        return (await self.ask("GET", "records", partition__cursor=cursor, **query)).json()

    async def texts(self, kind: str = "TRIM_HORIZON", part: str = "0", **query: Any) -> list[str]:
        """Return the data of the records from the given cursor on."""
        cursor = (await self.cursor(kind, part, **query))["partition_cursor"]
        return [base64.b64decode(record["data"]).decode() for record in (await self.get(cursor))["records"]]
