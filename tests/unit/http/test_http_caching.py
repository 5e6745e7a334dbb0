"""Replies of the API forbid caches to store them."""

from __future__ import annotations

import httpx
import pytest

from tests.support.http_app import BASE, HELLO, Api, urn_of

pytestmark = pytest.mark.usefixtures("hello")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", BASE, 200),
        ("POST", f"{BASE}/{urn_of()}/invocations", 200),
        ("POST", f"{BASE}/{urn_of()}/invocations-async", 202),
        ("DELETE", f"{BASE}/{urn_of(version='')}", 204),
        ("GET", f"{BASE}/{urn_of('nobody')}/config", 404),
        ("POST", f"{BASE}/{urn_of('nobody')}/invocations-async", 404),
        ("GET", "/nowhere", 404),
        ("PUT", BASE, 405),
        ("GET", "/healthz", 200),
        ("HEAD", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
    ],
)
async def test_every_reply_of_the_api_forbids_storage_once(api: Api, method: str, path: str, status: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.port}", trust_env=False) as client:
        reply = await client.request(method, path)

    assert (reply.status_code, reply.headers.get_list("cache-control")) == (status, ["no-store"])


async def test_refusals_of_requests_forbid_storage_once(api: Api) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.port}", trust_env=False) as client:
        foreign = await client.get(BASE, headers={"Host": "example.com"})
        typeless = await client.post(BASE, content=b"x")
        twice = await client.post(BASE, json=HELLO)

    assert [reply.status_code // 100 for reply in (foreign, typeless, twice)] == [4, 4, 4]
    assert [reply.headers.get_list("cache-control") for reply in (foreign, typeless, twice)] == [["no-store"]] * 3
