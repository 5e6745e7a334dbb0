"""OBS: store that posts notifications of its objects."""

from __future__ import annotations

import json
from pathlib import Path

from tests.contracts.rigs import obs_folder
from tests.contracts.rigs.base import Target
from tests.contracts.rigs.webhook import push

TOKEN = "a-token"


class Rig(obs_folder.Rig):
    pulls = False
    breakable = False
    parts = ()

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings = {"plugins.obs.token": TOKEN}

    async def send(self, target: Target, number: int) -> bool:
        place = {"bucket": {"name": "photos"}, "object": {"key": f"in/{number}", "size": 1}}
        headers = {"authorization": f"Bearer {TOKEN}"}
        record = {"eventName": "s3:ObjectCreated:Put", "eventTime": "2026-03-01T06:30:00.123Z", "s3": place}
        return await push(f"{target.url}/triggers/obs", json.dumps({"Records": [record]}).encode(), headers)
