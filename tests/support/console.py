"""Forms of the console."""

from __future__ import annotations

import re

import httpx


async def form_token(client: httpx.AsyncClient, page: str) -> str:
    """Return the token that forms of a page send."""
    reply = await client.get(page)
    assert reply.status_code == 200, reply.text
    match = re.search(r'name="form_token" value="(\w+)"', reply.text)
    assert match is not None
    return match[1]
