"""EVENTGRID: sender of CloudEvents."""

from __future__ import annotations

import json
from typing import Any

from tests.contracts.rigs import base
from tests.contracts.rigs.webhook import push


class Rig(base.Rig):
    kind = "EVENTGRID"
    pulls = False
    may_disable = False
    change = {"source_name": "shop"}

    def options(self) -> dict[str, Any]:
        return {"channel_id": "c"}

    async def send(self, target: base.Target, number: int) -> bool:
        event = {"id": str(number), "source": "shop", "specversion": "1.0", "type": "paid", "data": number}
        headers = {"content-type": "application/cloudevents+json"}
        return await push(f"{target.url}/triggers/eventgrid/c", json.dumps(event).encode(), headers)

    def numbers(self, event: Any) -> list[int]:
        return [event["data"]]
