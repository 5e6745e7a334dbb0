"""Intake of changes of a MongoDB collection that were made on a real server while the engine was stopped."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import anyio
import anyio.to_thread

from bench.harness import Options, Round, scratch
from bench.intake.source import BATCH_SIZE, TEXT, Listening, Source, Watch, figures, wait_for_messages
from bench.server import engine

CHANGES = 20_000


def absent() -> str:
    if not all(find_spec(name) for name in ("pymongo", "pytest")):
        return "install its client with pip install -e '.[dev]'"
    from tests.support.mongo_server import PACKAGE
    from tests.support.own_environment import home

    return "" if home(PACKAGE).is_dir() else "install a server with python -m pytest tests/plugins/dds/test_dds.py"


def measure(options: Options) -> Round:
    return anyio.run(_measure, options)


async def _measure(options: Options) -> Round:
    from tests.support.mongo_server import COLLECTION, DATABASE, PASSWORD, mongo_server

    with scratch(options) as directory:
        async with mongo_server(directory / "mongo") as server, server.client() as client:
            collection = {"db_name": DATABASE, "collection_name": COLLECTION, "instance_addrs": [server.address]}
            data = {"instance_id": "i", "db_password": PASSWORD, "batch_size": BATCH_SIZE, **collection}

            def begin() -> None:
                with engine(directory / "data") as first:
                    Listening(first, "DDS", data)

            def drain() -> Round:
                with engine(directory / "data", profile=options.profile) as second:
                    watch = Watch(second)
                    wait_for_messages(directory / "data", options.scaled(CHANGES), _records)
                    return watch.figures("dds", options.scaled(CHANGES))

            await anyio.to_thread.run_sync(begin)
            await client[DATABASE][COLLECTION].insert_many([{"text": TEXT} for _ in range(options.scaled(CHANGES))])
            return await anyio.to_thread.run_sync(drain)


def _records(event: Any) -> int:
    return len(event["records"])


SOURCE = Source(description="changes of documents", figures=figures("dds"), measure=measure, absent=absent)
