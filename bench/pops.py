"""Time to choose the next invocation of a backlog.

Uses the run queue and scheduler on a real journal, and executes nothing.

Run in a separate process as ``python -m bench.pops DIRECTORY FUNCTION COUNT``. Prints microseconds as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import anyio
import uvloop

from engine.model.clock import SystemClock
from engine.scheduling.runqueue import RunQueue
from engine.scheduling.scheduler import Scheduler
from engine.storage import StorageOptions, open_storage
from engine.storage.data_directory import locked


async def measure(directory: Path, function_id: int, count: int) -> dict[str, float]:
    """Return two times in microseconds, including the reads of the journal.

    ``first`` is the time to recover the scheduler from the journal and choose the first invocation. ``pop`` is the mean
    time of each of the ``count - 1`` choices after it.
    """
    with locked(directory):
        async with open_storage(StorageOptions(directory=directory)) as storage:
            queue = RunQueue(slots=8, sync_slots=0, memory=1 << 20)
            scheduler = Scheduler(queue, storage.window, SystemClock())
            scheduler.configure(function_id, weight=1.0, limit=-1, memory=128)
            began = time.perf_counter()
            scheduler.recover(await storage.journal.recover())
            async with anyio.create_task_group() as services:
                await services.start(scheduler.run)
                scheduler.release(await scheduler.take(), 0.001)
                first = time.perf_counter()
                for _ in range(count - 1):
                    scheduler.release(await scheduler.take(), 0.001)
                ended = time.perf_counter()
                services.cancel_scope.cancel()
    return {"first": (first - began) * 1e6, "pop": (ended - first) / (count - 1) * 1e6}


def main() -> None:
    directory, function_id, count = sys.argv[1:4]

    async def work() -> dict[str, float]:
        return await measure(Path(directory), int(function_id), int(count))

    print(json.dumps(uvloop.run(work())))


if __name__ == "__main__":
    main()
