"""Concerns: what needs the attention of an operator, each with the page on which it is handled.

Those of the engine come from its health, its disk and its clock; those of a project from paused and failing functions,
failing triggers and destinations, and old work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec import Struct

from engine.functions.catalog import Catalog
from engine.functions.controls import FunctionControls
from engine.http.api.health import HealthChecks
from engine.http.api.routing import Call
from engine.http.api.secrets import without_credentials
from engine.http.console import words
from engine.http.console.paths import DOCS, HOME, PROJECT, name_of, path_of
from engine.http.console.visibility import sees_secrets
from engine.metrics.samples import Tally
from engine.metrics.usage import Usage
from engine.model import Function
from engine.model.clock import Clock
from engine.model.urn import LATEST
from engine.pipeline.delivery import DeliveryWorker
from engine.pipeline.failed_deliveries import DeliveryScope, FailedDeliveries
from engine.protocols import Count
from engine.resources.triggers import Triggers
from engine.scheduling.backlog import Backlog
from engine.scheduling.scheduler import Scheduler
from engine.triggers.sources import Sources
from engine.triggers.supervisor import FAILING

ACCEPT_CLOCK = f"{HOME}clock/accept"
#: Titles and pages of the documentation by component of the health.
_COMPONENTS: Mapping[str, tuple[str, str]] = {
    "journal": ("Writing to the disk", "operations#health-and-metrics"),
    "scheduler": ("Starting of work", "operations#health-and-metrics"),
    "intake": ("Acceptance of requests", "operations#overload-and-full-disks"),
    "storage": ("Stored data", "operations#damaged-data"),
    "checkpoint": ("Copying of the write-ahead log", "operations#overload-and-full-disks"),
    "plugins": ("Services of triggers", "triggers"),
    "loop": ("Event loop", "operations#health-and-metrics"),
    "status_log": ("Status log", "status-log"),
    "durability": ("Durability", "embedding#tests"),
}
NAMED = 5  #: concerns of one kind that are listed one by one
RECENT = 900.0  #: seconds in which failures count
DAY = 86_400.0  #: seconds in which discarded invocations count
OLD = 60.0  #: seconds of waiting from which work is old


class Concern(Struct, frozen=True, kw_only=True):
    title: str
    text: str  #: details, and what to do next
    link: str
    action: str  #: text of the link
    urgent: bool = False
    operation: str = ""  #: of the API, which the form at ``link`` uses; empty: ``link`` is a page


def list_of(project: str, section: str, query: str = "") -> str:
    return f"{PROJECT.format(project_id=project)}/{section}{query}"


def manual(page: str) -> str:
    return f"{DOCS}{page}"


def engine_concerns(health: HealthChecks, value: Mapping[str, float], held: Mapping[str, float]) -> Iterator[Concern]:
    """Yield what the health checks report, then what is close to a limit. ``value`` has metrics by name."""
    stopping, losses = {**health.alive(), **health.ready()}, health.degraded()
    for component, problem in stopping.items():
        yield _of_health(component, str(problem), urgent=True)
    for component, problem in losses.items():
        if component not in stopping:
            yield _of_health(component, str(problem), urgent=False)
    if clock := health.about("").get("clock"):
        yield Concern(
            title="The clock is in doubt",
            text=f"It is {clock}. Correct it, or accept it if it is right; work too old by it is then discarded.",
            link=ACCEPT_CLOCK,
            action="Accept the clock",
            urgent=True,
            operation="AcceptClock",
        )
    for reason in held:
        yield Concern(
            title="No asynchronous work starts",
            text=reason,
            link=manual("operations#overload-and-full-disks"),
            action="Read more",
        )
    free, kept = value["disk_free_bytes"], value["disk_kept_bytes"]
    if "intake" not in stopping and free < 2 * kept:
        yield Concern(
            title="The disk is nearly full",
            text=f"{words.size(free)} are free. Below {words.size(kept)}, new work is refused. Free some space.",
            link=manual("operations#overload-and-full-disks"),
            action="What happens then",
        )


def _of_health(component: str, problem: str, *, urgent: bool) -> Concern:
    title, page = _COMPONENTS.get(component, (component.capitalize(), "operations#health-and-metrics"))
    return Concern(title=title, text=words.sentence(problem), link=manual(page), action="Read more", urgent=urgent)


class ProjectConcerns(Struct, frozen=True, kw_only=True):
    """Components of the engine that tell of concerns."""

    catalog: Catalog
    controls: FunctionControls
    usage: Usage
    triggers: Triggers
    sources: Sources
    destinations: DeliveryWorker
    deliveries: FailedDeliveries
    backlog: Backlog
    scheduler: Scheduler
    clock: Clock

    async def of(self, call: Call, project: str) -> list[Concern]:
        """Return the concerns of a project, those of failures first."""
        given_up = await self.deliveries.given_up(DeliveryScope(project=project))
        return [
            *self._failing_functions(project),
            *self._failing_triggers(call, project),
            *self._failing_destinations(call, project),
            *self._expired(project),
            *_given_up(project, given_up),
            *self._paused(project),
            *self._old(project),
        ]

    def _failing_functions(self, project: str) -> Iterator[Concern]:
        now = self.clock.now()
        failing = sorted(
            (
                (function, tally)
                for function_id, tally in self.usage.totals(now - RECENT, now).items()
                if tally.errors and (function := self._function(function_id, project)) is not None
            ),
            key=lambda pair: -pair[1].errors,
        )
        for function, tally in failing[:NAMED]:
            yield Concern(
                title=f"{name_of(function)} fails",
                text=_failures(tally),
                link=path_of(function, "/monitoring"),
                action="Open its charts",
                urgent=2 * tally.errors >= tally.count,
            )
        if rest := len(failing) - NAMED:
            yield from _more(rest, "functions fail", f"{list_of(project, 'functions')}?failing=1")

    def _failing_triggers(self, call: Call, project: str) -> Iterator[Concern]:
        failing = [
            (trigger, state)
            for trigger in self.triggers.in_project(project)
            if (state := self.sources.state(trigger.id)) is not None and (state.state == FAILING or state.problem)
        ]
        for trigger, state in failing[:NAMED]:
            function = self._function(trigger.function_id, project)
            name = name_of(function) if function else trigger.function
            fails = "fails" if state.state == FAILING else "has a problem"
            wait = state.next_try - self.clock.now()
            again = f" It starts again in {words.span(wait)}." if wait > 0 else ""
            yield Concern(
                title=f"{words.kind_name(trigger.stored.kind)} trigger of {name} {fails}",
                text=f"{_shown(call, state.problem) or 'It has not started.'}{again}",
                link=list_of(project, "triggers"),
                action="Open the triggers",
                urgent=state.state == FAILING,
            )
        yield from _more(len(failing) - NAMED, "triggers have problems", list_of(project, "triggers"))

    def _failing_destinations(self, call: Call, project: str) -> Iterator[Concern]:
        failing = {
            spec: (function, status)
            for function, _, spec in self.catalog.destinations_in(project)
            if (status := self.destinations.destination_status(spec)).failures
        }
        for spec, (function, status) in list(failing.items())[:NAMED]:
            yield Concern(
                title=f"{spec.destination} destination of {name_of(function)} fails",
                text=f"{status.failures} failed tries in a row. {_shown(call, status.problem)}",
                link=list_of(project, "deliveries"),
                action="Open the deliveries",
                urgent=True,
            )
        yield from _more(len(failing) - NAMED, "destinations fail", list_of(project, "deliveries"))

    def _expired(self, project: str) -> Iterator[Concern]:
        counts = self.usage.sums("expired", self.clock.now() - DAY)
        functions = [
            function for function_id in counts if (function := self._function(function_id, project)) is not None
        ]
        for function in functions[:NAMED]:
            yield Concern(
                title=f"{name_of(function)} has discarded work",
                text=f"{words.number(counts[function.function_id])} invocations of the last day were too old to start.",
                link=path_of(function, "/invocations?status=DISCARD"),
                action="Open them",
            )
        yield from _more(len(functions) - NAMED, "functions have discarded work", list_of(project, "functions"))

    def _paused(self, project: str) -> Iterator[Concern]:
        paused = [function for function in self.controls.paused() if function.project == project]
        for function in paused[:NAMED]:
            waiting = self.backlog.of(function.function_id)[0]
            reason = self.controls.of(function.function_id).pause_reason
            because = f" Reason: {reason}" if reason else ""
            yield Concern(
                title=f"{name_of(function)} is paused",
                text=f"{words.number(waiting)} invocations wait until it is resumed.{because}",
                link=path_of(function),
                action="Open it to resume",
            )
        yield from _more(len(paused) - NAMED, "functions are paused", list_of(project, "functions"))

    def _old(self, project: str) -> Iterator[Concern]:
        """Yield the function whose first invocation has waited longest, unless it is paused or the wait is short."""
        now = self.clock.now()
        waits = (
            (now - due_at, function)
            for function_id in self.backlog.functions
            if (due_at := self.scheduler.oldest_due(function_id)) is not None
            and not self.controls.of(function_id).paused
            and (function := self._function(function_id, project)) is not None
        )
        age, function = max(waits, key=lambda wait: wait[0], default=(0.0, None))
        if function is not None and age > OLD:
            waiting = self.backlog.of(function.function_id)[0]
            yield Concern(
                title=f"{name_of(function)} starts late",
                text=f"Its oldest invocation has been due for {words.span(age)}. {words.number(waiting)} wait or run.",
                link=list_of(project, "queues"),
                action="Open the queues",
            )

    def _function(self, function_id: int, project: str) -> Function | None:
        function = self.catalog.resolve(function_id, LATEST)
        return function if function is not None and function.project == project else None


def _failures(tally: Tally) -> str:
    engine = f", {words.number(tally.system_errors)} of them by errors of the engine" if tally.system_errors else ""
    return (
        f"{words.number(tally.errors)} of {words.number(tally.count)} attempts in the last 15 minutes failed{engine}."
    )


def _given_up(project: str, count: Count | None) -> Collection[Concern]:
    if count is None or not count.rows:
        return ()
    number = f"{'More than ' if count.more else ''}{words.number(count.rows)}"
    return [
        Concern(
            title="Deliveries were given up",
            text=f"{number} outcomes did not reach their destination. Send them again, or discard them.",
            link=list_of(project, "deliveries"),
            action="Open the deliveries",
        )
    ]


def _more(count: int, what: str, link: str) -> Sequence[Concern]:
    if count <= 0:
        return ()
    return [Concern(title=f"{words.number(count)} more {what}", text="", link=link, action="Open the list")]


def _shown(call: Call, problem: str) -> str:
    text = problem if sees_secrets(call) else str(without_credentials(problem))
    return words.sentence(text[:300])
