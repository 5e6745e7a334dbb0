"""WEBHOOK: sender of signed requests."""

from __future__ import annotations

import base64
import time
from typing import Any

import httpx

from plugins.webhook.signatures import sign
from tests.contracts.rigs import base

KEY = b"a key of some length"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


class Rig(base.Rig):
    kind = "WEBHOOK"
    pulls = False
    change = {"name": "other"}

    def options(self) -> dict[str, Any]:
        return {"name": "orders", "secret": SECRET}

    async def send(self, target: base.Target, number: int) -> bool:
        body, now = str(number).encode(), int(time.time())
        headers = {"webhook-id": f"m{number}", "webhook-timestamp": str(now)}
        headers["webhook-signature"] = sign(KEY, f"m{number}", now, body)
        return await push(target.url + target.path, body, headers)

    def numbers(self, event: Any) -> list[int]:
        return [int(event["body"])]


async def push(url: str, body: bytes, headers: dict[str, str]) -> bool:
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        try:
            reply = await client.post(url, content=body, headers=headers)
        except httpx.TransportError:  # the engine is not running
            return False
    if reply.status_code in (429, 503):
        assert int(reply.headers["retry-after"]) > 0
    return reply.is_success
