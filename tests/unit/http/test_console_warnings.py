"""Warnings of pages: code that cannot run, and APIs of a gateway that answers over another scheme."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.config.plugin_registry import load_plugins
from engine.http.console.paths import HOME
from tests.support.http_app import PROJECT
from tests.support.triggering import api_client, house

HELLO = f"{HOME}projects/{PROJECT}/functions/hello"
API = {
    "name": "orders",
    "type": 1,
    "path": "/orders",
    "req_method": "GET",
    "auth": "NONE",
    "match_mode": "NORMAL",
    "group_id": "g",
    "env_id": "e",
    "env_name": "RELEASE",
    "instance_id": "gateway",
    "func_info": {"timeout": 5000},
}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def handler(event, context)\n    return event\n", "index.py: line 1: "),
        ("def handle(event, context):\n    return event\n", "index.py: it has no function handler, which the handler"),
        ("def handler(event, context):\n    return '\0'\n", "index.py is no text: it has NUL"),
        ("def handler(event, context):\n    return 1\n", ""),
    ],
)
async def test_saved_code_that_cannot_run_is_told_at_once(tmp_path: Path, code: str, expected: str) -> None:
    async with house(tmp_path) as place, api_client(place) as client:
        page = (await client.get(HELLO)).text
        fields = {name: re.findall(rf'name="{name}" value="(\w+)"', page)[0] for name in ("form_token", "digest")}
        saved = await client.post(f"{HELLO}/code", data={**fields, "code": code}, follow_redirects=True)

    assert "This code cannot run" not in page
    assert "Saved. The next invocation runs this code." in saved.text
    assert (f"This code cannot run as it is: {expected}" in saved.text) is bool(expected)


@pytest.mark.parametrize("protocol", ["HTTP", "HTTPS"])
async def test_the_page_of_an_api_tells_the_scheme_that_answers(tmp_path: Path, protocol: str) -> None:
    async with house(tmp_path, load_plugins(), plugins__apig__port=0, plugins__apig__dedicated={"port": 8999}) as place:
        trigger = await place.create("DEDICATEDGATEWAY", **API, protocol=protocol)
        async with api_client(place) as client:
            page = (await client.get(f"{HOME}projects/{PROJECT}/gateways/{trigger.id}")).text
            listed = (await client.get(f"{HELLO}/configuration/triggers")).text
            kinds = (await client.get(f"{HELLO}/configuration/triggers/new")).text

    assert "http://127.0.0.1:8999/orders" in page
    assert ("The gateway answers over http, although the protocol" in page) is (protocol == "HTTPS")
    for one in (page, listed, kinds):
        assert "APIG (dedicated)" in one
        assert ">DEDICATEDGATEWAY<" not in one
