"""Metrics of the engine, computed from the statistics of its components."""

from __future__ import annotations

from collections.abc import Iterator

from engine.app.parts import EngineParts
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
    yield from _connections(engine)
    yield from _loop(engine)
    yield from _spans(engine)


def _intake(engine: EngineParts) -> Iterator[Figure]:
    intake = engine.intake.statistics()
    accepted: dict[str, float] = {**intake.accepted}
    refused: dict[str, float] = {**intake.refused}
    yield count("accepted", "Asynchronous invocations accepted, by source", accepted, "source")
    yield count("called", "Synchronous calls accepted", intake.called)
    yield count("refused", "Requests rejected, by kind of error", refused, "error")


def _queue(engine: EngineParts) -> Iterator[Figure]:
    queue, backlog = engine.scheduler.statistics(), engine.backlog
    oldest = queue.oldest_due_at
    age = 0.0 if oldest is None else max(0.0, engine.clock.now() - oldest)
    yield gauge("backlog_invocations", "Accepted asynchronous invocations that have not ended", backlog.rows)
    limit = engine.settings.queue.rows
    yield gauge("backlog_limit_invocations", "Unended invocations at which new ones are refused", limit)
    yield gauge("backlog_bytes", "Payload bytes of the backlog", backlog.size)
    yield gauge("synchronous_calls", "Synchronous calls waiting or running", backlog.sync_rows)
    yield gauge("queue_age_seconds", "Seconds since the oldest invocation at the head of a queue was due", age)
    yield gauge("window_bytes", "Payload bytes of the backlog held in memory", queue.window_bytes)
    yield gauge("running", "Running invocations", queue.running)
    held: dict[str, float] = dict.fromkeys(engine.scheduler.held, 1.0)
    yield gauge("held", "1 for each reason why no asynchronous work starts", held, "reason")


def _outcomes(engine: EngineParts) -> Iterator[Figure]:
    ends, deliveries = engine.dispatcher.statistics(), engine.delivery.statistics()
    states: dict[str, float] = {**ends.outcomes}
    codes: dict[str, float] = {str(int(code)): amount for code, amount in ends.codes.items()}
    yield count("started", "Attempts started", ends.started)
    yield count("outcomes", "Asynchronous invocations ended, by state", states, "state")
    yield count("attempts", "Attempts ended, by error code", codes, "code")
    yield count("retries", "Attempts that will be retried", ends.retries)
    yield count("discards", "Invocations discarded: too old, or function deleted", ends.outcomes["DISCARD"])
    logged = engine.status_log.state()
    yield count("status_log_lines", "States of invocations written to log streams", logged.written)
    yield count("status_log_dropped", "States of invocations not logged, because too many waited", logged.dropped)
    yield gauge("status_log_waiting", "States of invocations that wait for their log stream", logged.waiting)
    yield gauge("unsettled", "Ended attempts that are not on disk yet", ends.unsettled)
    yield histogram("wait_seconds", "Seconds from due time to start", ends.wait_seconds)
    yield histogram("run_seconds", "Duration of attempts in seconds", ends.run_seconds)
    yield count("deliveries", "Outcomes delivered to destinations", deliveries.delivered)
    yield count("delivery_failures", "Failed deliveries that are retried", deliveries.failed)
    yield count("deliveries_given_up", "Outcomes whose delivery was given up", deliveries.given_up)


def _executors(engine: EngineParts) -> Iterator[Figure]:
    pool = engine.pool.statistics()
    states: dict[str, float] = {"starting": pool.starting, "idle": pool.idle, "busy": pool.busy}
    ended: dict[str, float] = {"retired": pool.retired, "killed": pool.killed}
    yield gauge("instances", "Instances, by state", states, "state")
    isolation = {pool.isolation: 1.0}
    yield gauge("isolation", "1 for the active isolation of instances", isolation, "by")
    yield gauge("instances_memory_bytes", "Memory limits of all instances", pool.memory << 20)
    yield count("instances_started", "Instances started", pool.started)
    yield count("instances_ended", "Instances ended, by cause", ended, "cause")
    recycled: dict[str, float] = {**pool.recycled}
    yield count(
        "instances_recycled", "Instances replaced by the controls of their function, by cause", recycled, "cause"
    )
    yield histogram("cold_start_seconds", "Seconds until a new instance was ready", pool.cold_starts)


def _sources(engine: EngineParts) -> Iterator[Figure]:
    sources = engine.sources.statistics()
    states: dict[str, float] = {**sources.states}
    running: dict[str, float] = {table: float(health.state == RUNNING) for table, health in sources.services.items()}
    yield gauge("triggers", "Triggers, by the state of their source", states, "state")
    yield gauge("plugin_services", "Services of plugins: 1 if running", running, "plugin")
    yield count("trigger_events", "Events of triggers accepted", sources.accepted)
    yield count("trigger_events_refused", "Events of triggers rejected permanently", sources.refused)
    yield count("trigger_events_lost", "Events that left what a trigger reads before they were read", sources.lost)


def _journal(engine: EngineParts) -> Iterator[Figure]:
    storage, settings = engine.storage.statistics(), engine.settings.storage
    yield histogram("commit_rows", "Write requests per commit", storage.batch_size)
    yield histogram(
        "commit_seconds", "Duration of commits in seconds, including the wait for the thread", storage.commit_seconds
    )
    yield gauge("commit_in_flight_seconds", "Age of the current commit in seconds", storage.in_flight_seconds)
    yield gauge("journal_trouble", "1 while the journal cannot write", 1.0 if storage.failure else 0.0)
    yield gauge(
        "journal_damaged", "1 from the first damaged page on, until the engine stops", 1.0 if storage.damage else 0.0
    )
    yield gauge("journal_log_bytes", "Size of the write-ahead log in bytes", storage.log_size)
    yield gauge(
        "journal_checkpoint_age_seconds",
        "Seconds since the write-ahead log was last copied to the database, or since the start",
        storage.checkpoint_age,
    )
    failing = 1.0 if storage.checkpoint_failure else 0.0
    yield gauge("journal_checkpoint_trouble", "1 while the write-ahead log cannot be copied to the database", failing)
    yield gauge("disk_free_bytes", "Free bytes on the disk of the data directory", free_space(settings.path))
    yield gauge("disk_kept_bytes", "Free bytes below which new work is rejected", settings.free_space)
    yield count("purged", "Finished invocations removed by pruning", engine.pruner.purged)


def _connections(engine: EngineParts) -> Iterator[Figure]:
    turned_away: dict[str, float] = {**engine.connections.api.turned_away.counts}
    yield count(
        "clients_turned_away", "Connections and requests refused, by the limit that was reached", turned_away, "limit"
    )


def _loop(engine: EngineParts) -> Iterator[Figure]:
    lag = engine.lag
    trusted = 0.0 if engine.clock_guard.state().held else 1.0
    yield gauge("clock_trusted", "0 while nothing expires because the clock is in doubt", trusted)
    yield histogram("loop_lag_seconds", "Lag of the event loop in seconds, while work is in flight", lag.snapshot())
    yield gauge("loop_lag_worst_seconds", "Longest lag of the event loop since the engine started", lag.worst)


def _spans(engine: EngineParts) -> Iterator[Figure]:
    if engine.tracer is not None:
        spans = engine.tracer.statistics()
        results = {"exported": spans.exported, "failed": spans.failed, "dropped": spans.dropped}
        yield count("spans", "Spans of traces, by what became of them", {**results}, "result")
