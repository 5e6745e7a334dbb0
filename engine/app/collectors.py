"""Metrics of the engine, from the statistics of its components, and of each function and source, from its counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from engine.app.health import EngineHealth
from engine.app.parts import EngineParts
from engine.executors.nodes.report import NodesReport, NodesStatistics
from engine.isolation.machine import free_space
from engine.metrics.function_metrics import LABELS, OTHER, FunctionCounters, FunctionMetrics, Labels
from engine.metrics.histogram import Distribution
from engine.metrics.prometheus import Family, count, gauge, histogram
from engine.model import Mode
from engine.triggers.supervisor import RUNNING

MOST_LAGS = 1000
_FUNCTION = LABELS[:3]
_Counted = Sequence[tuple[Labels, FunctionCounters]]


def read_figures(engine: EngineParts) -> Iterator[Family]:
    yield from _intake(engine)
    yield from _queue(engine)
    yield from _outcomes(engine)
    yield from _executors(engine)
    yield from _sources(engine)
    yield from _journal(engine)
    yield from _connections(engine)
    yield from _loop(engine)
    yield from _spans(engine)


def _intake(engine: EngineParts) -> Iterator[Family]:
    intake = engine.intake.statistics()
    yield count("accepted", "Asynchronous invocations accepted, by source", intake.accepted, "source")
    yield count("called", "Synchronous calls accepted", intake.called)
    yield count("refused", "Requests rejected, by kind of error", intake.refused, "error")


def _queue(engine: EngineParts) -> Iterator[Family]:
    queue, backlog = engine.scheduler.statistics(), engine.backlog
    oldest = queue.oldest_due_at
    age = 0.0 if oldest is None else max(0.0, engine.clock.now() - oldest)
    yield gauge("backlog_invocations", "Accepted asynchronous invocations that have not ended", backlog.rows)
    limit = engine.settings.queue.rows
    yield gauge("backlog_limit_invocations", "Unended invocations at which new ones are refused", limit)
    yield gauge("backlog_bytes", "Payload bytes of the backlog", backlog.size)
    yield gauge("synchronous_calls", "Synchronous calls waiting or running", backlog.calls.rows)
    yield gauge("queue_age_seconds", "Seconds since the oldest invocation at the head of a queue was due", age)
    yield gauge("window_bytes", "Payload bytes of the backlog held in memory", queue.window_bytes)
    yield gauge("running", "Running invocations", queue.running)
    held = engine.scheduler.held
    yield gauge("held", "1 for each reason why no asynchronous work starts", dict.fromkeys(held, 1.0), "reason")


def _outcomes(engine: EngineParts) -> Iterator[Family]:
    ends, deliveries = engine.dispatcher.statistics(), engine.delivery.statistics()
    codes = {str(int(code)): amount for code, amount in ends.codes.items()}
    yield count("started", "Attempts started", ends.started)
    yield count("outcomes", "Asynchronous invocations ended, by state", ends.outcomes, "state")
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
    yield count("delivery_failures", "Failed tries of deliveries", deliveries.failed)
    yield count("deliveries_given_up", "Outcomes whose delivery was given up", deliveries.given_up)


def _executors(engine: EngineParts) -> Iterator[Family]:
    pool = engine.pool.statistics()
    states = {"starting": pool.starting, "idle": pool.idle, "busy": pool.busy}
    ended = {"retired": pool.retired, "killed": pool.killed}
    yield gauge("instances", "Instances, by state", states, "state")
    yield gauge("isolation", "1 for the active isolation of instances", {engine.pool.walls["isolation"]: 1.0}, "by")
    yield gauge("instances_memory_bytes", "Memory limits of all instances", pool.memory << 20)
    yield count("instances_started", "Instances started", pool.started)
    yield count("instances_ended", "Instances ended, by cause", ended, "cause")
    recycled = "Instances replaced by the controls of their function, by cause"
    yield count("instances_recycled", recycled, pool.recycled, "cause")
    yield histogram("cold_start_seconds", "Seconds until a new instance was ready", pool.cold_starts)


def _sources(engine: EngineParts) -> Iterator[Family]:
    sources = engine.sources.statistics()
    running = {table: float(health.state == RUNNING) for table, health in sources.services.items()}
    yield gauge("triggers", "Triggers, by the state of their source", sources.states, "state")
    yield gauge("plugin_services", "Services of plugins: 1 if running", running, "plugin")
    yield count("trigger_events", "Events of triggers accepted", sources.accepted)
    yield count("trigger_events_refused", "Events of triggers rejected permanently", sources.refused)
    yield count("trigger_events_lost", "Events that left what a trigger reads before they were read", sources.lost)


def _journal(engine: EngineParts) -> Iterator[Family]:
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


def _connections(engine: EngineParts) -> Iterator[Family]:
    refused = "Connections and requests refused, by the limit that was reached"
    yield count("clients_turned_away", refused, engine.connections.api.turned_away.counts, "limit")


def _loop(engine: EngineParts) -> Iterator[Family]:
    lag = engine.lag
    trusted = 0.0 if engine.clock_guard.state().held else 1.0
    yield gauge("clock_trusted", "0 while nothing expires because the clock is in doubt", trusted)
    yield histogram("loop_lag_seconds", "Lag of the event loop in seconds, while work is in flight", lag.snapshot())
    yield gauge("loop_lag_worst_seconds", "Longest lag of the event loop since the engine started", lag.worst)


def _spans(engine: EngineParts) -> Iterator[Family]:
    if engine.tracer is not None:
        spans = engine.tracer.statistics()
        results = {"exported": spans.exported, "failed": spans.failed, "dropped": spans.dropped}
        yield count("spans", "Spans of traces, by what became of them", results, "result")
    if (lines := engine.logs.forwarder) is not None:
        yield count("forwarded_lines", "Lines of functions", {"written": lines.written, "lost": lines.lost}, "result")


def _nodes(report: NodesReport, numbers: NodesStatistics) -> Iterator[Family]:
    yield gauge("nodes", "Nodes, by state", Counter(node.state for node in report.nodes), "state")
    instances = {node.name: float(node.instances) for node in report.nodes}
    yield gauge("node_instances", "Instances of a node", instances, "node")
    yield gauge("placement_up", "0 while nothing is placed on nodes", float(not report.problem))
    whole = [(node.name, node.cpus, node.memory, node.gpus) for node in report.nodes]
    used = [(node.name, node.cpus_used, node.memory_used, node.gpus_used) for node in report.nodes]
    yield _by_resource("node_capacity", "Processors, bytes of memory, and GPUs of a node for instances", whole)
    yield _by_resource("node_used", "Processors, bytes of memory, and GPUs granted to instances of a node", used)
    yield gauge("grants_pending", "Starts that wait for capacity", sum(shape.starts for shape in report.waiting))
    yield histogram("grant_seconds", "Seconds until a start had capacity", numbers.grant_seconds)
    yield count("node_losses", "Losses of nodes, by reason", numbers.losses, "reason")
    yield histogram("fence_seconds", "Seconds from the last ping of a lost node to its fence", numbers.fence_seconds)
    yield histogram("node_ping_seconds", "Delay of pings of nodes in seconds", numbers.ping_seconds)
    yield count("node_package_bytes", "Bytes of packages sent to nodes", numbers.package_bytes)


def _by_resource(name: str, help: str, amounts: list[tuple[str, float, int, float]]) -> Family:
    samples = [((node, "cpus"), cpus) for node, cpus, _, _ in amounts]
    samples += [((node, "memory"), float(memory << 20)) for node, _, memory, _ in amounts]
    samples += [((node, "gpus"), gpus) for node, _, _, gpus in amounts if gpus]
    return Family(name=name, help=help, kind="gauge", labels=("node", "resource"), samples=samples)


# --- of each function and source ----------------------------------------------------------------------


def read_families(engine: EngineParts, health: EngineHealth, project: str | None = None) -> Iterator[Family]:
    """Yield the health of the engine, then the metrics by function and source unless they are off.

    ``project`` is the only one whose functions and triggers are named; None: all are.
    """
    yield gauge("healthy", "0 while /healthz fails", 0.0 if health.problems() else 1.0)
    labels, lags = ("trigger", "partition"), engine.sources.lags(MOST_LAGS, project)
    yield Family(name="trigger_lag", help="Events not read yet", kind="gauge", labels=labels, samples=lags)
    if (nodes := engine.pool.nodes) is not None:
        yield from _nodes(nodes.report(), nodes.statistics())
    metrics = engine.function_metrics
    if metrics is None:
        return
    counted = [*metrics.all()]
    for family in (*_requests(counted, _running(engine, metrics)), *_ends(counted), *_waiting(engine, metrics)):
        shown = [sample for sample in family.samples if project is None or sample[0][0] in ("", project)]
        yield replace(family, samples=shown)
    used = "Functions and sources that have metrics of their own"
    yield gauge("function_labels", used, metrics.used)
    most = "Largest number of functions and sources that have metrics of their own"
    yield gauge("function_labels_limit", most, metrics.limit)


def _requests(counted: _Counted, running: Mapping[Labels, int]) -> Iterator[Family]:
    received = ((labels, counts.accepted + counts.refused) for labels, counts in counted)
    yield _counter("received", "Requests for a function, accepted or refused, by source", received)
    started = ((labels, counts.attempts.total() + running.get(labels, 0)) for labels, counts in counted)
    yield _counter("started", "Attempts started", started)
    attempts = (((*labels, str(int(code))), n) for labels, counts in counted for code, n in counts.attempts.items())
    yield _counter("attempts", "Attempts ended, by error code", attempts, "code")


def _ends(counted: _Counted) -> Iterator[Family]:
    ended = (((*labels, state), n) for labels, counts in counted for state, n in counts.ended.items())
    yield _counter("ended", "Invocations ended, by state", ended, "state")
    dropped = (((*labels, reason), n) for labels, counts in counted for reason, n in counts.dropped.items())
    yield _counter("dropped", "Requests refused, and invocations ended without a result, by reason", dropped, "reason")
    deliveries = (((*labels, *kind), n) for labels, counts in counted for kind, n in counts.deliveries.items())
    yield _counter("deliveries", "Tries of deliveries, by destination and result", deliveries, "destination", "result")
    waits = [(labels, counts.wait_seconds.snapshot()) for labels, counts in counted]
    yield _histogram("wait_seconds", "Seconds from the due time to the start of an attempt", waits)
    runs = [(labels, counts.run_seconds.snapshot()) for labels, counts in counted]
    yield _histogram("run_seconds", "Duration of attempts in seconds", runs)


def _waiting(engine: EngineParts, metrics: FunctionMetrics) -> Iterator[Family]:
    """Yield the gauges of waiting work, by function only: the sums on disk have no sources."""
    backlog, now = engine.backlog, engine.clock.now()
    running = Counter(run.function_id for run in engine.dispatcher.running() if run.mode is Mode.ASYNC)
    waiting: dict[tuple[str, ...], float] = {}
    ages: dict[tuple[str, ...], float] = {}
    paused: dict[tuple[str, ...], float] = {}
    for function_id, labels in metrics.functions().items():
        waiting[labels] = max(0, backlog.of(function_id)[0] - running[function_id])
        paused[labels] = float(engine.controls.of(function_id).paused)
        due_at = engine.scheduler.oldest_due(function_id)
        ages[labels] = 0.0 if due_at is None else max(0.0, now - due_at)
    waiting["", "", OTHER] = max(0, backlog.rows - running.total() - sum(waiting.values()))
    yield _gauge("waiting_invocations", "Accepted asynchronous invocations that do not run and have not ended", waiting)
    yield _gauge("paused", "1 while the asynchronous invocations of a function are paused", paused)
    yield _gauge("oldest_age_seconds", "Seconds since the invocation at the head of a function's queue was due", ages)


def _running(engine: EngineParts, metrics: FunctionMetrics) -> Mapping[Labels, int]:
    running: Counter[Labels] = Counter()
    for invocation in engine.dispatcher.running():
        running[metrics.labels_of(invocation.function_id, invocation.source)] += 1
    return running


def _histogram(name: str, help: str, samples: Sequence[tuple[Labels, Distribution]]) -> Family:
    return Family(name=f"function_{name}", help=help, kind="histogram", labels=LABELS, samples=samples)


def _gauge(name: str, help: str, values: Mapping[tuple[str, ...], float]) -> Family:
    return Family(name=f"function_{name}", help=help, kind="gauge", labels=_FUNCTION, samples=[*values.items()])


def _counter(name: str, help: str, samples: Iterable[tuple[tuple[str, ...], float]], *more: str) -> Family:
    return Family(name=f"function_{name}", help=help, kind="counter", labels=(*LABELS, *more), samples=[*samples])
