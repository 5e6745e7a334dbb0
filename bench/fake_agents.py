"""Agents that run no code: each speaks the real protocol over TLS, and answers every request at once.

Run as ``python -m bench.fake_agents PORT TOKENS INSTANCES``, with the folder of the token files, and the number of
instances of 128 MB that each agent has room for. Runs until it is killed.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import uvloop

from bench.agents import CPU, MEMORY
from engine import __version__
from engine.executors.nodes import messages
from engine.executors.nodes.connection import CONTROL, FRAMES, LONGEST_CONTROL, Connection
from engine.runtimes.protocol import DONE, INVOKE, ITSELF, READY

_ANSWER = struct.Struct("!IBIHII")  #: see ``engine.runtimes.protocol``
_TICKET = struct.Struct("!IBI")
_RESULT = b"1.0"


class FakeAgent:
    """Agent without instances (protocol ``ConnectionOwner``)."""

    def __init__(self) -> None:
        self.welcome = asyncio.get_running_loop().create_future()
        self.connection = Connection(self)

    async def run(self, port: int, token: str, instances: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self.connection, "127.0.0.1", port, ssl=context)
        hello = messages.Hello(
            version=__version__,
            wire=messages.WIRE,
            token=token,
            at=time.time(),
            cpus=instances * CPU + 0.1,
            memory=instances * MEMORY,
        )
        messages.send(self.connection, hello)
        welcome: messages.Welcome = await self.welcome
        messages.send(self.connection, messages.Joined(walls={"isolation": "none", "network": "none"}))
        for number in count():
            messages.send(self.connection, messages.Ping(number))
            await asyncio.sleep(welcome.lease / 5)

    def received(self, kind: int, channel: int, body: bytes) -> None:
        if kind == FRAMES:
            self._answer(channel, body)
        elif kind == CONTROL:
            self._handle(messages.from_engine(body))

    def _answer(self, channel: int, frames: bytes) -> None:
        at, answers = 0, []
        while at < len(frames):
            length, kind, ticket = _TICKET.unpack_from(frames, at)
            at += 4 + length
            if kind == INVOKE:
                answers.append(_answer(DONE, ticket))
        self.connection.send(FRAMES, channel, b"".join(answers))

    def _handle(self, message: Any) -> None:
        match message:
            case messages.Welcome():
                self.connection.limit = LONGEST_CONTROL
                self.welcome.set_result(message)
            case messages.Prepare():
                messages.send(self.connection, messages.Prepared(message.number, command="none"), message.number)
            case messages.Start():
                self.connection.send(FRAMES, message.number, _answer(READY, ITSELF))
            case messages.Kill():
                messages.send(self.connection, messages.Gone(number=message.number), message.number)

    def full(self, is_full: bool) -> None: ...

    def closed(self, reason: str) -> None:
        sys.exit(reason)


def _answer(kind: int, ticket: int) -> bytes:
    return _ANSWER.pack(_ANSWER.size - 4 + len(_RESULT), kind, ticket, 0, 1024, 0) + _RESULT


async def run(port: int, tokens: list[str], instances: int) -> None:
    await asyncio.gather(*(FakeAgent().run(port, token, instances) for token in tokens))


if __name__ == "__main__":
    shown = [file.read_text().strip() for file in Path(sys.argv[2]).glob("*.token")]
    uvloop.run(run(int(sys.argv[1]), shown, int(sys.argv[3])))
