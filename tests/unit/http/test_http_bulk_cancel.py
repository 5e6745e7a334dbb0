"""Cancellation by filter over HTTP: the filter, its errors, and the marker from step to step."""

from __future__ import annotations

import pytest

from engine.model import State
from engine.protocols import FIRST
from tests.support.http_app import Api, urn_of

pytestmark = pytest.mark.usefixtures("hello")

PATH = f"/{urn_of(version='')}/async-invocations/cancel"


async def test_without_a_body_all_that_waits_is_cancelled_step_by_step(api: Api) -> None:
    sent = (await api.invoke()).json["request_id"]
    first = await api.send("POST", PATH)
    second = await api.send("POST", PATH, {"marker": first.json["next_marker"]})
    last = await api.send("POST", PATH, {"marker": second.json["next_marker"]})

    assert (first.status, first.json["cancelled"], last.json["next_marker"]) == (200, [sent], "")
    assert [place for _, _, place, _ in api.engine.cancel_steps] == [FIRST, (1, 0.5, 7), (2, 0.5, 7)]
    assert {states for _, states, _, _ in api.engine.cancel_steps} == {frozenset({State.WAIT})}


async def test_the_filter_reaches_the_engine(api: Api) -> None:
    body = {"status": "WAIT,RUNNING", "source": "TIMER", "query_begin_time": "2030-01-01T00:00:00", "limit": 7}
    await api.send("POST", PATH, body)

    ((selection, states, _, limit),) = api.engine.cancel_steps
    assert (selection.source, selection.begin, limit) == ("TIMER", 1893456000.0, 7)
    assert states == {State.WAIT, State.RUNNING}


@pytest.mark.parametrize(
    "body",
    [
        {"status": "FAIL"},
        {"limit": 501},
        {"marker": "some"},
        {"marker": "1:nan:2"},
        {"query_end_time": "soon"},
        {"state": "WAIT"},
    ],
)
async def test_a_wrong_filter_cancels_nothing(api: Api, body: dict[str, object]) -> None:
    assert (await api.send("POST", PATH, body)).status == 400
    assert api.engine.cancel_steps == []
