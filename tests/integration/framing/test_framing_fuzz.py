"""Fuzz of HTTP framing: valid and mutated streams, read by a listener and by Node.

A failure names the seed and the number of its stream. Run this stream alone by ``--fuzz-seed`` and ``--fuzz-stream``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import structlog
import uvloop

from tests.integration.framing.judging import Wrong, judge
from tests.integration.framing.peers import Peers, running_peers
from tests.integration.framing.streams import Stream, stream
from tests.support.programs import needs

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1200),
    needs("node"),
]
CONCURRENT = 64
FAILURES = 5  #: after which a run ends
MAX_WAIT = 60.0  #: seconds after which a connection counts as hanging; the listener closes idle ones only later


class Run:
    """Streams of one seed on one event loop."""

    def __init__(self, seed: int, numbers: Iterator[int], seconds: float) -> None:
        self._seed, self._numbers, self._seconds = seed, numbers, seconds
        self.done = self.expected = self.read = 0
        self.failures: list[str] = []
        self.problems: list[str] = []

    async def run(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.problems.append(repr(context)))
        async with running_peers() as peers, asyncio.TaskGroup() as tasks:
            self._end = time.monotonic() + self._seconds
            for _ in range(CONCURRENT):
                tasks.create_task(self._work(peers))

    async def _work(self, peers: Peers) -> None:
        for number in self._numbers:
            if len(self.failures) >= FAILURES or time.monotonic() > self._end:
                return
            await self._try(peers, stream(self._seed, number))

    async def _try(self, peers: Peers, sent: Stream) -> None:
        here = node = None
        try:
            async with asyncio.timeout(MAX_WAIT):
                here, node = await asyncio.gather(peers.read_here(sent.pieces), peers.read_by_node(sent.pieces))
            judge(sent, here, node)
        except (Wrong, TimeoutError) as problem:
            self.failures.append(
                f"seed {sent.seed}, stream {sent.number}: {problem or 'the connection hangs'}\n"
                f"  pieces: {sent.pieces}\n  listener: {here}\n  Node: {node}"
            )
            return
        self.done += 1
        self.expected += len(sent.expected)
        self.read += sum(seen.whole for seen in here.seen)


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_no_stream_is_read_otherwise_than_by_node(
    new_loop: Callable[[], asyncio.AbstractEventLoop], request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    seed, only = (int(request.config.getoption(f"--fuzz-{name}")) for name in ("seed", "stream"))
    seconds = float(request.config.getoption("--fuzz-seconds")) / 2  # each of two loops has its half
    numbers = iter([only]) if only >= 0 else count(0 if "uvloop" in request.node.name else 1, 2)
    run = Run(seed, numbers, seconds)
    began = time.monotonic()
    with (
        caplog.at_level(logging.WARNING),
        structlog.testing.capture_logs() as logs,
        asyncio.Runner(loop_factory=new_loop) as runner,
    ):
        runner.run(run.run())
    rate = run.done / (time.monotonic() - began)
    print(f"seed {seed}: {run.done} streams, {rate:.0f} a second, {run.read} requests, {run.expected} of them promised")

    assert not run.failures, "\n\n".join(run.failures)
    assert [record.getMessage() for record in caplog.records] + [str(line) for line in logs] + run.problems == []
    assert run.done
