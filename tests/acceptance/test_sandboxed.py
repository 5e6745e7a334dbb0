"""Engine that runs functions in sandboxes, the default where bubblewrap works."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.engine_process import BASE, EngineProcess, descendants, engine_on, is_alive, urn_of
from tests.support.programs import needs

pytestmark = needs("bwrap")

SOURCE = """
import os, time

def handler(event, context):
    if event.get("sleep"):
        print("asleep", flush=True)
        time.sleep(600)
    return {"user": os.getuid(), "tmp": os.listdir("/tmp"), "code": os.listdir("/opt/function/code")}
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with engine_on(tmp_path / "data", FUNCTIOND_EXECUTOR__ISOLATION="auto") as engine:
        engine.create("sandboxed", SOURCE)
        yield engine


def test_the_isolation_is_reported_by_readiness_and_metrics(engine: EngineProcess) -> None:
    ready = engine.ask("GET", "/readyz").json

    assert ready["isolation"].startswith("bubblewrap, ")
    assert ready["http_network"] in ("mapped", "shared")
    assert f'isolation{{by="{ready["isolation"]}"}} 1' in engine.ask("GET", "/metrics").body.decode()


def test_a_function_runs_inside(engine: EngineProcess) -> None:
    reply = engine.ask("POST", f"{BASE}/{urn_of('sandboxed')}/invocations", {})

    assert reply.status == 200
    assert reply.json == {"user": 1003, "tmp": [], "code": ["index.py"]}


def test_after_kill_9_nothing_of_the_engine_runs(engine: EngineProcess) -> None:
    engine.accepted("sandboxed", {"sleep": True})
    engine.ask("POST", f"{BASE}/{urn_of('sandboxed')}/invocations", {})
    left = descendants(engine.pid)
    held = [os.pidfd_open(pid) for pid in left]
    engine.kill()

    assert len(left) > 4
    for pid, fd in zip(left, held, strict=True):
        wait_for_exit(fd)
        assert not is_alive(pid)


def wait_for_exit(pidfd: int) -> None:
    """Wait until the process has exited, then close its descriptor."""
    select.select([pidfd], [], [])
    os.close(pidfd)
