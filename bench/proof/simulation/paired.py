"""Real storage beside the simulated one: each write is also made in the tables, and both answers must be the same.

The tables change when the transaction of a write is on disk. After the end of a process, its files must have exactly
the rows of the tables.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from msgspec.structs import replace

from bench.proof.simulation.witness import Witness
from engine.model import Invocation
from engine.protocols import Page, Purged, Recovery
from engine.storage.sqlite.batch import Batch, CallRequest, WriteRequest
from engine.storage.sqlite.writer import Writer
from tests.doubles.storage import MemoryStorage
from tests.doubles.tables import MemoryTables
from tests.doubles.writes import Apply, Done, MemoryWrites

Compare = Callable[[Any, Any], bool]
#: Methods of each part that are paired. Others only read, and are those of the real storage.
PAIRED = {
    "journal": (
        "append",
        "start",
        "settle",
        "end_all",
        "release",
        "recover",
    ),
    "window": ("ready", "promote"),
    "records": ("purge",),
    "outbox": ("due", "delivered", "postpone"),
    "cursors": ("read", "append"),
    "catalog": (
        "put_functions",
        "publish",
        "delete_version",
        "delete_function",
        "put_settings",
        "delete_settings",
    ),
    "resources": ("put", "delete"),
    "store": ("get", "scan", "write", "purge"),
}


class Double:
    """Write of the simulated storage, which is made when the request of the real one is on disk."""

    __slots__ = ("apply", "done", "error", "name", "same", "value")

    def __init__(self, name: str, apply: Callable[[Any], Any], done: Callable[[Any], None], same: Compare) -> None:
        self.name, self.apply, self.done, self.same = name, apply, done, same
        self.value: Any = None
        self.error: Exception | None = None


class Capture(MemoryWrites):
    """Writes of the simulated storage, of which the next one is kept instead of made."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: tuple[Apply, Done | None] | None = None

    def submit(self, apply: Apply, done: Done) -> None:
        self.taken = apply, done

    keep = submit

    async def call(self, apply: Apply) -> Any:
        self.taken = apply, None
        return await _Answer()


class _Answer:
    def __await__(self) -> Generator[None, Any, Any]:
        return (yield)


class Pair:
    """Pair of storages of one process. ``requests`` are those of the real one that are not on disk yet."""

    def __init__(self, tables: MemoryTables, witness: Witness, simulated: MemoryStorage, capture: Capture) -> None:
        self.tables, self.witness, self.simulated, self.capture = tables, witness, simulated, capture
        self.requests: dict[int, tuple[WriteRequest, list[Double]]] = {}
        self._next: Double | None = None
        #: Writes whose result the storage may choose within limits: they are checked and then made.
        self._followed: dict[str, Callable[..., None]] = {
            "records.purge": self._purge,
        }
        self._compared: dict[str, Compare] = {
            "journal.end_all": _equal,
            "journal.recover": self._same_recovery,
            "window.ready": self._same_page,
            "window.promote": self._same_found,
            "outbox.due": _same_deliveries,
            "cursors.read": _equal,
            "cursors.append": _same_ids,
            "store.get": lambda ours, row: (None if ours is None else (ours,)) == row,
            "store.scan": _equal,
            "store.purge": _equal,
        }

    def watch(self, writer: Writer) -> None:
        submit = writer.submit

        def watched(request: WriteRequest) -> None:
            double, self._next = self._next, None
            if double is None:
                submit(request)
                return
            done = request.done
            if done is not None:
                request.done = lambda given: self._done(given, double, done)
            submit(request)
            self.requests[id(request)] = request, [double]

        writer.submit = watched  # type: ignore[method-assign]

    def _done(self, request: WriteRequest, double: Double, done: Callable[[WriteRequest], None]) -> None:
        stored = request.error is None
        done(request)
        if stored:  # a request that failed may appear on disk nevertheless
            double.done(double.value)
            self.requests.pop(id(request), None)

    def part(self, name: str, real: Any) -> Part:
        return Part(self, name, real, getattr(self.simulated, name))

    def store(self, plugin: str, real: Any) -> Part:
        return Part(self, "store", real, self.simulated.store(plugin))

    # --- calls ----------------------------------------------------------------------------------------------

    def begin(self, name: str, method: Callable[..., Any], given: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Take the write of the simulated storage for the next request of the real one."""
        follow = self._followed.get(name)
        if follow is not None:
            self._next = Double(name, lambda value: follow(value, *given, **options), lambda value: None, _always)
            return
        self.capture.taken = None
        answer = method(*given, **{key: value for key, value in options.items() if key != "then"})
        after: Callable[[Any], None] = lambda value: None  # noqa: E731
        if inspect.iscoroutine(answer):
            try:
                answer.send(None)
            except StopIteration:
                return  # nothing to write
            after = lambda value: _finish(answer, value)  # noqa: E731
        assert self.capture.taken is not None
        apply, done = self.capture.taken
        if done is not None:
            after = lambda value: done(value, None)  # noqa: E731
        same = self._compared.get(name, _always)
        if name == "journal.append":
            same = partial(_same_id, given[0].request_id)
        self._next = Double(name, lambda value: apply(), after, same)

    def end(self, earlier: WriteRequest | None) -> None:
        """Add a write that became part of an earlier request to that request."""
        double, self._next = self._next, None
        if double is not None and earlier is not None and id(earlier) in self.requests:
            self.requests[id(earlier)][1].append(double)

    def forget(self, name: str) -> None:
        if self._next is not None and self._next.name == name:
            self._next = None

    # --- on disk --------------------------------------------------------------------------------------------

    def committed(self, batch: Batch, *, crashed: bool = False) -> None:
        """Make the writes of a batch that is on disk: rows first, as the batch writes them, then calls.

        If the process has ``crashed`` in the batch, nobody gets its answers.
        """
        for calls in (False, True):
            for request in batch:
                if isinstance(request, CallRequest) is calls and id(request) in self.requests:
                    for double in self.requests[id(request)][1]:
                        self._apply(request, double, compared=not crashed)
                    if request.done is None:
                        del self.requests[id(request)]

    def _apply(self, request: WriteRequest, double: Double, *, compared: bool) -> None:
        error: Exception | None = None
        if double.name in self._followed and request.value is None:
            return  # the process has crashed before
        try:
            double.value = double.apply(request.value)
        except Exception as problem:
            error = problem
        if (error is None) != (request.error is None) or type(error) is not type(request.error):
            self.witness.violation(f"{double.name} ended with {request.error!r}, not {error!r}")
        elif compared and error is None and not double.same(double.value, request.value):
            self.witness.violation(f"{double.name} returned {request.value!r:.400}, not {double.value!r:.400}")

    def _purge(self, purged: Purged, now: float, *, age: float, rows: int, size: int, ahead: float = 0.0) -> None:
        keys = [self.simulated.identity.key_of(request_id) or 0 for request_id in purged.request_ids]
        tables = self.tables
        tables.drop_expired_keys(now)
        kept = sum(row.state.final for row in tables.rows.values()) if keys else 0
        for key in keys:
            row = tables.rows.get(key)
            if row is None or row.ended_at is None:
                self.witness.violation(f"invocation {key} was pruned before its end")
            elif tables.undelivered[key]:
                self.witness.violation(f"invocation {key} was pruned, but its outcome is not delivered")
        self.witness.purged([tables.rows[key] for key in keys if key in tables.rows], kept)
        for key in keys:
            if key in tables.rows:
                tables.drop(key)

    # --- comparison -----------------------------------------------------------------------------------------

    def _same_page(self, expected: Page, given: Page) -> bool:
        return self._same_invocations(expected.invocations, given.invocations)

    def _same_recovery(self, expected: Recovery, given: Recovery) -> bool:
        plain = (_unended(expected), expected.waiting, expected.next_due, expected.revived)
        poisoned = sorted(
            (invocation.key, invocation.crash_count, invocation.start_crashes) for invocation in given.poisoned
        )
        return plain == (_unended(given), given.waiting, given.next_due, given.revived) and poisoned == sorted(
            (invocation.key, invocation.crash_count, invocation.start_crashes) for invocation in expected.poisoned
        )

    def _same_found(self, expected: Any, given: Any) -> bool:
        return self._same_invocations(expected[0], given[0]) and bool(expected[1] == given[1])

    def _same_invocations(self, expected: tuple[Invocation, ...], given: tuple[Invocation, ...]) -> bool:
        return len(expected) == len(given) and all(map(self._is_same, expected, given))

    def _is_same(self, expected: Invocation, given: Invocation) -> bool:
        if expected.key in self.witness.world.damaged:
            return given.key == expected.key and bool(given.damage)
        return _plain(expected) == _plain(given)


class Part:
    """Part of the pair: the real part, whose paired methods also write to the tables."""

    def __init__(self, pair: Pair, name: str, real: Any, simulated: Any) -> None:
        self._real = real
        for method in PAIRED[name]:
            own, double = getattr(real, method), getattr(simulated, method)
            setattr(self, method, _paired(pair, f"{name}.{method}", own, double))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _paired(pair: Pair, name: str, real: Callable[..., Any], double: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(real):

        async def call(*given: Any, **options: Any) -> Any:
            pair.begin(name, double, given, options)
            try:
                return await real(*given, **options)
            finally:
                pair.forget(name)

        return call

    def write(*given: Any, **options: Any) -> Any:
        pair.begin(name, double, given, options)
        starts = getattr(real.__self__, "_starts", {}) if name == "journal.start" else {}  # type: ignore[attr-defined]
        try:
            return real(*given, **options)
        finally:
            pair.end(starts.get(given[0].key) if starts else None)

    return write


def _finish(coroutine: Any, value: Any) -> None:
    try:
        coroutine.send(value)
    except StopIteration:
        return


def _always(expected: Any, given: Any) -> bool:
    return True


def _equal(expected: Any, given: Any) -> bool:
    return bool(expected == given)


def _unended(recovery: Recovery) -> dict[int, tuple[int, int]]:
    return {function_id: sums for function_id, sums in recovery.backlog.items() if function_id and sums[0]}


def _same_id(new: str, expected: Invocation | str, given: Any) -> bool:
    """Compare the id of an appended request. The real storage returns that of an earlier one only."""
    return _id(expected) == (given if isinstance(given, str) else new)


def _same_ids(expected: list[Invocation | str], given: Any) -> bool:
    return list(given[0]) == [_id(item) for item in expected]


def _id(stored: Invocation | str) -> str:
    """Return the id of a stored invocation, or of an earlier one with the same idempotency key."""
    return stored.request_id if isinstance(stored, Invocation) else stored


def _same_deliveries(expected: Any, given: Any) -> bool:
    key = lambda delivery: (delivery.due_at, delivery.delivery_id)  # noqa: E731
    return sorted(map(_bare, expected[0]), key=key) == sorted(map(_bare, given[0]), key=key) and expected[1] == given[1]


def _bare(delivery: Any) -> Any:
    return replace(delivery, since=0.0)


def _plain(invocation: Invocation) -> Invocation:
    return replace(invocation, trigger_id="", held=False, delayed=False, alias="", trusted_at=0.0)
