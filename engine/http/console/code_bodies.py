"""Bodies of API requests with the code of a function, made from what a form has."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec


def with_text(fields: Mapping[str, Any], code: str) -> dict[str, Any]:
    """Return a body with inline code. Empty code is left out, so the operation stores default code, or refuses."""
    file = b64encode(code.encode("utf-8", "replace")).decode()
    return {**fields, "code_type": "inline", "func_code": {"file": file} if code else {}}


async def with_package(fields: Mapping[str, Any], pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the pieces of a body with a zip package, as the package arrives."""
    head = msgspec.json.encode({**fields, "code_type": "zip"})
    yield head[:-1] + b',"func_code":{"file":"'
    rest = b""
    async for piece in pieces:
        rest += piece
        whole = len(rest) // 3 * 3
        if whole:
            yield b64encode(rest[:whole])
            rest = rest[whole:]
    yield b64encode(rest) + b'"}}'
