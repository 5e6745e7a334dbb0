"""Routing of requests to APIs: by host and environment, then by path and method.

If several APIs match a path, a literal path is preferred to one with parameters, and this to a beginning of the path
(``match_mode`` SWA). An API for the request's method is preferred to one for ANY. If several are left, the oldest
answers.

An API with a domain (``sl_domain``) is found under this domain only. An API without one is found under any host. If the
host begins with ``<group_id>.``, APIs of this group are preferred.

A request belongs to the project that claimed it first, by an API that matches it or by one with its domain. In this
project, the rules above choose. The engine refuses an API that would take requests of another project (``collision``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from engine import TriggerContext
from plugins.apig.options import ApigOptions
from plugins.apig.paths import CONSOLE, Segment, have_common_text, read_path, value_between

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
    depth: int = 0  #: segments of the path before the rest, if the API has all paths below these

    def prefix(self, path: str) -> str:
        """Return the beginning of a path below which the API has all paths; empty if it has only this path."""
        return "/".join(path.split("/", self.depth + 1)[: self.depth + 1]) if self.depth else ""


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

    def __init__(self, own_hosts: Collection[str] = ()) -> None:
        #: Names of the gateway itself, empty for none. As a domain, they and addresses belong to no project.
        self._own_hosts = own_hosts
        self._roots: dict[tuple[str, str], _Node] = {}
        self._routes: dict[str, list[Route]] = {}  #: keyed by domain
        self._projects = Counter[str]()  #: number of routes
        self._older: dict[Route, list[Route]] = {}  #: routes of other projects that take requests of a route

    @contextmanager
    def added(self, route: Route) -> Iterator[None]:
        """Add a trigger's API until the block ends. An earlier API of the same trigger is replaced at once."""
        shape, keys = _shape(route.options.path, route.options.match_mode), _keys(route.options)
        for key in keys:
            _add(self._roots.setdefault(key, _Node()), shape, route)
        self._claim(route)
        try:
            yield
        finally:
            self._release(route)
            for key in keys:
                _remove(self._roots[key], shape, shape.segments, route)
                if self._roots[key].empty:
                    del self._roots[key]

    def find(self, host: str, stage: str, method: str, path: str) -> Found | None:
        """Return the API for a request, or None if none matches. Without an API for HEAD, one for GET does.

        ``stage`` is the name of the environment. ``path`` is percent-encoded.
        """
        segments = [unquote(segment) for segment in path[1:].split("/")] if "%" in path else path[1:].split("/")
        if segments[0] == CONSOLE:
            return None
        names = (host, host.partition(".")[0] + ".", "")
        roots = [root for name in names if (root := self._roots.get((name, stage))) is not None]
        methods = (method, "GET") if method == "HEAD" else (method,)
        matches = (matched for verb in methods for root in roots for matched in _find(root, segments, 0, verb, ()))
        if len(self._projects) < 2:
            return next(matches, None)
        candidates = list(matches)
        is_own = host in self._own_hosts or host.startswith("[") or host.replace(".", "").isdigit()
        claims = [candidate.route for candidate in candidates] + ([] if is_own else self._routes.get(host, []))
        owner = min(claims, key=_age).context.project if claims else ""
        return next((candidate for candidate in candidates if candidate.route.context.project == owner), None)

    def _claim(self, route: Route) -> None:
        """Record a route, and report each collision with another project as a problem of the younger API."""
        for other in [known for routes in self._routes.values() for known in routes]:
            if other.context.project != route.context.project:
                older, younger = sorted((route, other), key=_age)
                if problem := collision(younger.options, older.options):
                    self._older.setdefault(younger, []).append(older)
                    younger.context.report_problem(f"{problem}; until then, the older API gets the requests")
        self._routes.setdefault(_domain(route.options), []).append(route)
        self._projects[route.context.project] += 1

    def _release(self, route: Route) -> None:
        domain = _domain(route.options)
        self._routes[domain].remove(route)
        if not self._routes[domain]:
            del self._routes[domain]
        self._projects -= Counter([route.context.project])
        self._older.pop(route, None)
        for younger in [younger for younger, older in self._older.items() if route in older]:
            self._older[younger].remove(route)
            if not self._older[younger]:
                del self._older[younger]
                younger.context.report_problem("")


def _age(route: Route) -> tuple[float, str]:
    return route.context.claimed, route.context.trigger_id


def collision(mine: ApigOptions, other: ApigOptions) -> str:
    """Return why an API would take requests of an older one of another project; empty if it takes none."""
    domain, others = _domain(mine), _domain(other)
    if domain and domain == others:
        return f"the domain {domain} belongs to another project: choose another sl_domain"
    if others or mine.env_name != other.env_name or not _have_common_method(mine, other):
        return ""
    if not _have_common_path(_shape(mine.path, mine.match_mode), _shape(other.path, other.match_mode)):
        return ""
    return "requests to this path belong to an API of another project: choose another path"


def _have_common_method(one: ApigOptions, other: ApigOptions) -> bool:
    both = {one.req_method, other.req_method}
    preflights = "OPTIONS" in both and (one.cors or other.cors)
    return preflights or len(both) == 1 or ANY in both or both == {"GET", "HEAD"}


def _have_common_path(one: _Shape, other: _Shape) -> bool:
    """Return whether a path can match both shapes."""
    for first, second in ((one, other), (other, one)):
        if second.rest is None and len(second.segments) < len(first.segments) + bool(first.rest):
            return False
    return all(map(have_common_text, one.segments, other.segments))


def host_of(header: str) -> str:
    """Return the host in a Host header, without the port."""
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0].lower().rstrip(".")


def _domain(options: ApigOptions) -> str:
    return options.sl_domain.lower().rstrip(".")


def _keys(options: ApigOptions) -> Sequence[tuple[str, str]]:
    if domain := _domain(options):
        return ((domain, options.env_name),)
    return (("", options.env_name), (options.group_id.lower() + ".", options.env_name))


@lru_cache(4096)
def _shape(path: str, match_mode: str) -> _Shape:
    rest = None
    if match_mode == "SWA":
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


def _find(node: _Node, segments: Sequence[str], depth: int, method: str, values: tuple[str, ...]) -> Iterator[Found]:
    """Yield the APIs that match below a node, preferred ones first. Each node has one depth, so it is visited once."""
    if depth == len(segments):
        for entry in (*node.whole.get(method, ()), *node.whole.get(ANY, ())):
            yield _found(entry, values, "")
    else:
        segment = segments[depth]
        child = node.literal.get(segment)
        if child is not None:
            yield from _find(child, segments, depth + 1, method, values)
        for (before, after), below in node.parameters.items():
            if value := value_between(before, segment, after):
                yield from _find(below, segments, depth + 1, method, (*values, value))
    if prefixes := (*node.begin.get(method, ()), *node.begin.get(ANY, ())):
        rest = "/".join(segments[depth:])
        for entry in prefixes:
            if rest or not entry[0].rest:
                yield _found(entry, values, rest, depth)


def _found(entry: tuple[_Shape, Route], values: tuple[str, ...], rest: str, depth: int = 0) -> Found:
    shape, route = entry
    parameters: dict[str, Any] = dict(zip(shape.names, values, strict=True))
    if rest:
        # The event has the rest of the path under an empty name (FunctionGraph's documented APIG event).
        parameters[shape.rest or ""] = rest
    return Found(route=route, parameters=parameters, depth=depth)
