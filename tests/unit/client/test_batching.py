"""Steps by which many events are sent, without an engine."""

from __future__ import annotations

import json

from functiond.configuration import Configuration
from functiond.operations import Operations
from functiond.steps import Reply, Request, Sleep

FULL = {"error_code": "FSS.0429", "error_msg": "no room"}


def reply(*results: dict[str, str], seconds: str) -> Reply:
    body = json.dumps({"results": results}).encode()
    return Reply(status=202, headers={"retry-after": seconds}, body=body)


def test_events_without_room_wait_as_long_as_the_engine_asks() -> None:
    operations = Operations(Configuration(url="http://a"))
    steps = operations.enqueue_many("f", [1, 2])
    first = next(steps)
    wait = steps.send(reply({"request_id": "a"}, FULL, seconds="20"))
    assert isinstance(wait, Sleep)
    assert 20 <= wait.seconds <= 30

    second = steps.send(None)
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert second.body == b'{"events":[%b]}' % first.body.removeprefix(b'{"events":[').partition(b"},")[2][:-2]
