"""Client of functiond, functions that are deployed from code, and the engine inside a program."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from functiond.errors import (
    ApiError,
    BadArgument,
    BadConfiguration,
    BadRequest,
    BadResult,
    BatchError,
    CallTimedOut,
    ClientClosed,
    ClientError,
    Conflict,
    EngineFailed,
    Forbidden,
    InvocationCancelled,
    InvocationDiscarded,
    InvocationFailed,
    NotFound,
    Overloaded,
    ResultTimeout,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnknownFunction,
    Unreachable,
)

if TYPE_CHECKING:
    from engine.embedded import Engine as Engine
    from functiond.app import App, Function, Retry, get_context
    from functiond.calls import Call, group
    from functiond.client import AsyncClient, Client, Group
    from functiond.events import Event
    from functiond.handles import AsyncGroupHandle, AsyncHandle, GroupHandle, Handle
    from functiond.records import GroupRecord, LogLine, Member, Record

#: Modules that a program loads by using their names: not each program needs asyncio, which is slow to import.
_LATER = ("client", "app", "calls", "handles")

#: Without ``Engine``, which imports the whole engine, so that `import *` does not.
__all__ = [
    "ApiError",
    "App",
    "AsyncClient",
    "AsyncGroupHandle",
    "AsyncHandle",
    "BadArgument",
    "BadConfiguration",
    "BadRequest",
    "BadResult",
    "BatchError",
    "Call",
    "CallTimedOut",
    "Client",
    "ClientClosed",
    "ClientError",
    "Conflict",
    "EngineFailed",
    "Event",
    "Forbidden",
    "Function",
    "Group",
    "GroupHandle",
    "GroupRecord",
    "Handle",
    "InvocationCancelled",
    "InvocationDiscarded",
    "InvocationFailed",
    "LogLine",
    "Member",
    "NotFound",
    "Overloaded",
    "Record",
    "ResultTimeout",
    "Retry",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UnknownFunction",
    "Unreachable",
    "get_context",
    "group",
]


def __getattr__(name: str) -> Any:
    """Return a name of a module that is loaded now.

    Raises ImportError for ``Engine`` if another module than that of this installation has the name ``engine``.
    """
    if name != "Engine":
        modules = (import_module(f"functiond.{module}") for module in _LATER if name in __all__)
        for module in modules:
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from engine.embedded import Engine
    except ModuleNotFoundError as error:
        if error.name != "engine.embedded":
            raise
        other = sys.modules["engine"]
        place = getattr(other, "__file__", None) or next(iter(getattr(other, "__path__", [])), "another module")
        raise ImportError(f"{place} has the name of functiond's package `engine`: rename yours") from None
    return Engine
