"""Tab of a function's log: how the newest logs are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.http.console.paths import HOME
from engine.logs.lines import STDOUT, encode
from engine.storage.sqlite.connection import Readers
from tests.contracts.storage import NOW, settled, started, success
from tests.support.http_app import PROJECT
from tests.support.triggering import api_client, house

LOGS = f"{HOME}projects/{PROJECT}/functions/hello/logs"


async def test_the_log_of_a_function_is_one_search_however_many_wait_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches, call = list[object](), Readers.call

    def noting(readers: Readers, function: Any) -> Any:
        searches.append(function)
        return call(readers, function)

    monkeypatch.setattr(Readers, "call", noting)
    async with house(tmp_path) as place, api_client(place) as client:
        for number in range(25):
            one = await started(place.engine.storage)
            await settled(place.engine.storage, one, success(one, log=encode(int(NOW * 1000), STDOUT, b"%d." % number)))
        searches.clear()
        page = (await client.get(LOGS)).text

    assert len(searches) == 1
    assert [number for number in range(25) if f">{number}.<" in page] == list(range(5, 25))
