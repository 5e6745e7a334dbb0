"""Fair share: seconds of slots that functions got while all of them had work waiting."""

from __future__ import annotations

from bench.proof.simulation.world import World


class Served:
    """Seconds of slots that one function has got so far, by its weight."""

    __slots__ = ("done", "running", "starts", "weight")

    def __init__(self, weight: float) -> None:
        self.weight, self.done, self.running, self.starts = weight, 0.0, 0, 0.0

    def at(self, now: float) -> float:
        return (self.done + self.running * now - self.starts) / self.weight


class Fairness:
    """Comparison of functions that wait at the same time.

    ``worst`` is the largest difference so far, in seconds of slots.
    """

    def __init__(self, world: World, functions: tuple[int, ...], bound: float) -> None:
        self._world, self._bound = world, bound
        self._served = {function_id: Served(world.kinds[function_id].weight) for function_id in functions}
        self._waiting: dict[int, int] = {}
        self._base: dict[tuple[int, int], float] = {}  #: difference of two functions when both began to wait
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
        if function_id not in self._served:
            return
        if not count:
            self._waiting.pop(function_id, None)
            self._base = {pair: base for pair, base in self._base.items() if function_id not in pair}
        elif function_id not in self._waiting:
            now = self._world.time()
            for other in self._waiting:
                pair = (min(function_id, other), max(function_id, other))
                self._base[pair] = self._difference(pair, now)
        if count:
            self._waiting[function_id] = count

    def begins(self, function_id: int) -> str:
        """Note the start of a run. Return the violation of fairness, or an empty text."""
        if function_id not in self._served:
            return ""
        now, unfair = self._world.time(), ""
        for pair, base in self._base.items():
            if function_id in pair:
                difference = abs(self._difference(pair, now) - base)
                self.worst = max(self.worst, difference)
                if difference > self._bound:
                    unfair = f"functions {pair} waited side by side, but differ by {difference:.0f} s of slots"
        served = self._served[function_id]
        served.running += 1
        served.starts += now
        return unfair

    def ends(self, function_id: int, began: float) -> None:
        served = self._served.get(function_id)
        if served is not None:
            served.running -= 1
            served.starts -= began
            served.done += self._world.time() - began

    def _difference(self, pair: tuple[int, int], now: float) -> float:
        return self._served[pair[0]].at(now) - self._served[pair[1]].at(now)
