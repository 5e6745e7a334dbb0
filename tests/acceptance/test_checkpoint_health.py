"""Checkpoints that fail, as operators see them."""

from __future__ import annotations

import json
import resource
from pathlib import Path

from tests.acceptance.engine_process import EngineProcess, engine_on

SOURCE = "def handler(event, context):\n    return 1\n"
PAD = "x" * (250 << 10)


def store(engine: EngineProcess, megabytes: int) -> None:
    """Have the engine store events that are due later."""
    for _ in range(megabytes * 4):
        engine.accepted("one", {"pad": PAD}, X_Functiond_Delay="3600")


def test_a_database_that_cannot_grow_shows_in_health_metrics_and_log_until_it_can(tmp_path: Path) -> None:
    """Limit the size of files, so that the log may grow to the size of the database, and the database may not."""
    with engine_on(tmp_path / "data") as engine:
        engine.create("one", SOURCE)
        store(engine, 24)
        size, unlimited = (engine.data / "journal.db").stat().st_size, resource.RLIM_INFINITY
        before = engine.ask("GET", "/healthz")

        resource.prlimit(engine.pid, resource.RLIMIT_FSIZE, (size, unlimited))
        store(engine, 12)
        failing, ready = engine.ask("GET", "/healthz"), engine.ask("GET", "/readyz")
        trouble, log_bytes = (
            engine.metric(f"functiond_journal_{name}") for name in ("checkpoint_trouble", "log_bytes")
        )
        resource.prlimit(engine.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        store(engine, 2)
        after, age = engine.ask("GET", "/healthz"), engine.metric("functiond_journal_checkpoint_age_seconds")
        assert engine.stop() == 0

    assert [reply.json["status"] for reply in (before, failing, ready, after)] == ["ok", "degraded", "ready", "ok"]
    assert "free some space" in failing.json["checkpoint"]
    assert trouble == 1
    assert 8 << 20 < log_bytes <= size
    assert age >= 0
    events = [json.loads(line)["event"] for line in engine.log]
    assert [event for event in events if "checkpoint" in event] == [
        "journal cannot checkpoint",
        "journal checkpoints again",
    ]
