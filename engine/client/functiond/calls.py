"""Calls of the functions of an app, chains of calls, and groups, before they are queued."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from functools import cached_property
from itertools import chain as joined
from itertools import islice
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, get_type_hints, overload

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from functiond.client import AsyncClient, Client
from functiond.errors import BadArgument
from functiond.events import Chain, Event, Link, decode, encode
from functiond.handles import AsyncGroupHandle, AsyncHandle, GroupHandle, Handle

MOST_MEMBERS = 100_000  #: of a group; limit of the engine
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_RESULT = object()  #: argument that is not known yet
P = ParamSpec("P")
R = TypeVar("R", covariant=True)
M = TypeVar("M", covariant=True)
S = TypeVar("S")


class Clients(Protocol):
    """Clients of the functions of an app."""

    @property
    def client(self) -> Client: ...
    @property
    def async_client(self) -> AsyncClient: ...


class Signature:
    """Parameters and result of ``call``. Annotations are read at the first use, when all names are defined."""

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self._name, self._call = name, call
        self._signature = inspect.signature(call)

    @cached_property
    def _hints(self) -> Mapping[str, Any]:
        try:
            return get_type_hints(self._call, include_extras=True)
        except (NameError, TypeError, SyntaxError) as error:
            raise BadArgument(f"{self._name}: its annotations cannot be read: {error}") from None

    @property
    def returns(self) -> Any:
        """Type of the result; Any if the function has no annotation for it."""
        return self._hints.get("return", Any)

    def event(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the event of a call.

        Raises BadArgument if arguments are missing, unknown, or do not have the types of their annotations.
        """
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadArgument(f"{self._name}: {error}") from None
        for name, value in bound.arguments.items():
            kind = self._signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                checked: Any = {key: self._checked(key, name, argument) for key, argument in value.items()}
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                checked = tuple(self._checked(name, name, argument) for argument in value)
            else:
                checked = self._checked(name, name, value)
            bound.arguments[name] = checked
        return {"args": bound.args, "kwargs": bound.kwargs}

    def _checked(self, shown: str, parameter: str, value: object) -> msgspec.Raw:
        """Return an argument as JSON, after it has been read as a value of the annotation."""
        if value is _RESULT:
            return msgspec.Raw(b"null")
        try:
            text = encode(value)
            decode(text, self._hints.get(parameter, Any))
        except (msgspec.MsgspecError, TypeError, ValueError, NotImplementedError, RecursionError) as error:
            short = repr(value)
            short = short if len(short) <= 80 else f"{short[:77]}..."
            raise BadArgument(f"{self._name}: argument `{shown}` is {short}: {error}") from None
        return msgspec.Raw(text)

    @property
    def required(self) -> int:
        """Number of parameters without a default."""
        parameters = self._signature.parameters.values()
        return sum(parameter.default is parameter.empty and parameter.kind not in _VARIADIC for parameter in parameters)


class Target(Generic[P, R]):
    """Function of an app that can be queued, with options for this."""

    def __init__(self, name: str, app: Clients, signature: Signature, options: Event) -> None:
        self.name, self._app, self._signature, self._options = name, app, signature, options

    def event(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Return a call, which is not queued yet. Raises BadArgument."""
        event = replace(self._options, event=self._signature.event(args, kwargs))
        return Call((Link(self.name, event, self._signature.returns),), self._app)


def _following(function: object, app: Clients | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Link:
    """Return a call that gets a result, or a group, before its arguments. Raises BadArgument."""
    if isinstance(function, str) and not args and not kwargs:
        return Link(function, Event())
    if not isinstance(function, Target):
        raise BadArgument(f"then({function!r:.80}): give a function of the app with its arguments, or a name alone")
    if app not in (None, function._app):
        raise BadArgument(f"{function.name} is of another app than the call that it follows: give its name")
    for name in ("key", "at", "ordering_key", "unique"):
        if getattr(function._options, name) is not None:
            raise BadArgument(f"{function.name} follows a call, so it may not have {name}")
    event = function._signature.event((_RESULT, *args), kwargs)
    event["args"] = event["args"][1:]
    return Link(function.name, replace(function._options, event=event), function._signature.returns)


class Call(Chain, Generic[R], frozen=True):
    """Call of a function of an app, with the calls that follow it. The last one returns an R."""

    app: Clients

    @overload
    def then(self, function: str) -> Call[Any]: ...
    @overload
    def then(self, function: Target[Concatenate[Any, P], S], *args: P.args, **kwargs: P.kwargs) -> Call[S]: ...
    def then(self, function: Any, *args: Any, **kwargs: Any) -> Call[Any]:
        """Return the call with another one that follows it, and gets its result before ``args``.

        A function that is named gets the result as its event. Raises BadArgument.
        """
        if self.links[0].event.unique:
            raise BadArgument("unique and then exclude each other")
        return Call((*self.links, _following(function, self.app, args, kwargs)), self.app)

    def enqueue(self) -> Handle[R]:
        """Queue the call, with those that follow it. Return the handle of the last one."""
        return self.app.client.enqueue(self)

    async def enqueue_async(self) -> AsyncHandle[R]:
        """Queue the call like ``enqueue``, on the running event loop."""
        return await self.app.async_client.enqueue(self)


class CallGroup(Struct, Generic[M, R], frozen=True, kw_only=True):
    """Calls that return an M, as a group, with the calls that follow it. The last of these returns an R."""

    calls: Iterable[Call[M]]
    require: str
    key: str | None
    links: tuple[Link, ...] = ()
    app: Clients | None = None

    @overload
    def then(self, function: str) -> CallGroup[M, Any]: ...
    @overload
    def then(self, function: Target[Concatenate[Any, P], S], *args: P.args, **kwargs: P.kwargs) -> CallGroup[M, S]: ...
    def then(self, function: Any, *args: Any, **kwargs: Any) -> CallGroup[M, Any]:
        """Return the group with a call that follows it, and gets a ``Group`` before ``args``. Raises BadArgument."""
        links = (*self.links, _following(function, self.app, args, kwargs))
        return replace(self, links=links, app=getattr(function, "_app", self.app))

    def enqueue(self) -> GroupHandle[M, R]:
        """Queue the calls. Raises BadArgument for one that cannot be a member."""
        app, calls = self._members()
        return app.client.enqueue_group(calls, self.links, require=self.require, key=self.key)

    async def enqueue_async(self) -> AsyncGroupHandle[M, R]:
        """Queue the calls like ``enqueue``, on the running event loop."""
        app, calls = self._members()
        return await app.async_client.enqueue_group(calls, self.links, require=self.require, key=self.key)

    def _members(self) -> tuple[Clients, Iterator[Call[M]]]:
        calls = iter(self.calls)
        first = list(islice(calls, 1))
        app = self.app or getattr(first[0] if first else None, "app", None)
        if app is None:
            given = f"calls[0] is {first[0]!r:.80}" if first else "the group has no calls, and none follows it"
            raise BadArgument(f"{given}: give results of event(...)")
        return app, _checked(joined(first, calls), app)


def group(
    calls: Iterable[Call[M]], *, require: Literal["all", "ended"] = "all", key: str | None = None
) -> CallGroup[M, None]:
    """Return calls as a group. They are read when it is queued, up to 100,000.

    ``then`` adds a call that runs when all of them have ended: with ``require="all"`` only if none of them failed.
    Queueing again with the same ``key`` completes a group that was not queued as a whole. Raises BadArgument.
    """
    if require not in ("all", "ended"):
        raise BadArgument(f"require is {require!r}: give 'all' or 'ended'")
    if isinstance(calls, Sized) and len(calls) > MOST_MEMBERS:
        raise BadArgument(f"a group of {len(calls)} calls: give {MOST_MEMBERS} at most")
    return CallGroup(calls=calls, require=require, key=key)


def _checked(calls: Iterable[Call[M]], app: Clients) -> Iterator[Call[M]]:
    for place, call in enumerate(calls):
        if not isinstance(call, Call):
            raise BadArgument(f"calls[{place}] is {call!r:.80}: give results of event(...)")
        if call.app is not app:
            raise BadArgument(f"calls[{place}] is of another app")
        if call.links[0].event.unique:
            raise BadArgument(f"calls[{place}] is unique, which no member of a group may be")
        if place == MOST_MEMBERS:
            raise BadArgument(f"the group has more than {MOST_MEMBERS} calls")
        yield call
