"""Names of functions that resemble an unknown one, in the error about it."""

from __future__ import annotations

import difflib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice

import anyio.to_thread

from engine.asgi.wire import Reply, Scope
from engine.auth.roles import PRINCIPAL, Principal
from engine.errors import FunctiondError, UnknownFunction
from engine.functions.catalog import Catalog
from engine.http.operations import BY_NAME
from engine.model import Function

#: Makes the reply to a request that failed.
Refuse = Callable[[Scope, FunctiondError], Awaitable[Reply]]

MOST_NAMES = 3
MOST_COMPARED = 2_000
#: Seconds between two comparisons. Clients that repeat a wrong request quickly must not keep the engine busy.
PAUSE = 0.05

_LIST = BY_NAME["ListFunctions"]


class NearNames:
    """Reply to a request that failed. Adds near names if the caller may list the functions of the project."""

    def __init__(self, refuse: Refuse, catalog: Catalog) -> None:
        self._refuse, self._catalog = refuse, catalog
        self._next = 0.0

    async def __call__(self, scope: Scope, error: FunctiondError) -> Reply:
        if isinstance(error, UnknownFunction) and _may_list(scope) and time.monotonic() >= self._next:
            self._next = time.monotonic() + PAUSE
            project = scope["path"].split("/")[2]
            names = [_short(one) for one in islice(self._catalog.list(project), MOST_COMPARED)]
            near = await anyio.to_thread.run_sync(_near, error.name, names)
            error = UnknownFunction(error.name, near)
        return await self._refuse(scope, error)


def _may_list(scope: Scope) -> bool:
    principal: Principal | None = scope.get(PRINCIPAL)
    return scope["path"].startswith("/v2/") and (principal is None or principal.may(_LIST.roles))


def _short(function: Function) -> str:
    return function.name if function.package == "default" else f"{function.package}:{function.name}"


def _near(name: str, names: Iterable[str]) -> Sequence[str]:
    """Return those of ``names`` whose last part resembles ``name``, the most similar first."""
    parts: dict[str, list[str]] = {}
    for one in names:
        parts.setdefault(one.rpartition(":")[2].lower(), []).append(one)
    found = difflib.get_close_matches(name.lower(), parts, n=MOST_NAMES)
    return [one for part in found for one in parts[part]][:MOST_NAMES]
