"""Results of many invocations of a real engine, asked for while they end."""

from __future__ import annotations

from tests.acceptance.engine_process import ECHO, PROJECT, EngineProcess

FGS = f"/v2/{PROJECT}/fgs"


def test_a_reply_comes_when_as_many_have_ended_as_it_is_asked_for(engine: EngineProcess) -> None:
    engine.create("hello", ECHO)
    calls = [{"function": "hello", "event": number} for number in range(1000)]
    replies = [engine.ask("POST", f"{FGS}/calls", {"calls": calls}).json["results"] for _ in range(4)]
    for results in replies:  # ends that are announced while others are read must not count twice
        ids = [result["request_id"] for result in results]

        reply = engine.ask("POST", f"{FGS}/async-invocations/results", {"request_ids": ids, "wait": 50, "count": 1000})

        assert [result["request_id"] for result in reply.json["results"]] == ids
        assert {result["status"] for result in reply.json["results"]} == {"SUCCESS"}
