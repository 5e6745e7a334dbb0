"""Events and results as the console shows them: line breaks, and JSON that is nested thousands of levels deep."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.http.api.invocations import CallResult
from engine.http.console.api_requests import ApiReply
from engine.http.console.functions.trials import run_of
from engine.http.console.invocations.bodies import SHOWN, body_of, pretty
from engine.http.console.paths import HOME
from tests.support.http_app import PROJECT
from tests.support.triggering import api_client, house

DEEP = "[" * 3000 + "]" * 3000
EVENT = "[" * 900 + "]" * 900  #: as deep as the API takes it
#: Bodies whose indents would be many times longer than they are.
HOSTILE = [DEEP, "[" * 30 + "1," * 30_000 + "1" + "]" * 30, '{"a":' * 5000 + "1" + "}" * 5000]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_deeply_nested_result_is_shown_as_it_is(text: str) -> None:
    call = CallResult(status=200, request_id="r", result=text, log="")

    assert body_of(text.encode()).text == text
    assert run_of(ApiReply(status=200, headers={}, body=msgspec.json.encode(call))).result == text[:SHOWN]


def test_other_json_gets_line_breaks() -> None:
    assert pretty(b'{"a":1}') == '{\n  "a": 1\n}'
    assert pretty(b"[[[1,[2]]]]").count("\n") == 9
    assert pretty(b"no json \xff") == "no json \ufffd"


async def test_pages_of_a_deeply_nested_event_are_small_and_offer_the_file(tmp_path: Path) -> None:
    async with house(tmp_path) as place, api_client(place) as client:
        path = f"/v2/{PROJECT}/fgs/functions/hello/invocations-async"
        sent = await client.post(path, content=EVENT, headers={"content-type": "application/json"})
        assert sent.status_code == 202, sent.text
        here = f"{HOME}projects/{PROJECT}/invocations/{sent.json()['request_id']}"
        page = await client.get(here)
        file = await client.get(f"{here}/event")
        await client.post(path.removesuffix("invocations-async") + "async-invocations/cancel", json={"status": "WAIT"})
        editor = await client.get(f"{here}/again")

    assert max(len(page.content), len(editor.content)) < 100_000
    assert f'href="{here}/event">Download' in page.text
    assert file.text == EVENT
