"""Client of functiond, functions that are deployed from code, and the engine inside a program."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if find_spec("httpx") is None:
    raise ImportError("the client of functiond needs httpx: pip install 'functiond[client]'")

from functiond.app import App, Function, get_context
from functiond.async_client import AsyncClient, AsyncHandle
from functiond.client import Client, Handle
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
from functiond.events import Event
from functiond.records import LogLine, Record

if TYPE_CHECKING:
    from engine.embedded import Engine as Engine

#: Without ``Engine``, which imports the whole engine, so that `import *` does not.
__all__ = [
    "ApiError",
    "App",
    "AsyncClient",
    "AsyncHandle",
    "BadArgument",
    "BadConfiguration",
    "BadRequest",
    "BadResult",
    "BatchError",
    "CallTimedOut",
    "Client",
    "ClientClosed",
    "ClientError",
    "Conflict",
    "EngineFailed",
    "Event",
    "Forbidden",
    "Function",
    "Handle",
    "InvocationCancelled",
    "InvocationDiscarded",
    "InvocationFailed",
    "LogLine",
    "NotFound",
    "Overloaded",
    "Record",
    "ResultTimeout",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UnknownFunction",
    "Unreachable",
    "get_context",
]


def __getattr__(name: str) -> Any:
    if name != "Engine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from functiond.embedding import load_engine

    return load_engine()
