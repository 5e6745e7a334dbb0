"""Cost of instances, measured by calls of the pool, without HTTP and without a journal.

Run in a separate process as ``python -m bench.instances DIRECTORY SANDBOX COUNT``. Writes a JSON object
to the file ``RESULT`` in the directory. Its lists ``first`` (cold starts only) and ``next`` contain ``COUNT`` times in
seconds each. ``SANDBOX`` selects the measurement: cold starts with ``spawn``, ``fork``, ``bubblewrap`` or ``project``
(a sandbox in the network of a project), round trips to a warm instance with ``dispatch``.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from engine.executors.local.choice import NO_ISOLATION, IsolationOptions
from engine.executors.pool import Pool, PoolOptions, open_pool
from engine.model import CodePackage, Function, Invocation
from engine.runtimes.interpreters import Interpreters, own_interpreter

SOURCE = "import time\n\n\ndef handler(event, context):\n    return time.time()\n"
SANDBOXES = {
    "spawn": NO_ISOLATION,
    "fork": IsolationOptions(isolation="process", fork_server="start"),
    "bubblewrap": IsolationOptions(isolation="bubblewrap"),
    "project": IsolationOptions(isolation="bubblewrap", network="project", user_ids=(1_900_000_000, 100)),
    "dispatch": NO_ISOLATION,
}
RESULT = "seconds.json"
_WARMING = 3  #: unmeasured runs, which load everything that is loaded only once


async def measure(directory: Path, sandbox: str, count: int) -> dict[str, list[float]]:
    (directory / "code").mkdir(exist_ok=True)
    (directory / "code" / "index.py").write_text(SOURCE)
    options = PoolOptions(
        tmp=directory / "tmp",
        log_dir=directory / "logs",
        marker=f"bench-{directory.name}",
        sandbox=SANDBOXES[sandbox],
    )
    interpreters = Interpreters(python=own_interpreter().path)
    async with open_pool(options, code_path=lambda package: directory / "code", interpreters=interpreters) as pool:
        if sandbox == "dispatch":
            return {"next": await _round_trips(pool, count)}
        await _starts(pool, range(_WARMING), memory=128)
        functions = range(_WARMING, _WARMING + count)
        first = await _starts(pool, functions, memory=128)
        return {"first": first, "next": await _starts(pool, functions, memory=256)}


async def _starts(pool: Pool, functions: range, *, memory: int) -> list[float]:
    """Invoke each function once, and return the seconds from each request to the handler of its new instance.

    The instances keep running afterwards.
    """
    times = []
    for number in functions:
        began = time.time()
        outcome = await pool.execute(_function(number, memory), _invocation())
        times.append(float(outcome.result) - began)
    return times


async def _round_trips(pool: Pool, count: int) -> list[float]:
    function, times = _function(0, 128), []
    for _ in range(count + _WARMING):
        began = time.perf_counter()
        await pool.execute(function, _invocation())
        times.append(time.perf_counter() - began)
    return times[_WARMING:]


def _function(number: int, memory: int) -> Function:
    """Return a function for the pool.

    Functions with the same ``number`` share a sandbox, but each ``memory`` (MB) needs an instance of its own.
    """
    values: dict[str, Any] = {
        "function_id": 1, "revision": number, "memory_size": memory, "project": "p", "package": "default", "name": "f",
        "handler": "index.handler", "timeout": 30, "code": CodePackage(sha256="0", digest="", size=1),
        "runtime": f"Python3.{sys.version_info[1]}",
    }  # fmt: skip
    return Function(**values)


def _invocation() -> Invocation:
    return Invocation(key=1, request_id="00000000-0000-7000-8000-000000000001", function_id=1, payload=b"{}")


def main() -> None:
    directory, sandbox, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    (directory / RESULT).write_text(json.dumps(uvloop.run(measure(directory, sandbox, count))))


if __name__ == "__main__":
    main()
