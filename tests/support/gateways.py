"""API definitions of an API gateway, and requests to them."""

from __future__ import annotations

from typing import Any

#: Path with five parameters in one segment, separated only after decoding.
MANY = "/%7Ba%7Dx%7Bb%7Dx%7Bc%7Dx%7Bd%7Dx%7Be%7D!"

#: Required fields of an API, in the shortest form.
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
    "func_info": {"timeout": 60_000},
}
