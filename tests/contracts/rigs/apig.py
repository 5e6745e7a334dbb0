"""APIG: client of the gateway. Requests carry an idempotency key, so that they can be repeated."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from tests.contracts.rigs import base
from tests.contracts.rigs.webhook import push
from tests.support.gateways import API
from tests.support.ports import free_port


class Rig(base.Rig):
    kind = "APIG"
    pulls = False
    may_disable = False
    change = {"name": "other"}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port = free_port()
        self.settings["plugins.apig.port"] = self._port

    def options(self) -> dict[str, Any]:
        return {**API, "req_method": "POST", "func_info": {"invocation_type": "async"}}

    async def send(self, target: base.Target, number: int) -> bool:
        headers = {"Idempotency-Key": f"m{number}"}
        return await push(f"http://127.0.0.1:{self._port}/orders", str(number).encode(), headers)

    def numbers(self, event: Any) -> list[int]:
        return [int(base64.b64decode(event["body"]))]
