"""Engine whose event loop is watched: ``python -m bench.lagging FILE --data-dir DIR --port N --log-format json``.

A task on the loop sleeps for a millisecond over and over, and notes in ``FILE`` how late it was at worst: the time in
seconds, and the part of it in which the thread of the loop was computing. The benchmark resets both by writing zeros.
The engine's own metric is coarser, and cannot be reset.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import sys
import time
from pathlib import Path

import uvloop

from engine.app.service import serve
from engine.config.plugin_registry import load_plugins
from engine.config.settings import Settings, load_settings
from engine.metrics.prometheus import configure_logging

FORM = struct.Struct("dd")
TICK = 0.001  #: seconds


class Lag:
    """File that two processes share: worst lag in seconds, and seconds of computing in it."""

    def __init__(self, file: Path) -> None:
        file.touch()
        with file.open("r+b") as opened:
            opened.truncate(FORM.size)
            self._shared = mmap.mmap(opened.fileno(), FORM.size)

    def reset(self) -> None:
        FORM.pack_into(self._shared, 0, 0.0, 0.0)

    def read(self) -> tuple[float, float]:
        lag, computing = FORM.unpack_from(self._shared, 0)
        return float(lag), float(computing)

    async def measure(self) -> None:
        while True:
            began, computed = time.perf_counter(), time.thread_time()
            await asyncio.sleep(TICK)
            lag, computing = time.perf_counter() - began - TICK, time.thread_time() - computed
            worst, most = self.read()
            if lag > worst or computing > most:
                FORM.pack_into(self._shared, 0, max(lag, worst), max(computing, most))


async def run(settings: Settings, file: Path) -> None:
    lag = asyncio.create_task(Lag(file).measure())
    await serve(settings, plugins=load_plugins(settings.plugin), ready=lambda running, url: None)
    lag.cancel()


def main() -> None:
    file, _, directory, _, port, _, form = sys.argv[1:8]
    settings = load_settings(environ=os.environ, overrides={"storage.data_dir": directory, "http.port": port})
    configure_logging(form, "info")
    uvloop.run(run(settings, Path(file)))


if __name__ == "__main__":
    main()
