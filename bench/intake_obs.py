"""Objects that call a function: told by a store over HTTP, and files that are moved into a folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.harness import Figure, Options, Round, Say, scratch
from bench.load import STAMP, Job
from bench.machine import cpu_of
from bench.server import HELD, PROJECT, Engine, ServerFailed, engine, load

CONNECTIONS = 64
FILES = 5000
#: Seconds until all files must have been seen.
PATIENCE = 60.0

FIGURES = (
    Figure(name="obs told", unit="events/s"),
    Figure(name="obs told loop", unit="µs CPU/event"),
    Figure(name="obs folder", unit="events/s"),
    Figure(name="obs folder loop", unit="µs CPU/event"),
)


def obs(options: Options, say: Say) -> Round:
    with scratch(options) as directory:
        return {**_told(directory, options, say), **_folder(directory, options, say)}


def _told(directory: Path, options: Options, say: Say) -> Round:
    say("intake: notifications of objects")
    place = {"bucket": {"name": "b"}, "object": {"key": f"in%2F{STAMP}", "size": 1, "eTag": "e"}}
    record = {"eventName": "s3:ObjectCreated:Put", "eventTime": "2026-03-01T06:30:00.123Z", "s3": place}
    body = json.dumps({"Records": [record]})
    with engine(directory / "told", profile=options.profile) as server:
        _listen(server)
        before = cpu_of(server.pid)
        job = Job(port=server.port, path="/triggers/obs", body=body, connections=CONNECTIONS, seconds=options.seconds)
        report = load(job)
        used = cpu_of(server.pid).since(before)
    return {"obs told": report.rate, "obs told loop": used.loop / report.requests * 1e6}


def _folder(directory: Path, options: Options, say: Say) -> Round:
    count = options.scaled(FILES)
    say(f"intake: {count} files in a folder")
    bucket, made = directory / "objects" / "b", directory / "made"
    bucket.mkdir(parents=True)
    environment = {"FUNCTIOND_PLUGINS__OBS__FOLDER": str(bucket.parent)}
    with engine(directory / "folder", profile=options.profile, **environment) as server:
        state = _listen(server)
        before, began = cpu_of(server.pid), time.perf_counter()
        for number in range(count):
            made.write_bytes(b"x")
            made.rename(bucket / str(number))
        while server.call("GET", state)["accepted"] < count:
            if time.perf_counter() - began > PATIENCE:
                raise ServerFailed(f"{count} files were not seen in {PATIENCE:g} s")
            time.sleep(0.05)
        passed, used = time.perf_counter() - began, cpu_of(server.pid).since(before)
    return {"obs folder": count / passed, "obs folder loop": used.loop / count * 1e6}


def _listen(server: Engine) -> str:
    """Create function and trigger; gives the path of the trigger's state."""
    urn = server.deploy("held", HELD, instances=1).rpartition("/")[2]
    body: Mapping[str, Any] = {
        "trigger_type_code": "OBS",
        "event_data": {"bucket": "b", "events": ["ObjectCreated"]},
    }
    path = f"/v2/{PROJECT}/fgs/triggers/{urn}"
    state = f"{path}/OBS/{server.call('POST', path, body)['trigger_id']}/state"
    while server.call("GET", state)["state"] != "running":
        time.sleep(0.01)
    return state
