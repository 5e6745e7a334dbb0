"""Stream for the states of simulated invocations, in place of a service for log streams."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench.proof.simulation.world import LINES, World
from engine.logs.feed import StatusLines, WriteRows
from engine.logs.target import LogTarget
from engine.model.identity import Identity

#: Numbers of the states in a line, in the numbers of the database.
NUMBERS = {0: 0, 1: 2, 2: 3, 3: 4, 4: 5}


class StateStream:
    plugin = LINES

    def __init__(self, world: World, identity: Identity) -> None:
        self._world, self._identity = world, identity

    async def create(self, project: str, target: LogTarget, *, again: bool) -> None: ...

    async def store(self, written: Sequence[StatusLines], write: WriteRows) -> None:
        states = [
            (self._identity.key_of(line.request_id), NUMBERS[msgspec.json.decode(line.text)["seq_status"]])
            for lines in written
            for line in lines.lines
        ]
        self._world.lines += 1
        await write("states", {f"{self._world.lines:012}": msgspec.json.encode(states)})
