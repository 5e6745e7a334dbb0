"""Intake of records that clients send in small batches to a DIS stream served by the engine itself."""

from __future__ import annotations

import base64
import json
from typing import Any

from bench.harness import Options, Round, scratch
from bench.intake.source import BATCH_SIZE, PUT, TEXT, Listening, Source, figures, streamed
from bench.load import STAMP
from bench.server import PROJECT, engine

REQUESTS = 2000
READING = {
    "stream_name": "s",
    "sharditerator_type": "TRIM_HORIZON",
    "polling_interval": 1,
    "polling_unit": "s",
    "is_serial": "false",
    "batch_size": BATCH_SIZE,
}


def measure(options: Options) -> Round:
    record = {"data": base64.b64encode(TEXT.encode()).decode(), "partition_key": STAMP}
    body = json.dumps({"stream_name": "s", "records": [record] * PUT})
    with scratch(options) as directory, engine(directory, profile=options.profile) as server:
        server.call("POST", f"/v2/{PROJECT}/streams", {"stream_name": "s", "partition_count": 1})
        Listening(server, "DIS", READING)
        path, requests = f"/v2/{PROJECT}/records", options.scaled(REQUESTS)
        return streamed(server, directory, "dis", path, body, requests, _count)


def _count(event: Any) -> int:
    return len(event["Message"]["records"])


SOURCE = Source(description="records put into a stream", figures=figures("dis"), measure=measure)
