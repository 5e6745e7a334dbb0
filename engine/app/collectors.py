"""The engine's figures and its health, from the snapshots of its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine.app.lifecycle import EngineParts
from engine.maintenance.disk_guard import free_space
from engine.metrics.prometheus import Figure, count, gauge, histogram
from engine.triggers.supervisor import RUNNING


def read_figures(engine: EngineParts) -> Iterator[Figure]:
    yield from _intake(engine)
    yield from _queue(engine)
    yield from _outcomes(engine)
    yield from _executors(engine)
    yield from _sources(engine)
    yield from _journal(engine)


def problems(engine: EngineParts) -> Mapping[str, Any]:
    """What is wrong with a living engine; empty when all is well."""
    writer = engine.storage.writer.statistics()
    found: dict[str, Any] = {}
    if writer.trouble:
        found["journal"] = f"cannot write: {writer.trouble}"
    elif writer.in_flight_seconds > engine.settings.storage.commit_warning:
        found["journal"] = f"a commit takes {writer.in_flight_seconds:.1f} s"
    return found


def reasons_not_ready(engine: EngineParts) -> Mapping[str, Any]:
    """Why new work is refused; empty when it is taken."""
    found = dict(problems(engine))
    refusal = engine.intake.refusal()
    if refusal is not None:
        found["intake"] = str(refusal)
    return found


def _intake(engine: EngineParts) -> Iterator[Figure]:
    intake = engine.intake.statistics()
    accepted: dict[str, float] = {**intake.accepted}
    refused: dict[str, float] = {**intake.refused}
    yield count("accepted", "Asynchronous invocations accepted, by source", accepted, "source")
    yield count("called", "Synchronous calls taken", intake.called)
    yield count("refused", "Requests refused, by kind of error", refused, "error")


def _queue(engine: EngineParts) -> Iterator[Figure]:
    queue, backlog = engine.scheduler.statistics(), engine.backlog
    oldest = queue.oldest_due_at
    age = 0.0 if oldest is None else max(0.0, engine.clock.now() - oldest)
    yield gauge("backlog_invocations", "Accepted and not ended", backlog.rows)
    yield gauge("backlog_bytes", "Payload bytes of those", backlog.size)
    yield gauge("synchronous_calls", "Synchronous calls that wait or run", backlog.sync_rows)
    yield gauge("queue_age_seconds", "Time since the oldest one at the head of a function's queue was due", age)
    yield gauge("window_bytes", "Payload bytes of the backlog held in memory", queue.window_bytes)
    yield gauge("running", "Invocations that run", queue.running)
    held: dict[str, float] = dict.fromkeys(engine.scheduler.held, 1.0)
    yield gauge("held", "Reasons for which no asynchronous work starts", held, "reason")


def _outcomes(engine: EngineParts) -> Iterator[Figure]:
    ends, deliveries = engine.dispatcher.statistics(), engine.delivery.statistics()
    states: dict[str, float] = {**ends.outcomes}
    codes: dict[str, float] = {str(int(code)): amount for code, amount in ends.codes.items()}
    yield count("started", "Attempts started", ends.started)
    yield count("outcomes", "Asynchronous invocations ended, by state", states, "state")
    yield count("attempts", "Attempts ended, by error code", codes, "code")
    yield count("retries", "Attempts that will be followed by another", ends.retries)
    yield count("discards", "Invocations discarded: too old, or their function is gone", ends.outcomes["DISCARD"])
    yield gauge("unsettled", "Ends on their way to disk", ends.unsettled)
    yield histogram("wait_seconds", "From due to started", ends.wait_seconds)
    yield histogram("run_seconds", "Duration of attempts", ends.run_seconds)
    yield count("deliveries", "Outcomes carried to destinations", deliveries.delivered)
    yield count("delivery_failures", "Deliveries that failed and are tried again", deliveries.failed)
    yield count("deliveries_given_up", "Outcomes that could not be delivered", deliveries.given_up)


def _executors(engine: EngineParts) -> Iterator[Figure]:
    pool = engine.pool.statistics()
    states: dict[str, float] = {"starting": pool.starting, "idle": pool.idle, "busy": pool.busy}
    ended: dict[str, float] = {"retired": pool.retired, "killed": pool.killed}
    yield gauge("instances", "Instances, by what they do", states, "state")
    isolation = {pool.isolation: 1.0}
    yield gauge("isolation", "1 for what separates instances from the host, and what limits them", isolation, "by")
    yield gauge("instances_memory_megabytes", "Memory granted to instances", pool.memory)
    yield count("instances_started", "Instances started", pool.started)
    yield count("instances_ended", "Instances ended, by cause", ended, "cause")
    yield histogram("cold_start_seconds", "Until an instance was ready", pool.cold_starts)


def _sources(engine: EngineParts) -> Iterator[Figure]:
    sources = engine.sources.statistics()
    states: dict[str, float] = {**sources.states}
    running: dict[str, float] = {table: float(health.state == RUNNING) for table, health in sources.services.items()}
    yield gauge("triggers", "Triggers, by the state of their source", states, "state")
    yield gauge("plugin_services", "Services of plugins: 1 for one that runs", running, "plugin")
    yield count("trigger_events", "Events of triggers that were accepted", sources.accepted)
    yield count("trigger_events_refused", "Events of triggers that were refused for good", sources.refused)


def _journal(engine: EngineParts) -> Iterator[Figure]:
    writer = engine.storage.writer.statistics()
    yield histogram("commit_rows", "Submissions in one commit", writer.batch_size)
    yield histogram(
        "commit_seconds", "Duration of commits, with the wait for the writer's thread", writer.commit_seconds
    )
    yield gauge("commit_in_flight_seconds", "Age of the commit under way", writer.in_flight_seconds)
    yield gauge("journal_trouble", "1 while the disk refuses", 1.0 if writer.trouble else 0.0)
    yield gauge("disk_free_bytes", "Bytes left on the disk of the data directory", free_space(engine.storage.path))
    yield gauge("disk_kept_bytes", "Bytes left below which new work is refused", engine.settings.storage.free_space)
    yield count("purged", "Finished invocations dropped after their retention", engine.pruner.purged)
