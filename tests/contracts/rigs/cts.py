"""CTS: sender of traces."""

from __future__ import annotations

import json
from typing import Any

from tests.contracts.rigs import base
from tests.contracts.rigs.webhook import push


class Rig(base.Rig):
    kind = "CTS"
    pulls = False
    may_disable = False
    change = {"name": "other"}

    def options(self) -> dict[str, Any]:
        return {"name": "audit", "operations": ["ECS:ecs;disk:startServer;stopServer"]}

    async def send(self, target: base.Target, number: int) -> bool:
        trace = {"trace_id": str(number), "service_type": "ECS", "resource_type": "ecs", "trace_name": "stopServer"}
        return await push(f"{target.url}/triggers/cts", json.dumps(trace).encode(), {})

    def numbers(self, event: Any) -> list[int]:
        return [int(event["cts"]["trace_id"])]
