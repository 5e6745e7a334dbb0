"""Forms that the engine refuses, and warnings of pages: code that cannot run, names of unknown things."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.config.plugin_registry import load_plugins
from engine.errors import NotStored
from engine.http.console.paths import HOME
from engine.resources.tags import Tags
from engine.triggers import supervisor
from plugins.kafka import plugin as kafka
from plugins.webhook import plugin as webhook
from tests.support.console import form_token
from tests.support.http_app import PROJECT, REGION
from tests.support.triggering import House, api_client, house, until

HELLO = f"{HOME}projects/{PROJECT}/functions/hello"
SECRET = "sixteen-characters-or-more"


class Console:
    def __init__(self, client: httpx.AsyncClient, place: House) -> None:
        self._client, self.place = client, place

    async def get(self, path: str) -> str:
        reply = await self._client.get(path)
        assert reply.status_code == 200, reply.text
        return reply.text

    async def send(self, page: str, path: str, **fields: Any) -> httpx.Response:
        """Send a form of a page."""
        return await self._client.post(path, data={"form_token": await form_token(self._client, page), **fields})


@asynccontextmanager
async def console(folder: Path) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    async with house(folder, [webhook, kafka]) as place, api_client(place) as client:
        yield place, client


@pytest.fixture
def at(place: House, client: httpx.AsyncClient) -> Console:
    return Console(client, place)


async def test_the_reason_of_a_pause_stays_beside_its_error(at: Console) -> None:
    reason = "moving " * 100
    reply = await at.send(HELLO, f"{HELLO}/pause", reason=reason)

    assert reply.status_code == 400
    assert '<details class="menu" open>' in reply.text
    assert re.search(rf'name="reason" type="text" value="{reason.strip()}"[^>]* aria-invalid="true"', reply.text)
    assert re.search(r'id="f-reason-error">[^<]*256', reply.text)


async def test_a_secret_must_be_typed_again(at: Console) -> None:
    path = f"{HELLO}/configuration/triggers/new"
    fields = {"kind": "WEBHOOK", "event_data.secret": SECRET, "event_data.name": ""}
    reply = await at.send(f"{path}?kind=WEBHOOK", path, **fields)

    assert (reply.status_code, SECRET in reply.text) == (400, False)
    assert 'id="f-event_data.secret-error">Type it again' in reply.text
    assert 'id="f-event_data.name-error">Enter a value' in reply.text


async def test_a_private_key_keeps_its_lines_and_is_not_shown(at: Console) -> None:
    path, key = f"{HELLO}/configuration/triggers/new", "-----BEGIN KEY-----\nabc\n"
    options = {"instance_id": "main", "topic_ids": "t", "batch_size": "1", "kafka_cert": key, "kafka_key": key}
    fields = {f"event_data.{name}": value for name, value in options.items()} | {"event_data.kafka_ssl_enable": "on"}
    page = await at.get(f"{path}?kind=KAFKA")
    made = await at.send(f"{path}?kind=KAFKA", path, kind="KAFKA", **fields)
    shown = await at.get(made.headers["location"])
    [trigger] = at.place.engine.resources.triggers.all()

    assert '<textarea id="f-event_data.kafka_key"' in page
    assert '<select id="f-event_data.message_format"' in page
    assert trigger.options.kafka_key == key
    assert shown.count("abc") == 1  # the certificate


async def test_a_reservation_of_no_instance_is_refused(at: Console) -> None:
    path = f"{HELLO}/configuration/new-reservation"
    reply = await at.send(path, path, qualifier="latest", count="0")
    made = await at.send(path, path, qualifier="latest", count="1")
    address = f"{HELLO}/configuration/reserved/latest"
    await at.send(address, address, count="0")
    after = await at.get(f"{HELLO}/configuration/reserved")

    assert (reply.status_code, made.status_code) == (400, 303)
    assert "Nothing is reserved: enter 1 or more" in reply.text
    assert "Removed the reservation." in after


async def test_tags_that_are_saved_by_half_say_so(at: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{HELLO}/configuration/tags"

    async def refuse(*_: object) -> None:
        raise NotStored("the disk is full")

    await at.send(path, path, key="old", value="1")
    with monkeypatch.context() as patched:
        patched.setattr(Tags, "add", refuse)
        reply = await at.send(path, path, key="new", value="2")
    page = await at.get(path)

    assert reply.status_code == 400
    assert "Removed old, and saved nothing else; save again. " in reply.text
    assert "the disk is full" in reply.text
    assert ('value="new"' in reply.text, 'value="old"' in page) == (True, False)


# --- warnings ------------------------------------------------------------------------------------------------

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
    for text in (page, listed, kinds):
        assert "APIG (dedicated)" in text
        assert ">DEDICATEDGATEWAY<" not in text


# --- unknown names -------------------------------------------------------------------------------------------


HERE = f"{HOME}projects/{PROJECT}/functions/hello/configuration"
SETTINGS = f"/v2/{PROJECT}/fgs/functions/hello/async-invoke-config"
TOPIC = f"urn:smn:{REGION}:{PROJECT}:orders"
HOOK = {"url": "https://example.com/outcomes"}


@pytest.mark.parametrize(
    ("kind", "param", "name"),
    [
        ("WEBHOOK", {**HOOK, "secret": "typo"}, "typo"),
        ("SMN", {"topic_urn": TOPIC}, TOPIC),
        ("DIS", {"stream_name": "clicks"}, "clicks"),
        ("WEBHOOK", {**HOOK, "secret": "known"}, ""),
        ("WEBHOOK", HOOK, ""),
    ],
)
async def test_a_destination_that_names_what_does_not_exist_is_marked(
    tmp_path: Path, kind: str, param: dict[str, str], name: str
) -> None:
    secrets = {"known": "a-secret-of-the-engine"}
    async with house(tmp_path, load_plugins(), plugins__webhook__secrets=secrets) as place, api_client(place) as client:
        body = {"destination_config": {"on_failure": {"destination": kind, "param": json.dumps(param)}}}
        assert (await client.put(SETTINGS, json=body)).status_code == 200
        page = await client.get(f"{HERE}/asynchronous")

    assert page.status_code == 200
    assert ("names something that does not exist" in page.text) is bool(name)
    assert (f"{name} does not exist; create it" in page.text) is bool(name)


async def test_a_trigger_of_an_unknown_topic_is_in_trouble_until_the_topic_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CALM", 0.02)
    async with house(tmp_path, load_plugins()) as place, api_client(place) as client:
        trigger = await place.create("SMN", topic_urn=TOPIC)
        await until(lambda: bool(place.state(trigger).problem))
        pages = [(await client.get(f"{HERE}/triggers{path}")).text for path in ("", f"/{trigger.id}")]
        overview = (await client.get(HOME)).text
        await client.post(f"/v2/{PROJECT}/notifications/topics", json={"name": "orders"})
        await until(lambda: not place.state(trigger).problem)
        after = (await client.get(f"{HERE}/triggers")).text
        await client.delete(f"/v2/{PROJECT}/notifications/topics/{TOPIC}")
        await until(lambda: bool(place.state(trigger).problem))

    for page in pages:
        assert f"{TOPIC} does not exist: create it, or correct the URN" in page
        assert 'class="state trouble"' in page
        assert 'class="state running"' not in page
    assert "SMN trigger of hello has a problem" in overview
    assert 'class="state running"' in after


async def test_a_trigger_of_an_unknown_log_group_says_so(tmp_path: Path) -> None:
    async with house(tmp_path, load_plugins()) as place, api_client(place) as client:
        trigger = await place.create("LTS", log_group_id="typo", log_topic_id="typo")
        await until(lambda: bool(place.state(trigger).problem))
        page = (await client.get(f"{HERE}/triggers/{trigger.id}")).text

    assert "this log stream was not created here" in page
    assert 'class="state trouble"' in page
