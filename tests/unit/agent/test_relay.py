"""Relay of an instance on a node."""

from __future__ import annotations

from pathlib import Path

from engine.agent.relay import Outlet, Relay
from engine.executors.call import End, key_of
from tests.support.agents import AgentEnd, EngineEnd
from tests.support.executing import function
from tests.unit.executors.test_instance import Running, recorder_of


class Numbered(Running):
    """Process and owner of a relay."""

    number = 2


async def test_frames_for_an_instance_that_has_ended_count_as_unread(tmp_path: Path) -> None:
    asked, running = function("any"), Numbered()
    relay = Relay(
        Outlet(AgentEnd(EngineEnd(tmp_path, {})).connection),
        running,
        key=key_of(asked),
        function=asked,
        owner=running,
        recorder=recorder_of(tmp_path),
        on_work=lambda instance: None,
    )
    relay.kill(End.EXITED)
    relay.feed(b"a request")

    assert relay.accepted == 0
