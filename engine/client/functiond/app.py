"""Functions from code: plain functions that are deployed to an engine, and called here or there."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import KW_ONLY, dataclass
from threading import Lock
from typing import Any, Generic, Literal, Never, ParamSpec, TypeAlias, TypeVar, Unpack, overload
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from functiond.calls import Call, Signature, Target
from functiond.client import AsyncClient, Client
from functiond.errors import BadArgument, BadConfiguration
from functiond.events import Event, Options
from functiond.handles import AsyncHandle, Handle
from functiond.instance import set_timer

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")
S = TypeVar("S")
E = TypeVar("E", bound=BaseException)
H = TypeVar("H", bound=Callable[..., Any])
Mode: TypeAlias = Literal["sync", "async"]
Auth: TypeAlias = Literal["NONE", "IAM", "APP"]


def get_context() -> Any:
    """Return the context object of the running invocation; None outside instances of the engine."""
    return None


@dataclass(frozen=True)
class Retry:
    """Retries after errors of a class. Delays that are None are those of the engine's settings."""

    retries: int
    _: KW_ONLY
    base: float | None = None  #: seconds before the first
    factor: float | None = None  #: of each delay to the one before
    longest: float | None = None
    jitter: float | None = None  #: random share of a delay


class HttpPath(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Path of a gateway, with an APIG trigger for each method."""

    path: str
    methods: tuple[str, ...] = ("ANY",)
    mode: Mode = "sync"
    auth: Auth = "NONE"


class Deployment(Struct, frozen=True, kw_only=True):
    """Function of an app, and the configuration with which it is deployed.

    None: unchanged, or the engine's default for a new function.
    """

    name: str
    attribute: str  #: name of the Python function
    timeout: int | None = None
    memory: int | None = None
    retries: int | None = None
    max_age: int | None = None
    per_key: int | None = None  #: of its field ``functiond``
    on_success: str | None = None
    on_failure: str | None = None
    schedule: str | None = None  #: of its TIMER trigger
    zone: str | None = None
    rate: float | None = None  #: of its controls
    environment: dict[str, str] | None = None
    secrets: list[str] | None = None  #: names of variables of the deploying process
    soft_timeout: float | None = None
    runtime: str | None = None
    instances: int | None = None
    folders: list[str] | None = None
    retry_rules: list[dict[str, Any]] | None = None  #: as the engine has them
    web: str | None = None  #: interface of a web application: ``asgi`` or ``wsgi``
    concurrency: int | None = None  #: requests of one instance at a time
    http: list[HttpPath] = []


class Function(Target[P, R], Generic[P, R, C]):
    """Function of an app. A call runs it here, and returns a C; ``enqueue`` and ``call`` run it on the engine.

    Arguments must have the types of their annotations. The result has the type of the return annotation.
    """

    def __init__(self, app: App, call: Callable[P, C], deployment: Deployment) -> None:
        functools.update_wrapper(self, call)
        self.deployment, self._call = deployment, call
        super().__init__(deployment.name, app, Signature(deployment.name, call), Event())
        if deployment.schedule is not None and self._signature.required > 1:
            raise BadConfiguration(f"{self.name} has a schedule, so it may need one argument only: the timer's event")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        return self._call(*args, **kwargs)

    def options(self, **options: Unpack[Options]) -> Function[P, R, C]:
        """Return the function with options for its queued invocations, which are those of ``Event``.

        Options that it has stay, unless they are given.
        """
        other = copy(self)
        given = {name: value for name, value in options.items() if value is not None}
        other._options = replace(self._options, **given)
        return other

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Queue a call. It is on the engine's disk when this method returns. Raises BadArgument."""
        return self.event(*args, **kwargs).enqueue()

    async def enqueue_async(self, *args: P.args, **kwargs: P.kwargs) -> AsyncHandle[R]:
        """Queue a call like ``enqueue``, on the running event loop."""
        return await self.event(*args, **kwargs).enqueue_async()

    def enqueue_many(self, events: Iterable[Call[S]]) -> list[Handle[S]]:
        """Queue calls in few requests. ``events`` are results of ``event``. Raises BatchError if some are refused."""
        return self._app.client.enqueue_many(self.name, self._calls(events))

    async def enqueue_many_async(self, events: Iterable[Call[S]]) -> list[AsyncHandle[S]]:
        """Queue calls like ``enqueue_many``, on the running event loop."""
        return await self._app.async_client.enqueue_many(self.name, self._calls(events))

    def _calls(self, events: Iterable[Call[S]]) -> Iterable[Call[S]]:
        for event in events:
            if not isinstance(event, Call):
                raise BadArgument(f"enqueue_many takes results of {self.name}.event(...), not {event!r:.80}")
            yield event

    def call(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function on the engine and return its result."""
        event = self._signature.event(args, kwargs)
        result: R = self._app.client.call(self.name, event, returns=self._signature.returns)
        return result

    async def call_async(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function on the engine like ``call``, on the running event loop."""
        event = self._signature.event(args, kwargs)
        result: R = await self._app.async_client.call(self.name, event, returns=self._signature.returns)
        return result

    def handle(self, request_id: str) -> Handle[R]:
        """Return the handle of a call that was queued before."""
        return self._app.client.handle(self.name, request_id, returns=self._signature.returns)

    async def handle_async(self, request_id: str) -> AsyncHandle[R]:
        """Return the handle of a call that was queued before, for the running event loop."""
        return self._app.async_client.handle(self.name, request_id, returns=self._signature.returns)


class Decorator:
    """Decorator that adds a function to an app, or a path to a function that the app has."""

    def __init__(self, app: App, options: dict[str, Any]) -> None:
        self._app, self._options = app, options

    @overload
    def __call__(self, call: Function[P, R, C]) -> Function[P, R, C]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, call: Callable[P, Coroutine[Any, Any, R]]) -> Function[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, call: Callable[P, Awaitable[R]]) -> Function[P, R, Awaitable[R]]: ...
    @overload
    def __call__(self, call: Callable[P, R]) -> Function[P, R, R]: ...
    def __call__(self, call: Callable[..., Any]) -> Function[..., Any, Any]:
        attribute = call.__name__
        name = (self._options["name"] or attribute).removeprefix("default:")
        options = {**self._options, "attribute": attribute, "name": name}
        known = call if isinstance(call, Function) and "http" in self._options else None
        if known is not None:
            options = {**asdict(known.deployment), "http": [*self._options["http"], *known.deployment.http]}
        try:
            deployment = msgspec.convert(options, Deployment)
        except msgspec.ValidationError as error:
            raise BadConfiguration(f"function {attribute}: {error}") from None
        if known is not None:
            known.deployment = deployment
            return known
        function = Function[..., Any, Any](self._app, call, deployment)
        for other in self._app.functions.values():
            if deployment.name == other.name or attribute == other.deployment.attribute:
                hint = (
                    "write @app.http above @app.function" if call is other else "give one another name, in Python too"
                )
                raise BadConfiguration(f"the app has two functions {attribute}: {hint}")
        self._app.functions[attribute] = function
        return function


class App:
    """Functions of a program that are deployed together, with ``functiond deploy module:app``.

    Without ``client``, the environment names the engine, as for ``Client()``. With a client of either kind, functions
    have the other methods as well: their connections are opened when they are first used. Functions belong to the app
    ``name``, which is by default that of the project in the nearest ``pyproject.toml``, else that of the module.
    """

    def __init__(self, client: Client | AsyncClient | None = None, *, name: str | None = None) -> None:
        self.name = name
        self._given, self._lock = client, Lock()
        self._client = client if isinstance(client, Client) else None
        self.has_startup = False  #: has startup hooks
        self._engine_loop: asyncio.AbstractEventLoop | None = None
        self._async_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncClient] = WeakKeyDictionary()
        self.functions: dict[str, Function[..., Any, Any]] = {}  #: by the name of the Python function

    def connect(self, client: Client | AsyncClient, *, engine_loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Use the engine of another client from now on. ``engine_loop`` is the event loop that runs the engine, if any.

        On that loop, synchronous methods raise RuntimeError: the engine could not answer while they wait.
        """
        with self._lock:
            self._engine_loop = engine_loop
            self._given, self._client = client, client if isinstance(client, Client) else None
            self._async_clients.clear()

    def function(
        self,
        *misplaced: Never,
        name: str | None = None,
        timeout: int | None = None,
        memory: int | None = None,
        retries: int | None = None,
        max_age: int | None = None,
        per_key: int | None = None,
        on_success: str | Function[..., Any, Any] | None = None,
        on_failure: str | Function[..., Any, Any] | None = None,
        schedule: str | None = None,
        zone: str | None = None,
        rate: float | None = None,
        environment: Mapping[str, str] | None = None,
        secrets: Sequence[str] | None = None,
        soft_timeout: float | None = None,
        runtime: str | None = None,
        instances: int | None = None,
        folders: Sequence[str] | None = None,
        retry_rules: Mapping[type[E], Retry | None] | None = None,
    ) -> Decorator:
        """Return a decorator that makes a plain function, async or not, a function of the app.

        ``name`` is its name on the engine, by default that of the Python function. ``timeout`` is in seconds,
        ``memory`` in MB. ``retries`` and ``max_age`` (seconds, by default the longest) are of queued calls, and
        ``per_key`` of those with one ordering key: so many of them run at a time, by default 1. ``on_success`` and
        ``on_failure`` are functions that receive their outcomes. ``schedule`` is a crontab expression in the time zone
        ``zone``, by default UTC, or a rate such as ``15m``.

        ``rate`` limits the queued calls that start in a second, ``instances`` the processes that run the function.
        After ``soft_timeout`` seconds, the context warns the function. ``runtime`` is such as ``Python3.12``.
        ``environment`` are variables with their values, ``secrets`` names of variables that the deploying process has.
        ``folders`` are names of the engine's folders. ``retry_rules`` decide by the class of an error in place of
        ``retries``: None means no retry.
        """
        if misplaced:
            raise BadConfiguration("write @app.function() with parentheses, and its options by name")
        if schedule is None and zone is not None:
            raise BadConfiguration(f"zone is {zone!r}, but there is no schedule")
        options: dict[str, Any] = {"timeout": timeout, "memory": memory, "retries": retries, "max_age": max_age}
        options |= {"name": name, "runtime": runtime, "instances": instances, "schedule": schedule, "zone": zone}
        options |= {"per_key": per_key, "rate": rate, "soft_timeout": soft_timeout, "folders": folders}
        options |= {"environment": environment, "secrets": secrets}
        for field, target in (("on_success", on_success), ("on_failure", on_failure)):
            options[field] = target.name if isinstance(target, Function) else target
        options["retry_rules"] = None if retry_rules is None else _rules(retry_rules)
        return Decorator(self, options)

    def http(
        self, path: str, *, methods: Sequence[str] = ("ANY",), mode: Mode = "sync", auth: Auth = "NONE"
    ) -> Decorator:
        """Return a decorator that publishes a function under a path of the gateway. It may be repeated.

        Write it above ``@app.function()``, or alone. Parameters of the path and query, and members of a JSON object or
        a form in the body, become arguments. In ``mode`` async, clients do not wait for the result.
        """
        http = {"path": path, "methods": methods, "mode": mode, "auth": auth}
        return Decorator(self, {"name": None, "http": [http]})

    def before(self, hook: H) -> H:
        """Call ``hook(context)`` before each handler. Hooks are called in instances only."""
        return hook

    def after(self, hook: H) -> H:
        """Call ``hook(context, error)`` after each handler, the last hook first. The error may be None."""
        return hook

    def startup(self, hook: H) -> H:
        """Call ``hook()`` once in each instance, before its first handler."""
        self.has_startup = True
        return hook

    def schedule(self, name: str, *, crontab: str, event: Call[Any], zone: str | None = None) -> None:
        """Create or change a timer of the app, which queues ``event``, a result of ``event(...)``."""
        set_timer(self._send, self.functions, name, msgspec.json.decode(event.item()), crontab, zone or "")

    def unschedule(self, name: str) -> None:
        """Delete a timer of the app, if there is one of the name."""
        set_timer(self._send, self.functions, name, {})

    def _send(self, method: str, path: str, content: Mapping[str, object] | None = None) -> Any:
        return self.client._transport.run(self.client._operations.exchange(method, path, content or b""))

    @property
    def client(self) -> Client:
        """Client of synchronous methods."""
        if self._engine_loop is not None and _is_running(self._engine_loop):
            raise RuntimeError(
                "this call would block the event loop that runs the engine: await the method with _async"
            )
        with self._lock:
            if self._client is None:
                self._client = Client(**self._parameters())
            return self._client

    @property
    def async_client(self) -> AsyncClient:
        """Client of asynchronous methods on the running event loop."""
        if isinstance(self._given, AsyncClient):
            return self._given
        loop = asyncio.get_running_loop()
        for ended in [client for client in self._async_clients if client.is_closed()]:
            del self._async_clients[ended]  # its connections refer to the loop, which would never be freed
        if loop not in self._async_clients:
            self._async_clients[loop] = AsyncClient(**self._parameters())
        return self._async_clients[loop]

    def _parameters(self) -> dict[str, Any]:
        return {} if self._given is None else asdict(self._given.configuration)


def _rules(given: Mapping[type[E], Retry | None]) -> list[dict[str, Any]]:
    """Return rules as the engine has them, of derived classes before those of their bases: the first match decides."""
    for kind, retry in given.items():
        if not (isinstance(kind, type) and issubclass(kind, BaseException) and isinstance(retry, Retry | None)):
            raise BadConfiguration(f"retry_rules has {kind!r}: {retry!r}: give an exception class and a Retry, or None")
    rules = []
    for kind in sorted(given, key=lambda kind: -len(kind.__mro__)):
        delays = {name: value for name, value in vars(given[kind] or Retry(0)).items() if value is not None}
        name = "" if kind in (Exception, BaseException) else kind.__name__  # empty: all errors
        rules.append({"max_retries": delays.pop("retries"), "error_type": name, **delays})
    return rules


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the current thread runs this event loop now."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
