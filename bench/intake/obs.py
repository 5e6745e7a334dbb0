"""Intake of events about new objects.

The events are notifications that an object store sends over HTTP, and files that are moved into a watched folder.
"""

from __future__ import annotations

import json

from bench.harness import Options, Round, scratch
from bench.intake.source import Listening, Source, Watch, figures, posted
from bench.load import STAMP
from bench.server import engine

FILES = 5000
OBJECTS = {"bucket": "b", "events": ["ObjectCreated"]}
RECORD = {
    "eventName": "s3:ObjectCreated:Put",
    "eventTime": "2026-03-01T06:30:00.123Z",
    "s3": {"bucket": {"name": "b"}, "object": {"key": f"in%2F{STAMP}", "size": 1, "eTag": "e"}},
}


def measure(options: Options) -> Round:
    return {**_notified(options), **_folder(options)}


_notified = posted("obs notified", "OBS", OBJECTS, "/triggers/obs", json.dumps({"Records": [RECORD]}))


def _folder(options: Options) -> Round:
    count = options.scaled(FILES)
    with scratch(options) as directory:
        bucket, made = directory / "objects" / "b", directory / "made"
        bucket.mkdir(parents=True)
        environment = {"FUNCTIOND_PLUGINS__OBS__FOLDER": str(bucket.parent)}
        with engine(directory / "data", profile=options.profile, **environment) as server:
            trigger, watch = Listening(server, "OBS", OBJECTS), Watch(server)
            for number in range(count):
                made.write_bytes(b"x")
                made.rename(bucket / str(number))
            trigger.accepted(count)
            return watch.figures("obs folder", count)


SOURCE = Source(
    description="notifications of objects, and files in a folder",
    figures=(*figures("obs notified"), *figures("obs folder")),
    measure=measure,
)
