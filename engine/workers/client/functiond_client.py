"""Client of functions in instances, with names of the client of programs. Standard library only, Python 3.9 syntax.

Calls that code queues belong to the run of a request: the engine stores those of a repeated run once.
"""

import json
import os
import time
from types import SimpleNamespace
from urllib.parse import quote
from uuid import uuid4

from functiond_api import (  # type: ignore[import-not-found]
    INSTANCE,
    Api,
    ApiError,
    BatchError,
    ClientError,
    InvocationFailed,
    Overloaded,
    ResultTimeout,
    Unreachable,
    api,
    decoded,
    error_of,
    exchange,
    later,
    running,
    wait,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, NoReturn

__all__ = ["ApiError", "BatchError", "Call", "Client", "ClientError", "Group", "GroupHandle", "Handle"]
__all__ += ["AsyncHandle", "InvocationFailed", "Overloaded", "ResultTimeout", "Unreachable", "group"]

BATCH_CALLS, BATCH_BYTES = 1_000, (6 << 20) - 1024  # limits of the engine, without what surrounds the calls
OPTIONS = ("key", "delay", "at", "expires", "priority", "ordering_key", "unique")
WAITS = (
    "{} would hold this instance while it waits for other functions, and could lock up: have a function called with "
    "the result by event(...).then(...), or with those of many by group(...).then(...)"
)


# --- calls ---


class Queueable:
    """Base of what has ``enqueue``."""

    enqueue: "Callable[..., Any]"

    async def enqueue_async(self, /, *args: object, **options: object) -> "Any":
        """Queue like ``enqueue``, without blocking the event loop."""
        handle = await later(self.enqueue, *args, **options)
        return AsyncHandle(handle.function, handle.request_id, handle._read) if type(handle) is Handle else handle


class NoWaiting:
    """Base of what has methods in programs that wait for results."""

    def __getattr__(self, name: str) -> "NoReturn":
        if name.startswith("_"):
            raise AttributeError(name)
        raise RuntimeError(WAITS.format(f"{vars(self).get('name', type(self).__name__)}.{name}"))


def queue(calls: "Iterable[Call]", context: "Any" = None, group: str = "") -> "Iterator[str | ApiError]":
    """Queue calls in few requests. Yield the request id of each, or its refusal, in their order."""
    batch: list[tuple[Any, bytes]] = []
    context, first, size = running(context), 0, 0
    encode = json.JSONEncoder(separators=(",", ":")).encode
    for call in calls:
        content = call._content()
        event = encode(content.pop("event")) if "event" in content else ""
        give_back = context._number(content, event, group)
        body = encode(content)
        item = give_back, (f'{body[:-1]},"event":{event}}}' if event else body).encode()
        size += len(item[1]) + 1
        if batch and (size > BATCH_BYTES or len(batch) == BATCH_CALLS):
            yield from send(context, batch, group, first)
            first, batch, size = first + len(batch), [], len(item[1])
        batch.append(item)
    if batch:
        yield from send(context, batch, group, first)


def send(context: "Any", batch: "list[tuple[Any, bytes]]", group: str, first: int) -> "list[str | ApiError]":
    """Send one batch until the engine has room for all. Numbers of calls that are refused are used again."""
    outcome: dict[int, str | ApiError] = {}
    left = list(range(len(batch)))
    head = {"parent": context._request_id, **({"group": {"id": group, "first": first}} if group else {})}
    try:
        while left:
            bodies = b",".join(batch[at][1] for at in left)
            reply = exchange(context, "POST", "calls", b'%b,"calls":[%b]}' % (json.dumps(head)[:-1].encode(), bodies))
            for at, result in zip(left, reply["results"]):
                outcome[at] = result.get("request_id") or error_of(result)
            left = [at for at in left if isinstance(outcome[at], Overloaded)]
            if left:
                wait(context, reply["pause"], outcome[left[0]])
    finally:
        for at, (give_back, _) in enumerate(batch):
            if not isinstance(outcome.get(at), str):
                give_back()
    return [outcome[at] for at in range(len(batch))]


class Call(Queueable):
    """Call of a function, which ``enqueue`` queues. ``then`` gives a call whose result another function gets."""

    def __init__(self, function: str, event: object, options: "dict[str, Any]", then: "tuple[Any, ...]" = ()) -> None:
        self.function, self._event, self._options, self._then = function, event, options, then

    def _content(self) -> "dict[str, Any]":
        given = {name: written(name, value) for name, value in self._options.items() if value is not None}
        if unknown := given.keys() - OPTIONS:
            raise TypeError(f"{min(unknown)} is no option of a call, which are {', '.join(OPTIONS)}")
        event = {} if self._event is None else {"event": self._event}
        return {"function": self.function, **event, **given, **({"then": self._then} if self._then else {})}

    def then(self, function: "Any", /, *args: object, **kwargs: object) -> "Call":
        """Return the call with another one after it, whose first argument is the result."""
        return Call(self.function, self._event, self._options, (*self._then, next_call(function, args, kwargs)))

    def enqueue(self) -> "Handle":
        """Queue the call. Return the handle of the last one of the chain."""
        return queue_many([self])[0]


def written(name: str, value: "Any") -> "Any":
    """Return the value of an option as the API takes it: seconds from now instead of times, except of ``at``."""
    if hasattr(value, "total_seconds"):
        return value.total_seconds()
    if hasattr(value, "tzinfo") and value.tzinfo is None:
        raise ValueError(f"{name} is {value}, without a time zone: give datetime(..., tzinfo=timezone.utc)")
    if hasattr(value, "tzinfo"):
        return value.isoformat() if name == "at" else value.timestamp() - time.time()
    return value


def next_call(function: "Any", args: "tuple[object, ...]", kwargs: "dict[str, object]") -> "dict[str, Any]":
    if not isinstance(function, str):
        queue: Function = function.options()
        return Call(queue.name, queue._function.event_of(args, kwargs, after=True), queue._options)._content()
    if args or kwargs:
        raise TypeError(f"arguments of {function} need the function of the app instead of its name")
    return {"function": function}


def queue_many(calls: "Iterable[Call]", context: "Any" = None) -> "list[Handle]":
    """Queue calls. Raises the refusal of the only call, or BatchError."""
    calls = list(calls)
    outcomes = list(queue(calls, context))
    errors = {at: one for at, one in enumerate(outcomes) if isinstance(one, ApiError)}
    names = [call._then[-1]["function"] if call._then else call.function for call in calls]
    handles = [None if at in errors else Handle(name, str(outcomes[at])) for at, name in enumerate(names)]
    if errors:
        raise errors[0] if len(calls) == 1 else BatchError(handles, errors)
    return [handle for handle in handles if handle is not None]


class Handle(NoWaiting):
    """Call that was queued. Functions cannot wait for its result."""

    def __init__(self, function: str, request_id: str, read: "Callable[[Any], Any]" = lambda value: value) -> None:
        self.function, self.request_id, self._read = function, request_id, read

    def _record(self) -> "Any":
        path = f"functions/{quote(self.function, ':!')}/async-invocations/{quote(self.request_id, '')}"
        return exchange(running(), "GET", path)

    def status(self) -> str:
        """Return WAIT, RUNNING, SUCCESS, FAIL or DISCARD."""
        return str(self._record()["status"])

    def result(self, timeout: "float | None" = None) -> "Any":
        """Return what the call has returned. ``timeout`` must be 0: raises ResultTimeout if the call has not ended."""
        if timeout != 0:
            self.__getattr__("result, except with timeout=0,")
        record = self._record()
        if record["status"] in ("WAIT", "RUNNING"):
            raise ResultTimeout(f"invocation {self.request_id} is {record['status']}: ask again later")
        if record["status"] != "SUCCESS":
            raise InvocationFailed(record["error_message"])
        return self._read(decoded(record["result"]))


class AsyncHandle(Handle):
    """Call that was queued, whose methods are awaited."""

    async def status(self) -> str:  # type: ignore[override]
        return str(await later(Handle.status, self))

    async def result(self, timeout: "float | None" = None) -> "Any":
        return await later(Handle.result, self, timeout)


class Function(Queueable, NoWaiting):
    """Methods of a function of an app that queue calls of it, with options."""

    def __init__(self, function: "Any", options: "dict[str, Any] | None" = None) -> None:
        self.name, self._function, self._options = function.name, function, options or {}

    def __call__(self, /, *args: object, **kwargs: object) -> object:
        return self._function(*args, **kwargs)

    def handle(self, request_id: str) -> Handle:
        """Return the handle of a call that was queued before."""
        return Handle(self.name, request_id, lambda value: self._function.returned(value))  # older apps have none

    async def handle_async(self, request_id: str) -> AsyncHandle:
        return AsyncHandle(self.name, request_id, self._function.returned)

    def options(self, **options: object) -> "Function":
        """Return the function with options for its calls: ``key``, ``delay``, ``at``, ``expires``, and so on."""
        return Function(self._function, {**self._options, **options})

    def event(self, /, *args: object, **kwargs: object) -> Call:
        """Return a call, for ``enqueue_many``, chains and groups."""
        return Call(self.name, self._function.event_of(args, kwargs), self._options)

    def enqueue(self, /, *args: object, **kwargs: object) -> Handle:
        """Queue a call. It is on the engine's disk when this method returns."""
        return self.handle(self.event(*args, **kwargs).enqueue().request_id)

    def enqueue_many(self, events: "Iterable[Call]") -> "list[Handle]":
        """Queue calls in few requests. ``events`` are results of ``event``. Raises BatchError if some are refused."""
        calls = list(events)
        for call in calls:
            if not isinstance(call, Call) or call.function != self.name:
                raise TypeError(f"enqueue_many takes results of {self.name}.event(...), not {call!r:.80}")
        return queue_many(calls)

    async def enqueue_many_async(self, events: "Iterable[Call]") -> "Any":
        return await later(self.enqueue_many, events)


# --- groups ---


def group(calls: "Iterable[Call]", *, require: str = "all", key: "str | None" = None) -> "GroupCall":
    """Return calls that ``enqueue`` queues together, and with ``then`` a call when all have ended."""
    return GroupCall(calls, {"require": require, **({} if key is None else {"key": key})})


class GroupCall(Queueable):
    def __init__(self, calls: "Iterable[Call]", options: "dict[str, Any]") -> None:
        self._calls, self._options = calls, options

    def then(self, function: "Any", /, *args: object, **kwargs: object) -> "GroupCall":
        """Return the group with a call after it, whose first argument is a ``Group``, or the result before."""
        then = [*self._options.get("then", ()), next_call(function, args, kwargs)]
        return GroupCall(self._calls, {**self._options, "then": then})

    def enqueue(self) -> "GroupHandle":
        """Queue the calls. A run that does so again completes the group."""
        context, total = running(), 0
        content = {**self._options, "parent": context._request_id}
        give_back = context._number(content)
        try:
            made = exchange(context, "POST", "groups", content)
            for outcome in queue(self._calls, context, made["group_id"]):
                if isinstance(outcome, ApiError):
                    raise outcome
                total += 1
            exchange(context, "POST", f"groups/{made['group_id']}/seal", {"total": total})
        except BaseException:
            give_back()
            raise
        return GroupHandle(made["group_id"], made["request_id"])


class GroupHandle(NoWaiting):
    """Group that was queued. ``request_id`` is that of the last call after it; empty if there is none."""

    def __init__(self, id: str, request_id: str = "") -> None:
        self.id, self.request_id = id, request_id

    def progress(self) -> SimpleNamespace:
        """Return all that the engine tells about the group now."""
        return SimpleNamespace(**exchange(running(), "GET", f"groups/{self.id}"))

    def status(self) -> str:
        return str(self.progress().state)

    def members(self) -> "Iterator[Any]":
        """Yield the members as ``Group`` does."""
        return members(self.id)

    def cancel(self) -> None:
        """Cancel all members that have not ended, and the call after them."""
        exchange(running(), "POST", f"groups/{self.id}/cancel")


class Group:
    """Group of calls that have ended: argument of the call after them. ``counts`` has total, done and failed."""

    def __init__(self, event: "Any") -> None:
        given = event.get("group", event)
        self.id, self.counts = given["id"], {name: given[name] for name in ("total", "done", "failed")}

    def members(self) -> "Iterator[Any]":
        """Yield the members in their order, page by page: each with ``state``, ``result`` and ``error``."""
        return members(self.id)


def members(group: str) -> "Iterator[Any]":
    after: Any = ""
    while after is not None:
        page = exchange(running(), "GET", f"groups/{group}/members?after={after}")
        for one in page["members"]:
            result = decoded(one.get("result") or "") if one["status"] == "SUCCESS" else None
            error = one["error_message"] or ""
            yield SimpleNamespace(**{**one, "state": one["status"], "result": result, "error": error})
        after = page["next_after"]


# --- functions by their names ---


class Client(Queueable):
    """Client of the engine that runs this function, for others of its project; with parameters, of another engine."""

    def __init__(self, url: str = "", *, token: str = "", project: str = "", timeout: float = 100.0) -> None:
        get, own = os.environ.get, (INSTANCE and INSTANCE.setup.get("access")) or {}
        given = url or get("FUNCTIOND_URL", ""), token or get("FUNCTIOND_TOKEN", "")
        is_own = INSTANCE is not None and not project and given == (own.get("url", ""), own.get("token", ""))
        self._api = None if is_own else Api(*given, project or get("FUNCTIOND_PROJECT", "default"))
        self._timeout = timeout

    def call(self, function: str, event: object = None) -> "Any":
        """Run a function and return its result. Raises InvocationFailed if it fails."""
        return decoded(self._post(function, "invocations", event, {}, self._timeout))

    def enqueue(self, function: str, event: object = None, **options: object) -> Handle:
        """Queue a call of a function, with ``key``, ``delay``, ``priority``, ``ordering_key`` and other options."""
        if self._api is None:
            return Call(function, event, options).enqueue()
        headers = {"Idempotency-Key": str(options.pop("key", None) or uuid4())}
        given = ((name.replace("_", "-"), value) for name, value in options.items() if value is not None)
        headers.update({f"X-Functiond-{name}": str(value) for name, value in given})
        return Handle(function, json.loads(self._post(function, "invocations-async", event, headers))["request_id"])

    def enqueue_many(self, function: str, events: "Iterable[object]") -> "list[Handle]":
        """Queue a call of a function for each event, in few requests. Raises BatchError if some are refused."""
        if self._api is None:
            return queue_many(Call(function, event, {}) for event in events)
        return [self.enqueue(function, event) for event in events]

    def _post(self, function: str, path: str, event: object, headers: "dict[str, str]", timeout: float = 0) -> str:
        body, path = b"" if event is None else json.dumps(event).encode(), f"functions/{quote(function, ':!')}/{path}"
        status, fields, data = (self._api or api()).send("POST", path, body, headers, timeout)
        if fields.get("x-is-func-err") == "true":
            raise InvocationFailed(data.decode())
        if status >= 400:
            raise error_of(decoded(data), status)
        return str(data, "utf-8")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None: ...
