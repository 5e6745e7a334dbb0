"""Intake of HTTP requests through an APIG trigger, asynchronous and synchronous, compared with the invocation API."""

from __future__ import annotations

import socket
from typing import Any

from bench.harness import Figure, Options, Round, scratch
from bench.intake.source import TEXT, Source, figures, flood
from bench.server import HELD, PROJECT, Engine, engine

BODY = f'{{"k": "{TEXT}"}}'
HELLO = "def handler(event, context):\n    return {'statusCode': 200, 'headers': {'a': 'b'}, 'body': 'hello'}\n"

CALLS = tuple(
    figure
    for name in ("apig sync", "API sync")
    for figure in (Figure(name=name, unit="calls/s"), Figure(name=f"{name} loop", unit="µs CPU/call"))
)


def measure(options: Options) -> Round:
    figures: Round = {}
    gateway = _free_port()
    environment = {"FUNCTIOND_PLUGINS__APIG__PORT": str(gateway)}
    with scratch(options) as directory, engine(directory, profile=options.profile, **environment) as server:
        held, hello = server.deploy("held", HELD, instances=1), server.deploy("hello", HELLO)
        for mode, path, call in (("async", held, "invocations-async"), ("sync", hello, "invocations")):
            _publish(server, path, mode)
            figures |= flood(server, f"apig {mode}", gateway, f"/{mode}/orders/7?a=1", BODY, options)[0]
            figures |= flood(server, f"API {mode}", server.port, f"{path}/{call}", BODY, options)[0]
    return figures


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
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


SOURCE = Source(
    description="requests to a gateway, and to the API",
    figures=(*figures("apig async"), *figures("API async"), *CALLS),
    measure=measure,
)
