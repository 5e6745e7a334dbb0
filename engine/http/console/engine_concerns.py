"""Concerns about the whole engine: problems of its health, held work, free disk space, and an untrusted clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from engine.http.api.health import HealthChecks
from engine.http.console import words
from engine.http.console.concerns import Concern, manual, sentence
from engine.http.console.paths import HOME

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
    return Concern(title=title, text=sentence(problem), link=manual(page), action="Read more", urgent=urgent)
