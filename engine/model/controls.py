"""Controls of a function: settings of functiond's own, which all versions of the function share."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine.model.limits import words

PAUSE_REASON = 256  #: characters
Reason = Annotated[str, Meta(max_length=PAUSE_REASON), words("Reason for the pause", "Callers see it. May be empty.")]
Rate = Annotated[
    float,
    Meta(ge=0, le=1_000_000),
    words("Start rate", "Asynchronous invocations, retries included. 0 means no limit.", unit="per second"),
]
Burst = Annotated[
    int, Meta(ge=1, le=1_000_000), words("Burst", "Invocations that may start at once under the rate. Default 1.")
]
RecycleRequests = Annotated[
    int,
    Meta(ge=0, le=1_000_000_000),
    words("Requests of an instance", "An instance is replaced after so many. 0 means never."),
]
RecycleMemory = Annotated[
    int,
    Meta(ge=0, le=100),
    words("Memory of an instance", "An instance is replaced when it has used so much. 0 means never.", unit="percent"),
]
SoftTimeout = Annotated[
    float,
    Meta(ge=0, le=259_200),
    words("Soft timeout", "A handler that runs longer is warned once. 0 means never.", unit="seconds"),
]


class Controls(Struct, frozen=True, kw_only=True):
    """Controls of one function. Functions that never had any have the defaults."""

    paused: bool = False  #: no invocation starts; asynchronous requests are accepted and wait
    pause_reason: str = ""  #: shown to callers; empty unless ``paused``
    rate: float = 0.0  #: invocations that start in one second; 0: no limit
    burst: int = 1  #: invocations that may start at once under ``rate``
    recycle_requests: int = 0  #: requests after which an instance is replaced; 0: never
    recycle_memory: int = 0  #: percent of its memory limit at which an instance is replaced; 0: never
    soft_timeout: float = 0.0  #: seconds after which the handler is told that its time ends; 0: never
