"""Health of the engine, computed from the statistics of its components when a client asks for it.

Nothing of it is stored: an engine that takes over the work of another one begins without problems.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from engine.app.parts import EngineParts
from engine.storage import NEXT
from engine.triggers.supervisor import FAILING

SLOW_DISK = "look for a slow or failing disk"
RESTART = "restart the engine, and report this with its log"
HOLD_SHOWN = 600.0  #: seconds for which a hold of the event loop is shown after its end

NAMED = 10  #: paused functions that readiness names


class EngineHealth:
    def __init__(self, engine: EngineParts) -> None:
        self._engine = engine

    def stalls(self) -> Mapping[str, Any]:
        """Return the work that stands still and goes on after a restart, by component."""
        stalled = dict[str, Any]()
        seconds, stall = self._engine.storage.statistics().in_flight_seconds, self._engine.settings.health.stall
        if seconds >= stall:
            stalled["journal"] = _slow_commit(seconds)
        work = self._engine.scheduler.possible_work()
        seconds = self._engine.progress.stalled("scheduler", work)
        if work is not None and seconds >= stall:
            stalled["scheduler"] = f"{work[0]}, for {seconds:.0f} s; {RESTART}"
        return stalled

    def problems(self) -> Mapping[str, Any]:
        """Return what stops the engine's work, such as failed writes, by component; empty if nothing does."""
        failing = dict(self.stalls())
        if failure := self._engine.storage.statistics().failure:
            failing["journal"] = f"cannot write: {failure}"
        return failing

    def losses(self) -> Mapping[str, Any]:
        """Return what the engine works without, and the next step, by component; empty if it lacks nothing."""
        storage, lost = self._engine.storage.statistics(), dict[str, Any]()
        if not storage.durable:
            lost["durability"] = "fast mode for tests: nothing is synced to disk, and all data ends with the engine"
        if storage.damage:
            lost["storage"] = storage.damage
        if storage.lost_secrets:
            what = f"of {storage.lost_secrets} functions and triggers cannot be decrypted"
            lost["secrets"] = f"{what}; the log of the start names them; {NEXT}"
        if storage.checkpoint_failure:
            lost["checkpoint"] = (
                f"the write-ahead log has {storage.log_size >> 20} MiB and grows, because it cannot be copied to the "
                f"database: {storage.checkpoint_failure}; free some space or look for disk errors"
            )
        if self._commit_is_slow():
            lost["journal"] = _slow_commit(storage.in_flight_seconds)
        services = self._engine.sources.statistics().services
        if failing := sorted(table for table, health in services.items() if health.state == FAILING):
            lost["plugins"] = f"the services of {', '.join(failing)} fail and are tried again; the log has the cause"
        seconds, ended = self._engine.lag.hold
        ago = time.monotonic() - ended
        if seconds >= self._engine.settings.health.stall and ago < HOLD_SHOWN:
            lost["loop"] = (
                f"code held the event loop for {seconds:.0f} s until {ago:.0f} s ago; the log has it as `event loop "
                "stalled`"
            )
        states = self._engine.status_log.state()
        if states.problem or states.dropped:
            problem, dropped = states.problem or "no problem now", f"{states.dropped} were not logged since the start"
            text = f"{states.waiting} states of invocations wait for their log stream ({problem}), and {dropped}"
            lost["status_log"] = f"{text}; make room on the disk or in plugins.lts.size"
        return lost

    def reasons_not_ready(self) -> Mapping[str, Any]:
        """Return the problems, and why the intake rejects or delays requests, by component; empty if it is ready."""
        reasons = dict(self.problems())
        if not reasons and self._commit_is_slow():
            reasons["journal"] = _slow_commit(self._engine.storage.statistics().in_flight_seconds)
        if damage := self._engine.storage.statistics().refusal:
            reasons["storage"] = f"accepts nothing: {damage}"
        refusal = self._engine.intake.refusal()
        if refusal is not None:
            reasons["intake"] = str(refusal)
        return reasons

    def about(self, project: str | None) -> Mapping[str, Any]:
        """Return what readiness tells besides: isolation, paused functions, holds, nodes, the clock."""
        clock = self._engine.clock_guard.state()
        details: dict[str, Any] = {**self._engine.pool.walls, "function_api": self._engine.function_api}
        if paused := [function for function in self._engine.controls.paused() if project in (None, function.project)]:
            names = ", ".join(function.name for function in paused[:NAMED])
            details["paused"] = f"{len(paused)} functions start nothing until they are resumed: {names}"
        if held := self._engine.scheduler.held:
            details["held"] = f"no asynchronous work starts: {'; '.join(sorted(held))}"
        if (nodes := self._engine.pool.nodes) is not None:
            details["nodes"] = nodes.report().summary
        if clock.held:
            ahead = f"{clock.ahead / 86_400:.0f} days ahead of the last trusted time"
            details["clock"] = f"not trusted: {ahead}; nothing expires"
        return details

    def _commit_is_slow(self) -> bool:
        return self._engine.storage.statistics().in_flight_seconds > self._engine.settings.storage.commit_warning


def _slow_commit(seconds: float) -> str:
    return f"a commit has taken {seconds:.1f} s so far; {SLOW_DISK}"
