"""Writer of a data directory: ``python -m tests.acceptance.upgrade [--engine CHECKOUT] [--folder FOLDER]``.

The engine of the checkout (by default, of the current folder) creates one of everything that is stored, and is killed.
FOLDER (by default, ``archives``) gets its data directory and a manifest, in an archive that has the name of the
checkout's commit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time

from tests.acceptance.engine_process import PROJECT, EngineProcess, engine_on, until
from tests.acceptance.upgrade import SETTINGS, archive, functions, sources, work
from tests.acceptance.upgrade.replies import (
    FGS,
    OTHER,
    ROOT,
    call,
    function,
    invocations,
    read,
    stream_records,
    triggers,
)

_MONTH = "/fgs/functions/statistics?filter=monthly_report&option=0"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a data directory and its manifest.")
    parser.add_argument("--engine", type=Path, default=Path(), metavar="CHECKOUT")
    parser.add_argument("--folder", type=Path, default=archive.FOLDER)
    options = parser.parse_args()
    folder = options.folder.resolve()
    os.chdir(options.engine)  # ``python -m engine`` imports the engine of the current folder
    commit = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], capture_output=True, text=True, check=True)
    packed = write_archive(folder, commit.stdout.strip())
    print(f"{packed}: {packed.stat().st_size} bytes")


def write_archive(folder: Path, commit: str) -> Path:
    """Write an archive into ``folder``. Return its path."""
    with TemporaryDirectory() as place:
        manifest = write(Path(place), commit)
        return archive.pack(Path(place) / "data", manifest, folder)


def write(folder: Path, commit: str) -> archive.Manifest:
    """Let an engine write the data directory ``folder``/data, kill it, and return the manifest."""
    data = folder / "data"
    with engine_on(data, **SETTINGS) as engine:
        ids = functions.create_functions(engine)
        ids |= sources.create_sources(engine)
        work.end_work(engine)
        engine.stop()
    with engine_on(data, **{**SETTINGS, "FUNCTIOND_RETRY__BASE": "3600"}) as engine:
        work.leave_for_long(engine)
        work.leave_ordered(engine)
        deliveries = work.deliveries(engine)
        work.crash_twice(engine)
    began, log = time(), f"{function('echo')}/logs"
    with engine_on(data, **{**SETTINGS, "FUNCTIOND_RETRY__BASE": "20"}) as engine:
        unended = work.leave_unended(engine, folder)
        until(lambda: sources.due_times(engine))
        replies = {
            path: read(engine, path)
            for path in paths(engine, ids)
            if not any(request_id in path for request_id in unended)
        }
        replies[log] = "".join(lines_before(began, read(engine, log)))
        records = stream_records(engine, "clicks", sources.SHARD)
        engine.kill(children=True)
    return archive.Manifest(
        engine=commit,
        stopped_at=time(),
        ids=ids,
        replies=replies,
        deliveries=deliveries,
        records=records,
        unended=unended,
    )


def paths(engine: EngineProcess, ids: Mapping[str, str]) -> Iterator[str]:
    """Yield the paths of all that can be read, except what changes by itself after a start."""
    names = [item["func_name"] for item in call(engine, "GET", f"{FGS}/functions?maxitems=400")["functions"]]
    yield from (f"{ROOT.replace(PROJECT, OTHER)}{path}" for path in ("/fgs/functions", _MONTH))
    yield from (f"{FGS}/{path}" for path in ("functions?maxitems=400", "functions/reservedinstanceconfigs"))
    yield from (f"{FGS}/dependencies", f"{FGS}/dependencies/{ids['dependency']}/version")
    yield from (f"{ROOT}/functions/tags", f"{ROOT}/groups", f"{ROOT}/log-streams", f"{ROOT}/streams", f"{ROOT}/apps")
    yield from (f"{ROOT}/streams/clicks", f"{ROOT}/streams/split", f"{ROOT}/apps/reader/streams/clicks")
    yield from (f"{ROOT}/notifications/topics", f"{ROOT}/notifications/topics/{sources.TOPIC}")
    yield f"{function('echo')}/events/{ids['event']}"
    yield from chain.from_iterable(map(_paths_of, names))
    for name in sorted(set(names) - {"ticks", "crashes"}):  # the next engine adds to the one, and ends the other
        for invocation in invocations(engine, name):
            path = f"{function(name)}/async-invocations/{invocation['request_id']}"
            yield from (path, f"{path}/logs")


def lines_before(moment: float, log: str) -> Iterator[str]:
    """Yield the earlier lines of a log. Those of instances that live are not stored yet, so that a kill loses them."""
    for line in log.splitlines(keepends=True):
        if datetime.fromisoformat(json.loads(line)["time"]).timestamp() < moment:
            yield line


def _paths_of(name: str) -> Iterator[str]:
    parts = ("config", "code", "versions", "aliases", "async-invoke-configs", "events", "tracing", "lts-log-detail")
    yield f"{function(name)}/controls"
    yield from (f"{function(name)}/{part}" for part in parts)
    yield triggers(name)


if __name__ == "__main__":
    main()
