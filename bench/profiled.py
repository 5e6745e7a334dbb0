"""Engine that runs under cProfile: ``python -m bench.profiled FILE --data-dir DIR --port N --log-format json``.

Only the thread of the event loop is profiled, and its statistics are written to ``FILE``. The profiler adds its own
cost to each call, so small functions appear more expensive than they are. Compare functions with each other, and take
absolute times from a run without the profiler.
"""

from __future__ import annotations

import cProfile
import os
import sys

import uvloop

from engine.app.service import serve
from engine.config.plugin_registry import load_plugins
from engine.config.settings import load_settings
from engine.metrics.prometheus import configure_logging


def main() -> None:
    file, _, directory, _, port, _, form = sys.argv[1:8]
    settings = load_settings(environ=os.environ, overrides={"storage.data_dir": directory, "http.port": port})
    configure_logging(form, "info")
    profiler = cProfile.Profile()
    with profiler:
        uvloop.run(serve(settings, plugins=load_plugins(settings.plugin), ready=lambda running, url: None))
    profiler.dump_stats(file)


if __name__ == "__main__":
    main()
