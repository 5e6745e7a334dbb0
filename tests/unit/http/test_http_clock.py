from __future__ import annotations

from tests.support.http_app import PROJECT, Api

CLOCK = f"/v2/{PROJECT}/fgs/clock"


async def test_a_clock_in_doubt_is_shown_and_accepted(api: Api) -> None:
    clock = api.engine.clock
    trusted = (await api.send("GET", CLOCK, base="")).json
    clock.expiry.hold(clock.now() - 1000)
    shown = await api.send("GET", CLOCK, base="")
    accepted = await api.send("POST", f"{CLOCK}/accept", base="")

    assert (trusted["trusted"], trusted["reference"], trusted["ends_in"]) == (True, "", 0)
    assert shown.json["trusted"] is False
    assert (accepted.status, accepted.json["trusted"], clock.expiry.held) == (200, True, False)
