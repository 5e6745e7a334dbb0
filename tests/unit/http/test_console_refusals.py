"""Forms of the console that the engine refuses: what their pages say, and what they keep."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.errors import NotStored
from engine.http.console.paths import HOME
from engine.resources.tags import Tags
from plugins.kafka import plugin as kafka
from plugins.webhook import plugin as webhook
from tests.support.console import form_token
from tests.support.http_app import PROJECT
from tests.support.triggering import House, api_client, house

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
async def console(folder: Path) -> AsyncIterator[Console]:
    async with house(folder, [webhook, kafka]) as place, api_client(place) as client:
        yield Console(client, place)


async def test_the_reason_of_a_pause_stays_beside_its_error(tmp_path: Path) -> None:
    reason = "moving " * 100
    async with console(tmp_path) as at:
        reply = await at.send(HELLO, f"{HELLO}/pause", reason=reason)

    assert reply.status_code == 400
    assert '<details class="menu" open>' in reply.text
    assert re.search(rf'name="reason" type="text" value="{reason.strip()}"[^>]* aria-invalid="true"', reply.text)
    assert re.search(r'id="f-reason-error">[^<]*256', reply.text)


async def test_a_secret_must_be_typed_again(tmp_path: Path) -> None:
    path = f"{HELLO}/configuration/triggers/new"
    fields = {"kind": "WEBHOOK", "event_data.secret": SECRET, "event_data.name": ""}
    async with console(tmp_path) as at:
        reply = await at.send(f"{path}?kind=WEBHOOK", path, **fields)

    assert (reply.status_code, SECRET in reply.text) == (400, False)
    assert 'id="f-event_data.secret-error">Type it again' in reply.text
    assert 'id="f-event_data.name-error">Enter a value' in reply.text


async def test_a_private_key_keeps_its_lines_and_is_not_shown(tmp_path: Path) -> None:
    path, key = f"{HELLO}/configuration/triggers/new", "-----BEGIN KEY-----\nabc\n"
    options = {"instance_id": "main", "topic_ids": "t", "batch_size": "1", "kafka_cert": key, "kafka_key": key}
    fields = {f"event_data.{name}": value for name, value in options.items()} | {"event_data.kafka_ssl_enable": "on"}
    async with console(tmp_path) as at:
        page = await at.get(f"{path}?kind=KAFKA")
        made = await at.send(f"{path}?kind=KAFKA", path, kind="KAFKA", **fields)
        shown = await at.get(made.headers["location"])
        [trigger] = at.place.engine.resources.triggers.all()

    assert '<textarea id="f-event_data.kafka_key"' in page
    assert '<select id="f-event_data.message_format"' in page
    assert trigger.options.kafka_key == key
    assert shown.count("abc") == 1  # the certificate


async def test_a_reservation_of_no_instance_is_refused(tmp_path: Path) -> None:
    path = f"{HELLO}/configuration/new-reservation"
    async with console(tmp_path) as at:
        reply = await at.send(path, path, qualifier="latest", count="0")
        made = await at.send(path, path, qualifier="latest", count="1")
        one = f"{HELLO}/configuration/reserved/latest"
        await at.send(one, one, count="0")
        after = await at.get(f"{HELLO}/configuration/reserved")

    assert (reply.status_code, made.status_code) == (400, 303)
    assert "Nothing is reserved: enter 1 or more" in reply.text
    assert "Removed the reservation." in after


async def test_tags_that_are_saved_by_half_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{HELLO}/configuration/tags"

    async def refuse(*_: object) -> None:
        raise NotStored("the disk is full")

    async with console(tmp_path) as at:
        await at.send(path, path, key="old", value="1")
        with monkeypatch.context() as patched:
            patched.setattr(Tags, "add", refuse)
            reply = await at.send(path, path, key="new", value="2")
        page = await at.get(path)

    assert reply.status_code == 400
    assert "Removed old, and saved nothing else; save again. " in reply.text
    assert "the disk is full" in reply.text
    assert ('value="new"' in reply.text, 'value="old"' in page) == (True, False)
