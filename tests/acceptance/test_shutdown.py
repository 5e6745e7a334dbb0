"""Shutdown of an engine: graceful, by kill -9, and killed by its own function."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from tests.acceptance.engine_process import (
    BASE,
    ECHO,
    HELD,
    PROJECT,
    EngineProcess,
    begun,
    descendants,
    engine_on,
    held_event,
    is_alive,
    rows,
    to_function,
    until,
)

pytestmark = pytest.mark.long

SLEEPS = """
import time

def handler(event, context):
    with open(event["runs"], "a") as file:
        file.write(context.getRequestID() + "\\n")
    time.sleep(600)
"""
#: Writes the file ``loading`` when its code is loaded, and is loaded when the file ``gate`` appears.
SLOW = """
import os, time

open({loading!r}, "w").close()
while not os.path.exists({gate!r}):
    time.sleep(0.02)

def handler(event, context):
    return "ended"
"""
#: Kills the engine, one of its ancestors.
KILLER = """
import os, signal, time

def handler(event, context):
    pid = os.getppid()
    while b"\\0serve\\0" not in open(f"/proc/{pid}/cmdline", "rb").read():
        pid = int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1])
    os.kill(pid, signal.SIGKILL)
    time.sleep(30)
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with engine_on(tmp_path / "data", FUNCTIOND_GRACE="1") as engine:
        yield engine


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[EngineProcess]:
    """Run an engine that waits long for running functions when it stops, with the function held."""
    with engine_on(tmp_path / "data", FUNCTIOND_GRACE="600") as engine:
        engine.create("held", HELD)
        yield engine


def hold(engine: EngineProcess, tmp_path: Path) -> str:
    """Start a run that ends when ``tmp_path``/gate exists; return its request id."""
    request_id = engine.accepted("held", held_event(tmp_path))
    begun(tmp_path, 1)
    return request_id


def logged(engine: EngineProcess) -> list[str]:
    """Return the names of the events in the engine's log."""
    return [json.loads(line)["event"] for line in engine.log]


# --- graceful -----------------------------------------------------------------------------------------------


def test_what_runs_may_end_within_the_grace_period(patient: EngineProcess, tmp_path: Path) -> None:
    request_id = hold(patient, tmp_path)
    patient.signal(signal.SIGTERM)
    (tmp_path / "gate").touch()
    assert patient.wait() == 0

    assert rows(patient.data, "SELECT state, deaths FROM invocation") == [(3, 0)]
    patient.start()
    assert patient.record("held", request_id)["result"] == "ended"


def test_instances_run_their_pre_stop_hooks_within_the_grace_period(tmp_path: Path) -> None:
    said = tmp_path / "said"
    source = f"{ECHO}\ndef stop():\n    open({str(said)!r}, 'w').write('bye')\n"
    with engine_on(tmp_path / "data", FUNCTIOND_GRACE="30") as engine:
        engine.create("polite", source, pre_stop_handler="index.stop", pre_stop_timeout=20)
        engine.record("polite", engine.accepted("polite", 1), wait=30)
        assert engine.stop() == 0

    assert said.read_text() == "bye"


def test_new_requests_get_503_while_the_engine_stops(patient: EngineProcess, tmp_path: Path) -> None:
    hold(patient, tmp_path)
    patient.signal(signal.SIGTERM)
    reply = until(lambda: (sent := patient.send("held")).status != 202 and sent)
    (tmp_path / "gate").touch()

    assert reply.status == 503
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.json["error_code"] == "FSS.0503"
    assert patient.wait() == 0


@pytest.mark.parametrize(
    ("path", "first"),
    [
        (f"/console/projects/{PROJECT}/functions/held/logs/stream", b"event: begin\n"),
        (f"{BASE}/held/logs", b": still here\n"),
    ],
)
def test_a_log_that_is_followed_ends_when_the_engine_begins_to_stop(
    patient: EngineProcess, tmp_path: Path, path: str, first: bytes
) -> None:
    hold(patient, tmp_path)
    with closing(http.client.HTTPConnection("127.0.0.1", patient.port, timeout=60)) as connection:
        connection.request("GET", path, headers={"Accept": "text/event-stream"})
        stream = connection.getresponse()
        while stream.readline() != first:
            pass
        patient.signal(signal.SIGTERM)
        stream.read()  # to the end, while the run still holds up the stop
        assert is_alive(patient.pid)
    (tmp_path / "gate").touch()
    assert patient.wait() == 0
    assert logged(patient)[-1] == "stopped"


def test_what_does_not_end_in_time_waits_and_runs_again_without_a_death(engine: EngineProcess, tmp_path: Path) -> None:
    engine.create("held", HELD)
    request_id = hold(engine, tmp_path)
    children = descendants(engine.pid)
    began = monotonic()

    assert engine.stop() == 0
    assert monotonic() - began < 30  # the grace period is one second
    assert not [pid for pid in children if is_alive(pid)]
    assert rows(engine.data, "SELECT state, deaths FROM invocation") == [(0, 0)]
    (tmp_path / "gate").touch()
    engine.start()
    assert engine.record("held", request_id, wait=30)["status"] == "SUCCESS"
    assert begun(tmp_path, 2) == [request_id] * 2


def test_a_second_signal_ends_the_grace_period(patient: EngineProcess, tmp_path: Path) -> None:
    patient.create("sleeps", SLEEPS)
    patient.accepted("sleeps", {"runs": str(tmp_path / "runs")})
    begun(tmp_path, 1)
    children = descendants(patient.pid)
    patient.signal(signal.SIGTERM)
    patient.signal(signal.SIGINT)  # two pending signals of the same kind are delivered as one

    assert patient.wait() == 0
    assert not [pid for pid in children if is_alive(pid)]
    assert rows(patient.data, "SELECT state, deaths FROM invocation") == [(0, 0)]


def test_what_waits_is_not_begun_while_the_engine_stops(tmp_path: Path) -> None:
    with engine_on(
        tmp_path / "data", FUNCTIOND_GRACE="30", FUNCTIOND_EXECUTOR__SLOTS="1", FUNCTIOND_EXECUTOR__SYNC_SLOTS="0"
    ) as engine:
        engine.create("held", HELD)
        first = hold(engine, tmp_path)
        second = engine.accepted("held", held_event(tmp_path))
        engine.signal(signal.SIGTERM)
        until(lambda: engine.send("held").status != 202)
        (tmp_path / "gate").touch()
        engine.wait()

        assert begun(tmp_path, 1) == [first]
        engine.start()
        assert engine.record("held", second, wait=30)["status"] == "SUCCESS"


# --- kill -9 -----------------------------------------------------------------------------------------------


def test_instances_of_a_killed_engine_are_gone_before_their_work_runs_again(
    engine: EngineProcess, tmp_path: Path
) -> None:
    engine.create("held", HELD)
    request_id = hold(engine, tmp_path)
    children = descendants(engine.pid)
    assert children
    engine.kill()
    engine.start()

    assert not [pid for pid in children if is_alive(pid)]
    assert begun(tmp_path, 2) == [request_id] * 2
    assert rows(engine.data, "SELECT deaths FROM invocation") == [(1,)]


def test_what_waits_for_a_slow_start_is_not_failed_by_the_crashes_of_others(
    engine: EngineProcess, tmp_path: Path
) -> None:
    loading, gate = tmp_path / "loading", tmp_path / "gate"
    engine.create("slow", SLOW.format(loading=str(loading), gate=str(gate)))
    request_id = engine.accepted("slow", {})
    for _ in range(4):
        until(lambda: loading.exists() and rows(engine.data, "SELECT state FROM invocation") == [(2,)])
        engine.kill(children=True)
        loading.unlink()
        engine.start()
    gate.touch()

    assert engine.record("slow", request_id, wait=60)["status"] == "SUCCESS"
    assert rows(engine.data, "SELECT deaths, start_deaths FROM invocation") == [(0, 4)]


def test_what_kills_the_engine_four_times_is_poisoned_and_the_others_run(
    engine: EngineProcess,
) -> None:
    engine.create("killer", KILLER)
    engine.create("echo", ECHO)
    engine.configure("killer", max_async_retry_attempts=3, destination_config={"on_failure": to_function("echo")})
    others = [engine.accepted("echo", {"n": n}, X_Functiond_Delay="0.2") for n in range(5)]
    killer = engine.accepted("killer")
    for death in range(1, 5):
        assert engine.wait() == -signal.SIGKILL, f"death {death}"
        serving = engine.launch()
    engine.port = serving.result(60)

    end = engine.record("killer", killer, wait=30)
    assert (end["status"], end["error_code"]) == ("FAIL", 150500)
    assert [engine.record("echo", other, wait=30)["status"] for other in others] == ["SUCCESS"] * 5
    assert rows(engine.data, "SELECT count(*) FROM invocation WHERE source = 'FunctionGraph'") == [(1,)]
