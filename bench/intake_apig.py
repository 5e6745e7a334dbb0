"""Requests to a gateway's API: taken for later, and answered by the function; the engine's own API beside them."""

from __future__ import annotations

import socket
from typing import Any

from bench.harness import Figure, Options, Round, Say, scratch
from bench.load import Job
from bench.machine import cpu_of
from bench.server import HELD, PROJECT, Engine, engine, load

CONNECTIONS = 64
BODY = '{"k": "' + "x" * 191 + '"}'
HELLO = "def handler(event, context):\n    return {'statusCode': 200, 'headers': {'a': 'b'}, 'body': 'hello'}\n"

FIGURES = (
    Figure(name="apig async", unit="events/s"),
    Figure(name="API async", unit="events/s"),
    Figure(name="apig async loop", unit="µs CPU/event"),
    Figure(name="API async loop", unit="µs CPU/event"),
    Figure(name="apig sync", unit="calls/s"),
    Figure(name="API sync", unit="calls/s"),
    Figure(name="apig sync loop", unit="µs CPU/call"),
    Figure(name="API sync loop", unit="µs CPU/call"),
)


def apig(options: Options, say: Say) -> Round:
    found: Round = {}
    gateway = _free_port()
    environment = {"FUNCTIOND_PLUGINS__APIG__PORT": str(gateway)}
    with scratch(options) as directory, engine(directory, profile=options.profile, **environment) as server:
        held, hello = server.deploy("held", HELD, instances=1), server.deploy("hello", HELLO)
        for mode, path, call in (("async", held, "invocations-async"), ("sync", hello, "invocations")):
            say(f"intake: {mode} requests to a gateway, and to the API")
            _publish(server, path, mode)
            found |= _cell(server, f"apig {mode}", gateway, f"/{mode}/orders/7?a=1", options)
            found |= _cell(server, f"API {mode}", server.port, f"{path}/{call}", options)
    return found


def _cell(server: Engine, name: str, port: int, path: str, options: Options) -> Round:
    before = cpu_of(server.pid)
    report = load(Job(port=port, path=path, body=BODY, connections=CONNECTIONS, seconds=options.seconds))
    used = cpu_of(server.pid).since(before)
    return {name: report.rate, f"{name} loop": used.loop / report.requests * 1e6}


def _publish(server: Engine, function: str, mode: str) -> None:
    data: dict[str, Any] = {
        "name": mode,
        "type": 1,
        "path": f"/{mode}/orders/{{id}}",
        "protocol": "HTTP",
        "req_method": "POST",
        "group_id": "bench",
        "match_mode": "NORMAL",
        "env_name": "RELEASE",
        "env_id": "e",
        "auth": "NONE",
        "func_info": {"invocation_type": mode, "timeout": 60_000},
    }
    body = {"trigger_type_code": "APIG", "event_data": data}
    server.call("POST", f"/v2/{PROJECT}/fgs/triggers/{function.rpartition('/')[2]}", body)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
