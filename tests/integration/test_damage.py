"""Damage of the journal under a running engine: what ends its intake, what does not, and how it stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.errors import DataDirectoryUnusable, PageDamaged
from engine.errors.groups import leaves
from engine.model import Request
from engine.model.urn import FunctionUrn
from tests.support.damage import rows_of
from tests.support.http_app import PROJECT
from tests.support.pages import PageFile
from tests.support.triggering import HELD, api_client, house, until


def smash(folder: Path, name: str) -> None:
    file = PageFile(folder / "journal.db")
    file.smash(file.pages(name)[0])


@asynccontextmanager
async def refused(words: list[str]) -> AsyncIterator[None]:
    """Add the words with which the engine in the block refuses its data directory."""
    with pytest.raises(ExceptionGroup) as raised:
        yield
    [error] = leaves(raised.value)
    assert isinstance(error, DataDirectoryUnusable)
    words.append(str(error))


def invocations(urn: FunctionUrn) -> str:
    return f"/v2/{PROJECT}/fgs/functions/{urn}/invocations-async"


async def test_an_append_at_a_damaged_page_stops_the_engine_when_accepted_work_has_ended(tmp_path: Path) -> None:
    async with house(tmp_path):
        pass
    smash(tmp_path, "idempotency")
    smash(tmp_path, "owed_given_up")
    words: list[str] = []
    async with refused(words), house(tmp_path) as place, api_client(place) as client:
        engine, path = place.engine, invocations(place.urn)
        with pytest.raises(PageDamaged):
            await engine.storage.outbox.given_up([1], 0, 10)  # a list does not end the intake
        accepted = [await client.post(path, json={"n": n}) for n in range(3)]
        assert [reply.status_code for reply in accepted] == [202] * 3
        ready, healthy = await client.get("/readyz"), await client.get("/healthz")
        assert (ready.status_code, healthy.json()["status"]) == (200, "degraded")

        replies = [
            await client.post(path, json={}, headers={"idempotency-key": "a"}),
            await client.post(path, json={}),
        ]
        assert [reply.status_code for reply in replies] == [503] * 2
        assert "a page of the journal is damaged" in replies[1].json()["error_msg"]
        ready, healthy = await client.get("/readyz"), await client.get("/healthz")
        assert (ready.status_code, healthy.status_code) == (503, 200)
        assert f"functiond recover {tmp_path}" in ready.json()["storage"]
        engine.scheduler.resume(HELD)
        await until(lambda: False)  # until the engine stops

    assert rows_of(tmp_path, "SELECT state, count(*) FROM invocation GROUP BY state") == [(3, 3)]
    with pytest.raises(DataDirectoryUnusable) as again:
        async with house(tmp_path):
            pass
    assert [str(again.value)] == words
    assert "is damaged" in words[0]
    assert words[0].endswith(f"run `functiond recover {tmp_path}`")


async def test_an_end_at_a_damaged_page_stops_the_engine_and_is_not_announced(tmp_path: Path) -> None:
    async with house(tmp_path):
        pass
    smash(tmp_path, "finished")
    words: list[str] = []
    async with refused(words), house(tmp_path) as place:
        engine = place.engine
        await engine.intake.accept(Request(function=place.urn, payload=b"{}"))
        engine.scheduler.resume(HELD)
        await until(lambda: False)

    assert sum(engine.dispatcher.statistics().outcomes.values()) == 0
    assert rows_of(tmp_path, "SELECT count(*) FROM invocation WHERE state > 2") == [(0,)]
    assert "of finished is damaged" in words[0]
