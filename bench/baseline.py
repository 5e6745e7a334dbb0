"""Baseline for comparison: an empty POST on a Starlette application. Run as ``python -m bench.baseline``."""

from __future__ import annotations

import json
import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def accept(request: Request) -> Response:
    return Response(status_code=202)


def main() -> None:
    app = Starlette(routes=[Route("/", accept, methods=["POST"])])
    config = uvicorn.Config(app, http="httptools", loop="uvloop", access_log=False, log_config=None, lifespan="off")
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        # The kernel accepts connections already, so the port can be announced before the loop runs.
        line = json.dumps({"event": "serving", "port": listener.getsockname()[1]})
        print(line, file=sys.stderr, flush=True)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
