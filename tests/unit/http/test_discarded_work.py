"""Work that is discarded for its age: on the console's overview, in the API's ranking, and in ``functiond doctor``."""

from __future__ import annotations

from pathlib import Path

import anyio

from engine.cli.doctor import Finding, of_engine
from engine.deploy.client import Client
from engine.http.console.paths import HOME
from tests.doubles import ManualClock
from tests.support.http_app import PROJECT
from tests.support.triggering import HELD, api_client, house, until

HELLO = f"/v2/{PROJECT}/fgs/functions/hello"


async def test_invocations_discarded_for_their_age_are_shown_for_a_day(tmp_path: Path) -> None:
    clock = ManualClock(check=0.01)
    async with house(tmp_path, clock=clock) as place, api_client(place) as client:

        async def look() -> tuple[str, list[Finding]]:
            engine = Client(str(client.base_url), PROJECT, "functiond")
            findings = await anyio.to_thread.run_sync(
                lambda: [finding for finding in of_engine(engine) if "hello" in finding.where]
            )
            return (await client.get(HOME)).text, findings

        async def discard(rows: int) -> None:
            done = place.engine.dispatcher.statistics().outcomes["DISCARD"] + rows
            for _ in range(rows):
                assert (await client.post(f"{HELLO}/invocations-async", json={})).status_code == 202
            clock.advance(100)
            place.engine.scheduler.resume(HELD)
            await until(lambda: place.engine.dispatcher.statistics().outcomes["DISCARD"] == done)

        await client.put(f"{HELLO}/async-invoke-config", json={"max_async_event_age_in_seconds": 60})
        before = await look()
        await discard(2)
        await client.patch(f"{HELLO}/controls", json={"paused": True})
        await discard(1)
        page, (finding,) = await look()
        clock.advance(2 * 86_400)
        after = await look()

    for text, findings in (before, after):
        assert "has discarded work" not in text
        assert findings == []
    assert "<strong>hello has discarded work</strong> <p>3 invocations of the last day were too old to start" in page
    assert f"{HOME}projects/{PROJECT}/functions/hello/invocations?status=DISCARD" in page
    assert (finding.where, finding.serious) == ("function hello", False)
    assert finding.problem == "3 events of the last day were too old to start, and discarded"
    assert finding.advice.endswith("functiond redrive --failed --status DISCARD --function hello")
