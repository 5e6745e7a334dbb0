"""Intake of log lines that clients send in small batches to an LTS stream served by the engine itself."""

from __future__ import annotations

import base64
import json
from typing import Any

from bench.harness import Options, Round, scratch
from bench.intake.source import PUT, TEXT, Listening, Source, figures, streamed
from bench.server import PROJECT, engine

REQUESTS = 2000


def measure(options: Options) -> Round:
    body = json.dumps({"log_time_ns": 1_586_850_540_000_000_000, "contents": [TEXT] * PUT, "labels": {}})
    environment = {"FUNCTIOND_PLUGINS__LTS__BATCH_WAIT": "0.1"}
    with scratch(options) as directory, engine(directory, profile=options.profile, **environment) as server:
        groups = f"/v2/{PROJECT}/groups"
        group = server.call("POST", groups, {"log_group_name": "g", "ttl_in_days": 7})["log_group_id"]
        stream = server.call("POST", f"{groups}/{group}/streams", {"log_stream_name": "s"})["log_stream_id"]
        Listening(server, "LTS", {"log_group_id": group, "log_topic_id": stream})
        path = f"/v2/{PROJECT}/lts/groups/{group}/streams/{stream}/tenant/contents"
        return streamed(server, directory, "lts", path, body, options.scaled(REQUESTS), _count)


def _count(event: Any) -> int:
    return len(json.loads(json.loads(base64.b64decode(event["lts"]["data"]))["logs"]))


SOURCE = Source(description="lines sent to a log stream", figures=figures("lts"), measure=measure)
