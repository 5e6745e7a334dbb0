"""APIs of a gateway, and requests to them."""

from __future__ import annotations

import socket
from typing import Any

#: What every API has, in the shortest form.
API: dict[str, Any] = {
    "name": "api",
    "type": 1,
    "path": "/orders",
    "protocol": "HTTP",
    "req_method": "ANY",
    "group_id": "shop",
    "match_mode": "NORMAL",
    "env_name": "RELEASE",
    "env_id": "e",
    "auth": "NONE",
    "func_info": {"timeout": 5000},
}


def free_port() -> int:
    """One that the next engine on a folder can have again."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
