"""Text forms of amounts, times, sizes, events and results in the console."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest

from engine.http.api.invocations import CallResult
from engine.http.console.api_requests import ApiReply
from engine.http.console.functions.trials import run_of
from engine.http.console.invocations.details import SHOWN, body_of, pretty
from engine.http.console.paths import HOME
from engine.http.console.words import clock_time, number, quantile, size, span
from engine.metrics.histogram import Histogram
from tests.support.http_app import PROJECT
from tests.support.triggering import api_client, house


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 s"),
        (0.0005, "500 µs"),
        (0.0025, "2.5 ms"),
        (0.25, "250 ms"),
        (9.94, "9.9 s"),
        (59.0, "59 s"),
        (90.0, "1.5 min"),
        (86_400.0, "1 d"),
        (math.inf, "longer"),
    ],
)
def test_a_span_is_told_in_two_figures(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_sizes_and_numbers_are_short() -> None:
    assert [size(value) for value in (0, 1023, 1536, 256 << 20, 20 << 30)] == [
        "0 bytes",
        "1023 bytes",
        "1.5 KiB",
        "256 MiB",
        "20 GiB",
    ]
    assert [number(value) for value in (0.0, 1234567.0, 1.25)] == ["0", "1,234,567", "1.2"]


def test_moments_are_utc_as_the_command_line_has_them() -> None:
    assert clock_time(1_700_000_000.5) == "2023-11-14 22:13:20.500"
    assert [clock_time(moment) for moment in (None, 0.0, math.inf)] == [""] * 3


def test_a_quantile_is_the_bound_that_so_many_stay_within() -> None:
    waits = Histogram((0.1, 1.0, 10.0))
    assert quantile(waits.snapshot(), 0.5) is None
    for wait in (0.05, 0.05, 0.5, 50.0):
        waits.observe(wait)

    snapshot = waits.snapshot()

    assert [quantile(snapshot, share) for share in (0.5, 0.75, 0.99)] == [0.1, 1.0, math.inf]


# --- events and results --------------------------------------------------------------------------------------


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
