"""Minimal pull source for the suite: each line of a file is an event."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import anyio
import msgspec
from anyio.abc import TaskStatus
from msgspec import Meta, Struct

from engine import Event, Plugin, TriggerContext
from tests.contracts.rigs import base

#: lines stored in one transaction
BATCH_SIZE = 10


class LinesOptions(Struct, frozen=True, kw_only=True):
    path: Annotated[str, Meta(min_length=1)]
    note: str = ""


class LinesTrigger:
    def __init__(self, options: LinesOptions) -> None:
        self._path = Path(options.path)

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        while True:
            lines = self._path.read_text().splitlines()
            done = int(context.cursors.get("lines", b"0"))
            events = [Event(payload=msgspec.json.encode(line)) for line in lines[done : done + BATCH_SIZE]]
            if events:
                await context.accept_batch(events, {"lines": b"%d" % (done + len(events))})
            else:
                await anyio.sleep(0.005)


plugin = Plugin(kinds=("LINES",), options=LinesOptions, trigger=LinesTrigger)


class Rig(base.Rig):
    kind = "LINES"
    modules = ("tests.contracts.rigs.lines",)
    change = {"note": "changed"}
    breakable = True

    @property
    def _path(self) -> Path:
        return self.folder / "lines"

    def options(self) -> dict[str, Any]:
        self._path.touch()
        return {"path": str(self._path)}

    async def send(self, target: base.Target, number: int) -> bool:
        with self._path.open("a") as file:
            file.write(f"{number}\n")
        return True

    def numbers(self, event: Any) -> list[int]:
        return [int(event)]

    async def breaks(self) -> None:
        self._path.rename(self.folder / "away")

    async def mends(self) -> None:
        (self.folder / "away").rename(self._path)
