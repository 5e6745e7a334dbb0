"""Raw exchanges with the API, and those with bodies with a gateway too: each answers as its listener does for all."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.plugins.apig.test_apig_gateway import gateway
from tests.support.http_app import BASE, serve, urn_of
from tests.support.raw_exchanges import Row, check_engine, in_production
from tests.unit.asgi import (
    test_body_framing,
    test_expectations,
    test_half_closed_clients,
    test_heads,
    test_http_1_0,
    test_pipelining,
    test_upgrades,
)

TABLE = {
    "heads": test_heads.ROWS,
    "body framing": test_body_framing.ROWS,
    "chunks and trailers": test_body_framing.CHUNKED_ROWS,
    "upgrades": test_upgrades.ROWS,
    "expectations": test_expectations.ROWS,
    "half-closed clients": test_half_closed_clients.ROWS,
    "pipelining": test_pipelining.ROWS,
    "HTTP/1.0": test_http_1_0.ROWS,
}
BODIES = ("body framing", "chunks and trailers", "expectations")
ACCEPTING = f"{BASE}/{urn_of()}/invocations-async".encode()


def to_api(sent: bytes) -> bytes:
    """Replace the targets of the table by paths of the API."""
    for name, path in ((b"t", ACCEPTING), (b"g", BASE.encode())):
        sent = sent.replace(b"/%b HTTP/" % name, path + b" HTTP/")
    return sent.replace(b"/probe ", BASE.encode() + b" ")


@in_production
@pytest.mark.parametrize("rows", TABLE.values(), ids=TABLE)
async def test_the_api_answers_as_the_table_says(tmp_path: Path, rows: Sequence[Row]) -> None:
    async with serve(tmp_path) as api:
        await api.create()

        async def taken() -> Sequence[tuple[str, bytes]]:
            requests = [("POST /t", request.payload) for request in api.engine.requests]
            api.engine.requests.clear()
            return requests

        await check_engine(rows, api.port, to_api, taken)


@in_production
@pytest.mark.parametrize("rows", [TABLE[name] for name in BODIES], ids=BODIES)
async def test_a_gateway_answers_as_the_table_says(tmp_path: Path, rows: Sequence[Row]) -> None:
    async with gateway(tmp_path, {"path": "/", "match_mode": "SWA"}) as at:
        port, records = at.client.base_url.port, at.place.engine.storage.records
        assert port is not None
        known: set[int] = set()

        async def taken() -> Sequence[tuple[str, bytes]]:
            keys = [key for key in await at.place.keys() if key not in known]
            known.update(keys)
            events = [json.loads(record.payload) for key in keys if (record := await records.get(key))]
            requests = [(f"{event['httpMethod']} {event['path']}", base64.b64decode(event["body"])) for event in events]
            return [request for request in requests if request[0] == "POST /t"]

        await check_engine(rows, port, lambda sent: sent.replace(b"/probe ", b"/g?probe "), taken)
