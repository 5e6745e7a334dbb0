"""Share of one function in the run queue: its limits, its virtual time, and the capacity that its runs take.

A project has a share, too, and its functions share what it gets.
"""

from __future__ import annotations

from itertools import count

from msgspec import Struct, field

from engine.model import Invocation
from engine.model.invocation import Kind
from engine.scheduling.function_queue import Entry

_MEAN = 0.2  #: weight of the newest run in the mean duration
_CHEAPEST = 0.0005  #: seconds; lower bound of the mean duration, so that every run has a cost


class Order(Struct, eq=False):
    """Functions of one project that can run next, in one mode."""

    heap: list[tuple[float, int]] = field(default_factory=list)  #: virtual time and function; only the top is current
    listed: set[bool] = field(default_factory=set)  #: orders that have the project: True: of those that run nothing


class ProjectShare(Struct, weakref=True, eq=False):
    """Virtual time of one project, and its runs."""

    number: int = field(default_factory=count().__next__)  #: distinguishes projects with equal virtual times
    running: int = 0
    virtual: float = 0.0  #: seconds of its runs; the project with the lowest is next
    present: float = 0.0  #: virtual time of the function that started last
    orders: tuple[Order, Order] = field(default_factory=lambda: (Order(), Order()))  #: synchronous, asynchronous


class Share(Struct, kw_only=True):
    """Limits, weight and virtual time of one function, and the slots and memory that its runs take."""

    project: ProjectShare
    weight: float = 1.0
    limit: int = -1  #: largest number of concurrent runs; -1: no limit
    #: runs that may still start, by their kind, while instances for them may have to wait for capacity
    places: dict[Kind, int] = field(default_factory=dict)
    memory: int = 0  #: MiB of an instance
    concurrent_requests: int = 1  #: runs that one instance serves at a time
    paused: bool = False  #: its asynchronous entries are only on disk
    parked: bool = False  #: no asynchronous invocation may start
    rated: bool = False  #: each start of an asynchronous invocation takes a token, see ``rates``
    spent: bool = False  #: no token is left, so that no asynchronous invocation may start
    running: int = 0
    sharing: int = 0  #: runs on instances that serve several requests
    grants: list[int] = field(default_factory=list)  #: MiB taken for each of these instances
    virtual: float = 0.0  #: virtual time; the function with the lowest is the next of its project
    seconds: float = 0.01  #: mean duration of runs

    @property
    def full(self) -> bool:
        return 0 <= self.limit <= self.running

    def has_place(self, invocation: Invocation) -> bool:
        """Return False while there is no capacity for a run."""
        return self.places.get(invocation.kind, 1) > 0

    def shares(self, invocation: Invocation) -> bool:
        """Return True if the invocation can run in an instance together with others.

        An invocation with a memory size other than the function's cannot.
        """
        return self.concurrent_requests > 1 and invocation.memory in (0, self.memory)

    def need(self, invocation: Invocation) -> int:
        """Return the MiB that the start of an invocation takes; 0 if a running instance can serve one more request."""
        if self.shares(invocation) and self.sharing < self.concurrent_requests * len(self.grants):
            return 0
        return invocation.memory or self.memory

    def begin(self, entry: Entry, memory: int) -> int:
        """Count the start of a run, and charge its expected seconds. Return the MiB that it takes, at most ``memory``.

        The MiB are stored in the entry, or in ``grants`` if the instance serves several requests.
        """
        entry.seconds = self.seconds
        self.virtual += self.seconds / self.weight
        self.running += 1
        self.project.virtual += self.seconds
        self.project.running += 1
        taken = min(self.need(entry.invocation), memory)
        entry.sharing = self.shares(entry.invocation)
        if not entry.sharing:
            entry.memory = taken
            return taken
        if self.sharing >= self.concurrent_requests * len(self.grants):
            self.grants.append(taken)
        self.sharing += 1
        return taken

    def end(self, entry: Entry, seconds: float) -> int:
        """Count the end of a run, and correct the seconds charged at its start. Return the MiB that it frees.

        Of instances that serve several requests, those are freed that the remaining runs do not need.
        """
        self.running -= 1
        self.project.virtual += seconds - entry.seconds
        self.project.running -= 1
        self.virtual += (seconds - entry.seconds) / self.weight
        self.seconds = max(_CHEAPEST, self.seconds * (1 - _MEAN) + seconds * _MEAN)
        if not entry.sharing:
            return entry.memory
        self.sharing -= 1
        freed = 0
        while self.grants and self.concurrent_requests * (len(self.grants) - 1) >= self.sharing:
            freed += self.grants.pop()
        return freed
