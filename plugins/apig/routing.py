"""Routing of requests to APIs: by host and environment, then by path and method.

If several APIs match a path, a literal path is preferred to one with parameters, and this to a beginning of the path
(``match_mode`` SWA). An API for the request's method is preferred to one for ANY. If several are left, the oldest
answers.

An API with a domain (``sl_domain``) is found under this domain only. An API without one is found under any host. If the
host begins with ``<group_id>.``, APIs of this group are preferred.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from engine import TriggerContext
from plugins.apig.options import ApigOptions
from plugins.apig.paths import Segment, read_path, value_between

ANY = "ANY"
RELEASE = "RELEASE"


class Route(Struct, frozen=True, kw_only=True, eq=False):
    """API, and the context of its trigger."""

    options: ApigOptions
    context: TriggerContext

    @property
    def api_id(self) -> str:
        return self.context.trigger_id.replace("-", "")


class Found(Struct, frozen=True, kw_only=True):
    """API that matches a request, and the values of the parameters in the request's path."""

    route: Route
    parameters: dict[str, str]


class _Shape(Struct, frozen=True, kw_only=True):
    """Path of an API, such as ``/orders/{id}``, parsed into segments."""

    segments: tuple[Segment, ...]
    names: tuple[str, ...]
    rest: str | None = None  #: name of the parameter for the rest of the path; None: the path ends here


class _Node:
    """Node in a tree of path segments, with the APIs whose path ends at it."""

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.parameters: dict[tuple[str, str], _Node] = {}  #: keyed by the text before and after the value
        self.whole: dict[str, list[tuple[_Shape, Route]]] = {}  #: keyed by method: paths that end here
        self.begin: dict[str, list[tuple[_Shape, Route]]] = {}  #: keyed by method: paths with a rest after this node

    @property
    def empty(self) -> bool:
        return not (self.literal or self.parameters or self.whole or self.begin)

    def child(self, segment: Segment) -> _Node:
        if segment.name is None:
            return self.literal.setdefault(segment.before, _Node())
        return self.parameters.setdefault((segment.before, segment.after), _Node())

    def forget(self, segment: Segment) -> None:
        if segment.name is None:
            del self.literal[segment.before]
        else:
            del self.parameters[segment.before, segment.after]


class RouteTable:
    """APIs that are served at one listening address."""

    def __init__(self) -> None:
        self._roots: dict[tuple[str, str], _Node] = {}

    @contextmanager
    def added(self, route: Route) -> Iterator[None]:
        """Add a trigger's API until the block ends. An earlier API of the same trigger is replaced at once."""
        shape, keys = _shape(route.options), _keys(route.options)
        for key in keys:
            _add(self._roots.setdefault(key, _Node()), shape, route)
        try:
            yield
        finally:
            for key in keys:
                _remove(self._roots[key], shape, shape.segments, route)
                if self._roots[key].empty:
                    del self._roots[key]

    def find(self, host: str, stage: str, method: str, path: str) -> Found | None:
        """Return the API for a request, or None if none matches.

        ``stage`` is the name of the environment. ``path`` is percent-encoded.
        """
        segments = [unquote(segment) for segment in path[1:].split("/")] if "%" in path else path[1:].split("/")
        for name in (host, host.partition(".")[0] + ".", ""):
            root = self._roots.get((name, stage))
            found = _find(root, segments, 0, method, ()) if root is not None else None
            if found is not None:
                return found
        return None


def host_of(header: str) -> str:
    """Return the host in a Host header, without the port."""
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0].lower()


def _keys(options: ApigOptions) -> Sequence[tuple[str, str]]:
    if options.sl_domain:
        return ((options.sl_domain.lower(), options.env_name),)
    return (("", options.env_name), (options.group_id.lower() + ".", options.env_name))


def _shape(options: ApigOptions) -> _Shape:
    path, rest = options.path, None
    if options.match_mode == "SWA":
        path, rest = path.rstrip("/"), ""
    segments = read_path(path)
    if rest is None and segments[-1].greedy:
        segments, rest = segments[:-1], segments[-1].greedy
    names = tuple(segment.name for segment in segments if segment.name is not None)
    return _Shape(segments=tuple(segments), names=names, rest=rest)


def _ends(node: _Node, shape: _Shape) -> dict[str, list[tuple[_Shape, Route]]]:
    return node.whole if shape.rest is None else node.begin


def _add(node: _Node, shape: _Shape, route: Route) -> None:
    for segment in shape.segments:
        node = node.child(segment)
    entries = _ends(node, shape).setdefault(route.options.req_method, [])
    ids = [other.context.trigger_id for _, other in entries]
    trigger_id = route.context.trigger_id
    entries.insert(ids.index(trigger_id) if trigger_id in ids else len(entries), (shape, route))


def _remove(node: _Node, shape: _Shape, left: Sequence[Segment], route: Route) -> None:
    if left:
        child = node.child(left[0])
        _remove(child, shape, left[1:], route)
        if child.empty:
            node.forget(left[0])
        return
    ends, method = _ends(node, shape), route.options.req_method
    ends[method] = [entry for entry in ends[method] if entry[1] is not route]
    if not ends[method]:
        del ends[method]


def _find(node: _Node, segments: Sequence[str], depth: int, method: str, values: tuple[str, ...]) -> Found | None:
    """Return the preferred API below a node, or None. Each node has one depth, so it is visited only once."""
    if depth == len(segments):
        if entries := node.whole.get(method) or node.whole.get(ANY):
            return _found(entries[0], values, "")
    else:
        segment = segments[depth]
        child = node.literal.get(segment)
        if child is not None and (found := _find(child, segments, depth + 1, method, values)):
            return found
        for (before, after), below in node.parameters.items():
            if (value := value_between(before, segment, after)) and (
                found := _find(below, segments, depth + 1, method, (*values, value))
            ):
                return found
    if prefixes := node.begin.get(method) or node.begin.get(ANY):
        rest = "/".join(segments[depth:])
        for entry in prefixes:
            if rest or not entry[0].rest:
                return _found(entry, values, rest)
    return None


def _found(entry: tuple[_Shape, Route], values: tuple[str, ...], rest: str) -> Found:
    shape, route = entry
    parameters: dict[str, Any] = dict(zip(shape.names, values, strict=True))
    if rest:
        # The event has the rest of the path under an empty name (FunctionGraph's documented APIG event).
        parameters[shape.rest or ""] = rest
    return Found(route=route, parameters=parameters)
