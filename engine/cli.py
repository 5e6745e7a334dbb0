"""Commands of functiond."""

import sys

import uvloop

from engine.registry import load_plugins
from engine.service import serve
from engine.settings import load_settings
from engine.telemetry import configure_logging


def main() -> None:
    data_dir, port = sys.argv[2:4]
    settings = load_settings(overrides={"storage.data_dir": data_dir, "http.port": port})
    configure_logging(settings.log.format, settings.log.level)
    uvloop.run(serve(settings, plugins=load_plugins(settings.plugin), ready=lambda engine, url: None))
