"""Records that are put into the engine's own stream, some at a time, and read from there."""

from __future__ import annotations

import base64
import json

from bench.harness import Options, Round, scratch
from bench.intake.source import CONNECTIONS, PATIENCE, TEXT, TOGETHER, Listening, Source, Watch, figures
from bench.intake.source import wait_for_messages as wait
from bench.load import STAMP, Job
from bench.server import PROJECT, engine, load

RECORDS = 20_000
#: Records in a request.
PUT = 10


def measure(options: Options) -> Round:
    requests = -(-options.scaled(RECORDS) // PUT)
    record = {"data": base64.b64encode(TEXT.encode()).decode(), "partition_key": STAMP}
    body = json.dumps({"stream_name": "s", "records": [record] * PUT})
    with scratch(options) as directory, engine(directory, profile=options.profile) as server:
        server.call("POST", f"/v2/{PROJECT}/streams", {"stream_name": "s", "partition_count": 1})
        reading = {"stream_name": "s", "sharditerator_type": "TRIM_HORIZON", "is_serial": "false"}
        Listening(server, "DIS", {**reading, "polling_interval": 1, "polling_unit": "s", "batch_size": TOGETHER})
        watch, path = Watch(server), f"/v2/{PROJECT}/records"
        load(Job(port=server.port, path=path, body=body, connections=CONNECTIONS, seconds=PATIENCE, count=requests))
        wait(directory, requests * PUT, "$.Message.records")
        return watch.figures("dis", requests * PUT)


SOURCE = Source(what="records put into a stream", figures=figures("dis"), measure=measure)
