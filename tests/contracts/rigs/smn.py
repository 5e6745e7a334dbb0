"""SMN: external topic that pushes signed messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from tests.contracts.rigs import base
from tests.contracts.rigs.webhook import push
from tests.support.topics import TOPIC, Signer, encoded, serving


class Rig(base.Rig):
    kind = "SMN"
    pulls = False
    may_disable = False
    change = {"topic_urn": TOPIC}

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        self._signer, self._signed = Signer(), dict[int, bytes]()
        async with serving(self._signer):
            self.settings["plugins.smn.private_hosts"] = self._signer.host
            yield self

    def options(self) -> dict[str, Any]:
        return {"topic_urn": TOPIC}

    async def send(self, target: base.Target, number: int) -> bool:
        if number not in self._signed:  # a repeated push is identical, signature included
            self._signed[number] = encoded(self._signer.notification(number))
        return await push(target.url + target.path, self._signed[number], {})

    def numbers(self, event: Any) -> list[int]:
        return [int(event["record"][0]["smn"]["message"].split()[1])]
