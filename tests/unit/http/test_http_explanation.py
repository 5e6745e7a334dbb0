"""Explanations over HTTP, and the mark of a paused invocation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.pipeline.explanation import MOST_AHEAD
from tests.support.http_app import Api, serve, urn_of

RECORDS = f"/{urn_of()}/async-invocations"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serve(tmp_path) as api:
        await api.create()
        yield api


async def test_an_explanation_has_place_and_reasons(api: Api) -> None:
    sent = (await api.invoke()).json["request_id"]
    api.engine.ahead = 3
    counted = (await api.send("GET", f"{RECORDS}/{sent}/explain")).json
    api.engine.ahead = MOST_AHEAD
    more = (await api.send("GET", f"{RECORDS}/{sent}/explain")).json
    api.engine.ahead = None
    without = (await api.send("GET", f"{RECORDS}/{sent}/explain")).json

    assert (counted["request_id"], counted["status"], counted["ahead"]) == (sent, "WAIT", 3)
    assert counted["reasons"] == [{"reason": "order", "text": "others first"}]
    assert (counted["ahead_is_more"], more["ahead_is_more"], "ahead" in without) == (False, True, False)


async def test_an_unknown_invocation_is_not_explained(api: Api) -> None:
    assert (await api.send("GET", f"{RECORDS}/some/explain")).status == 404


async def test_a_record_says_that_its_function_is_paused_while_it_waits(api: Api) -> None:
    sent = (await api.invoke()).json["request_id"]
    assert "paused" not in (await api.send("GET", f"{RECORDS}/{sent}")).json
    await api.send("PATCH", f"/{urn_of()}/controls", {"paused": True})
    assert (await api.send("GET", f"{RECORDS}/{sent}")).json["paused"] is True
    api.engine.finish(sent)

    assert "paused" not in (await api.send("GET", f"{RECORDS}/{sent}")).json
