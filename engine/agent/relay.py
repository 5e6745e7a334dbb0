"""Relay: instance on a node whose requests come from the engine. Frames and output go through as they are.

A child that writes faster than the connection carries is not read for a while, so that it waits.
"""

from __future__ import annotations

import asyncio
from typing import Any

from engine.executors.call import Call, End
from engine.executors.instance import Instance
from engine.executors.local.channel import LocalChannel
from engine.executors.nodes.connection import FRAMES, STDERR, STDOUT, Connection
from engine.executors.process import Channel, InstanceProcess
from engine.logs import lines

_MOST_UNSENT = 256 << 10  #: bytes of one instance at which it is not read until everything is sent
_KINDS = {lines.STDOUT: STDOUT, lines.STDERR: STDERR}


class Relay(Instance):
    """Instance that passes on data, and serves no calls of its own. ``number`` is its channel on the connection."""

    def __init__(self, outlet: Outlet, process: InstanceProcess, **values: Any) -> None:
        super().__init__(process, **values)
        self.number: int = values["owner"].number
        self.accepted = 0  #: bytes of frames from the engine
        self._outlet = outlet
        self._local: LocalChannel | None = None

    def connect(self, channel: Channel) -> None:
        assert isinstance(channel, LocalChannel)
        super().connect(channel)
        self._local = channel

    def set_reading(self, reading: bool) -> None:
        if self._local is not None and not self.closed.is_set():
            self._local.set_reading(reading)

    async def request(self, call: Call, frame: bytes, seconds: float, soft_timeout: float = 0.0) -> None:
        """Send SETUP, and wait until the instance has closed. The engine receives the answer, and has the timer."""
        self.calls[call.ticket] = call  # the memory of an instance is measured while it has calls
        self.feed(frame)
        self.accepted = 0
        await self.closed.wait()

    def feed(self, frames: bytes) -> None:
        """Pass on frames of the engine."""
        if self.end is not None:
            return  # the engine learns by ``accepted`` that nobody has read them
        self.accepted += len(frames)
        if self._local is None or not self._local.write(frames):
            self.unread = True
            self.kill(End.EXITED)

    def received(self, data: bytes) -> None:
        if self._local is not None:
            self._local.read_output()  # output that was written before an answer goes out before it
        self._outlet.send(self, FRAMES, data)

    def record_output(self, stream: int, text: bytes) -> None:
        self._outlet.send(self, _KINDS[stream], text)


class Outlet:
    """Way of all relays to the engine."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._paused: set[Relay] = set()
        self._resuming: asyncio.Task[None] | None = None

    def send(self, relay: Relay, kind: int, data: bytes) -> None:
        connection = self._connection
        connection.send(kind, relay.number, data)
        if (connection.full or connection.unsent(relay.number) > _MOST_UNSENT) and relay not in self._paused:
            relay.set_reading(False)
            self._paused.add(relay)
            self._resuming = self._resuming or asyncio.create_task(self._resume())

    async def _resume(self) -> None:
        await self._connection.room()
        paused, self._paused, self._resuming = self._paused, set(), None
        for relay in paused:
            relay.set_reading(True)
