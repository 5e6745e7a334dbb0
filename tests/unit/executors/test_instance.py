"""Requests of an instance that serves several, and the kill of the whole instance."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from engine.executors.call import Call, End, key_of
from engine.executors.instance import Instance
from engine.executors.logs import LogFiles, LogRecorder
from engine.executors.process import Exit
from engine.logs.feed import LogBoard
from engine.model import Code
from engine.model.clock import SystemClock
from engine.runtimes.protocol import DONE, Answer
from tests.support.executing import function, invocation

GRACE = 0.01


class Running:
    """Process and channel that do nothing (protocols ``InstanceProcess``, ``Channel``), and owner of the instance."""

    id, pid, alive, connected, unsent = "i", 1, True, True, False

    def kill(self) -> None: ...

    def reap(self) -> Exit:
        return Exit(0)

    def write(self, frame: bytes) -> bool:
        return True

    def read_output(self) -> None: ...

    def read_rest(self) -> bool:
        return False

    def abort(self) -> None: ...

    def close(self) -> None: ...

    def instance_ended(self, instance: Instance) -> None: ...

    def instance_closed(self, instance: Instance) -> None: ...


async def test_an_answer_at_the_end_of_the_grace_period_spares_the_other_requests(tmp_path: Path) -> None:
    asked, running, clock = function("any", concurrent_num=2), Running(), SystemClock()
    recorder = LogRecorder(LogFiles(tmp_path, 1 << 20), limit=1 << 10, clock=clock, board=LogBoard())
    instance = Instance(
        running,
        key=key_of(asked),
        function=asked,
        owner=running,
        recorder=recorder,
        on_work=lambda instance: None,
        grace=GRACE,
    )
    instance.connect(running)
    calls = [Call(key_of(asked), asked, invocation()) for _ in range(2)]
    tasks = [asyncio.ensure_future(instance.invoke(call, invocation(), 60.0)) for call in calls]
    await asyncio.sleep(0)

    instance.interrupt(End.CANCELLED, calls[0])
    answer = Answer(DONE, Code.OK, 0, "", b"", calls[0].ticket)
    asyncio.get_running_loop().call_soon(instance._receive, answer)
    time.sleep(2 * GRACE)  # the loop finds the answer and the end of the grace period in one turn  # noqa: ASYNC251

    assert await tasks[0] is None
    assert instance.end is None
    tasks[1].cancel()
