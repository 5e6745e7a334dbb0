"""Types that several workers share. Type checkers read this module; no worker loads it.

Workers import it, and other modules that only types need, below ``if TYPE_CHECKING``. The constant is defined as False
in each worker, because importing it from ``typing`` would lengthen each cold start. For the same reason, annotations of
functions are quoted, except names of classes that are loaded anyway, instead of the import of ``__future__``.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn, Protocol, TypedDict

from bridge_loop import Loop

Headers = list[tuple[str, str]]


class _OptionalSetup(TypedDict, total=False):
    """Fields that a worker does not need to have."""

    layers: list[str]  #: folders
    initializer: str
    pre_stop: str
    concurrency: int
    maps_port: bool  #: the server's port is mapped to a free one
    access: dict[str, str] | None  #: to the API: url, token, project, and path of a socket or nothing
    keys: dict[str, str]  #: of its agency: access_key, secret_key, security_token; empty: none


class Setup(_OptionalSetup):
    """Content of the SETUP frame: the configuration of an instance."""

    instance: str
    code: str  #: folder
    handler: str
    initializer_timeout: int  #: seconds
    timeout: int  #: seconds
    memory: int  #: MiB
    cpu: int  #: thousandths of a processor
    project: str
    package: str
    name: str
    version: str
    user_data: dict[str, str]
    result_limit: int  #: bytes
    guarded: bool  #: only descendants of the bridge may use the runtime API


class Fence(TypedDict):
    """Namespaces of a forked instance, as ``python_fence`` describes them."""

    tmp: int  #: MiB
    network: bool
    user: int | None


class StartRequest(TypedDict):
    """Packet by which the engine has a template start an instance, as ``python_template`` describes it."""

    id: int
    argv: list[str] | None
    paths: list[str]
    environment: dict[str, str]
    fence: Fence | None
    filter: list[Any] | None  #: arguments of ``python_fence.install_filter``
    bridge: str  #: family of a bridge, or empty
    links: dict[str, str] | None  #: symbolic links in an /opt of its own, or None if it has that of its parent


class Origin(Protocol):
    """Request, or the instance itself, to which an answer or a log line belongs."""

    ticket: int
    id: str


class Told(Protocol):
    """Context of a request, as notices use it."""

    _heeds: bool  #: the handler ends by itself when it must

    def _note(self, reason: str) -> None: ...

    def _tell(self, reason: str) -> None: ...


class Interrupted(Origin, Protocol):
    """Request of a Python function about which notices may arrive."""

    @property
    def context(self) -> Told | None: ...


class Runner(Protocol):
    """Caller of handlers, as notices use it."""

    task: asyncio.Task[object] | None


class EngineLink(Protocol):
    """Bridge as ``Api`` and ``Proxy`` use it: event loop, configuration, and answers to the engine."""

    loop: Loop
    setup: Setup
    limit: int  #: bytes of a result
    is_ready: bool

    def ready(self, code: int = ..., message: str = ..., result: bytes = ...) -> None: ...

    def answer(self, ticket: int, code: int, message: str, result: bytes) -> None: ...

    def too_large(self, ticket: int, size: int) -> None: ...

    def resume_reading(self) -> None: ...

    def end(self, status: int) -> NoReturn: ...
