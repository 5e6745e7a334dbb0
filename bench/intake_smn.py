"""Messages that are published to a topic of the engine's own, which calls one function."""

from __future__ import annotations

import json
from typing import Any

from bench.harness import Figure, Options, Round, Say, scratch
from bench.load import Job
from bench.machine import cpu_of
from bench.server import HELD, PROJECT, engine, load

CONNECTIONS = 64
BODY = json.dumps({"message": "x" * 200})

FIGURES = (Figure(name="smn published", unit="events/s"), Figure(name="smn published loop", unit="µs CPU/event"))


def smn(options: Options, say: Say) -> Round:
    say("intake: messages published to a topic")
    with scratch(options) as directory, engine(directory, profile=options.profile) as server:
        topics = f"/v2/{PROJECT}/notifications/topics"
        topic = server.call("POST", topics, {"name": "bench"})["topic_urn"]
        function = server.deploy("held", HELD, instances=1).rpartition("/")[2]
        body: dict[str, Any] = {"trigger_type_code": "SMN", "event_data": {"topic_urn": topic}}
        server.call("POST", f"/v2/{PROJECT}/fgs/triggers/{function}", body)
        before = cpu_of(server.pid)
        path = f"{topics}/{topic}/publish"
        report = load(Job(port=server.port, path=path, body=BODY, connections=CONNECTIONS, seconds=options.seconds))
        used = cpu_of(server.pid).since(before)
    return {"smn published": report.rate, "smn published loop": used.loop / report.requests * 1e6}
