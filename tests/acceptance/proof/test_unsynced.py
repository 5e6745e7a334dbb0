"""Kill between the write and the sync of a commit: the next engine makes durable what it shows."""

from __future__ import annotations

import http.client
import json
from contextlib import closing, suppress
from pathlib import Path

import pytest

from bench.proof import promises as p
from bench.proof.clients import ECHO, path_of
from bench.proof.disk import Kind
from bench.proof.lives import ENVIRONMENT
from bench.proof.recording import Calls, Recorder
from bench.proof.states import Point, Recording, check_all
from bench.server import Engine

PAYLOAD = '{"order": 1}'


def send(port: int) -> str:
    """Send a request with an idempotency key, and return its id. Raises OSError if the engine is killed meanwhile."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        headers = {"Content-Type": "application/json", "Idempotency-Key": "k", "X-Functiond-Delay": "3600"}
        connection.request("POST", f"{path_of('plain')}/invocations-async", PAYLOAD, headers)
        reply = connection.getresponse()
        assert reply.status == 202
        request_id: str = json.loads(reply.read())["request_id"]
        return request_id


@pytest.fixture
def repeated(tmp_path: Path) -> Recording:
    """Kill an engine in place of the sync of a request, and repeat the request at the next engine."""
    data = tmp_path / "data"
    recorder = Recorder(tmp_path, data)
    server = Engine(data, **ENVIRONMENT, **recorder.environment)
    try:
        server.wait_until_serving()
        server.deploy("plain", ECHO)
        recorder.fail(Calls.SYNC, 1, 0)
        with suppress(OSError, http.client.HTTPException):
            send(server.port)
        server.kill()
        recorder.restart()
        server = Engine(data, **ENVIRONMENT, **recorder.environment)
        server.wait_until_serving()
        request_id = send(server.port)
        position = recorder.position
    finally:
        server.kill()
        recorder.close()
    promise = p.Accepted(position=position, request_id=request_id, function="plain", payload=PAYLOAD, key="k")
    p.save([promise], tmp_path / "promises.json")
    return Recording(folder=tmp_path, data=str(data), seed=1)


def test_a_repeated_request_is_durable_although_the_first_was_not_synced(repeated: Recording) -> None:
    [promise] = repeated.promises
    points = [Point(position=promise.position, kind=kind, seed=1) for kind in Kind]

    assert [str(violation) for violations in check_all(repeated, points) for violation in violations] == []
