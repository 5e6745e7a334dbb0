"""OBS in a folder: writer of files."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar, Self
from unittest.mock import patch
from urllib.parse import unquote

import anyio

from plugins.obs import watch
from plugins.obs.folder import TICK
from tests.contracts.rigs import base


class Rig(base.Rig):
    kind = "OBS"
    may_disable = False
    change: ClassVar[dict[str, Any]] = {"name": "other"}
    breakable = True
    parts: ClassVar[Sequence[str]] = ("same",)
    counts_removed = False  # removed files cannot be counted

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings = {"plugins.obs.folder": str(folder / "objects")}
        (self._bucket / "in").mkdir(parents=True)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        with patch.object(watch, "LOOK", 0.05):
            yield self

    @property
    def _bucket(self) -> Path:
        return self.folder / "objects" / "photos"

    def options(self) -> dict[str, Any]:
        return {"bucket": "photos", "events": ["ObjectCreated"], "prefix": "in/"}

    async def send(self, target: base.Target, number: int) -> bool:
        made = self.folder / "made"
        made.write_text(str(number))
        made.rename(self._bucket / "in" / str(number))
        await anyio.sleep(3 * TICK)  # files that change together are one batch
        return True

    def numbers(self, event: Any) -> list[int]:
        return [int(unquote(record["s3"]["object"]["key"]).removeprefix("in/")) for record in event["Records"]]

    async def breaks(self) -> None:
        self._bucket.rename(self.folder / "away")

    async def mends(self) -> None:
        (self.folder / "away").rename(self._bucket)

    async def remove(self, target: base.Target) -> None:
        shutil.rmtree(self._bucket)

    async def restore(self, target: base.Target, parts: str) -> None:
        for _ in range(4):  # takes the inodes of the removed folders: an equal one is not noticed by a dead engine
            mkdtemp(dir=self.folder)
        (self._bucket / "in").mkdir(parents=True)
