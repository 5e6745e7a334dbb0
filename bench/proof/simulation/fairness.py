"""Fair share: seconds of slots that projects and functions got while all of them had work waiting."""

from __future__ import annotations

from bench.proof.simulation.world import World

Name = int | str  #: of a function, or of a project
LONGER = 3  #: runs of all functions of a project last so many times as long as those of the compared functions


class Served:
    """Seconds of slots that a function or project has got so far, by its weight."""

    __slots__ = ("done", "running", "starts", "weight")

    def __init__(self, weight: float) -> None:
        self.weight, self.done, self.running, self.starts = weight, 0.0, 0, 0.0

    def at(self, now: float) -> float:
        return (self.done + self.running * now - self.starts) / self.weight


class Fairness:
    """Comparison of functions of one project that wait at the same time, and of projects with such functions.

    ``worst`` is the largest difference so far, in seconds of slots.
    """

    def __init__(self, world: World, functions: tuple[int, ...], bound: float) -> None:
        self._world, self._bound = world, bound
        self._projects = {function_id: world.kinds[function_id].project for function_id in functions}
        self._served: dict[Name, Served] = {
            **{function_id: Served(world.kinds[function_id].weight) for function_id in functions},
            **{kind.project: Served(1.0) for kind in world.kinds.values()},
        }
        self._waiting: set[Name] = set()
        self._base: dict[tuple[Name, Name], float] = {}  #: difference of two when both began to wait
        self.worst = 0.0

    def reset(self) -> None:
        """Begin anew, because a process has ended or the disk has failed."""
        self._waiting.clear()
        self._base.clear()

    def stop(self) -> None:
        for served in self._served.values():
            served.running, served.starts = 0, 0.0
        self.reset()

    def waits(self, function_id: int, count: int) -> None:
        """Note the number of invocations of a function that wait."""
        if (project := self._projects.get(function_id)) is None:
            return
        self._note(function_id, waits=count > 0)
        self._note(project, waits=any(self._project(name) == project for name in self._waiting))

    def _note(self, name: Name, *, waits: bool) -> None:
        if not waits:
            self._waiting.discard(name)
            self._base = {pair: base for pair, base in self._base.items() if name not in pair}
        elif name not in self._waiting:
            for other in self._waiting:
                if self._project(name) == self._project(other):
                    self._base[name, other] = self._difference((name, other), self._world.time())
            self._waiting.add(name)

    def begins(self, function_id: int) -> str:
        """Note the start of a run. Return the violation of fairness, or an empty text."""
        now, unfair = self._world.time(), ""
        for name in self._names(function_id):
            for pair, base in self._base.items():
                if name in pair:
                    difference = abs(self._difference(pair, now) - base)
                    self.worst = max(self.worst, difference)
                    if difference > self._bound * (1 if isinstance(name, int) else LONGER):
                        unfair = f"{pair} waited side by side, but differ by {difference:.0f} s of slots"
            self._served[name].running += 1
            self._served[name].starts += now
        return unfair

    def ends(self, function_id: int, began: float) -> None:
        for name in self._names(function_id):
            served = self._served[name]
            served.running -= 1
            served.starts -= began
            served.done += self._world.time() - began

    def _project(self, name: Name) -> str | None:
        """Return the project of a function; None for a project."""
        return self._projects[name] if isinstance(name, int) else None

    def _names(self, function_id: int) -> list[Name]:
        project: Name = self._world.kinds[function_id].project
        return [project, function_id] if function_id in self._projects else [project]

    def _difference(self, pair: tuple[Name, Name], now: float) -> float:
        return self._served[pair[0]].at(now) - self._served[pair[1]].at(now)
