"""Limits of the FunctionGraph API for values in requests, and types of fields with these limits.

The decoder of requests rejects a value outside the limits of its field, and the OpenAPI document states the limits.
Forms of the console take limits and words from the same types, see ``http/console/struct_forms``.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from msgspec import Meta

from engine.model.urn import NAME

#: memory sizes in MB of 2**20 bytes
Memory = Literal[128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096, 8192, 10240]
MEMORY_SIZES: tuple[int, ...] = get_args(Memory)
TIMEOUTS = (3, 259_200)  #: seconds
INSTANCES = (-1, 1_000)  #: instances of a function; -1: no limit, 0: disabled
REQUESTS = (1, 1_000)  #: concurrent requests of an instance
INITIALIZER_TIMEOUTS = (1, 300)  #: seconds
PRE_STOP_TIMEOUTS = (1, 90)  #: seconds
DESCRIPTION = 512  #: characters
HANDLER = 128  #: characters
EVENT_AGES = (1, 86_400)  #: seconds
RETRIES = (0, 3)
LONGEST_DELAY = 7 * 86_400.0  #: seconds; longest delay of a request to the API
LONGEST_RETRY = LONGEST_DELAY / 2  #: largest ``retry.longest``; jitter can double it

LONGEST_NOTE = 200  #: characters of a note that a handler reports with its progress
ORDERING_KEY = 200  #: characters
IDEMPOTENCY_KEY = 255  #: characters
FILE_NAME = 255  #: characters
LINK = 2_048  #: characters; object keys alone can have 1024 bytes
LABEL = 256  #: characters of the kind of a destination, or of the id or name of a log group or stream
PARAM = 8_192  #: characters of the parameters of a destination


def words(title: str, help: str = "", *, example: object = None, **more: object) -> Meta:
    """Return the words for a field in forms and documents: its label, a sentence below it, and an example.

    ``more`` is for forms only, see ``http/console/struct_forms``.
    """
    extra = {"help": help, **more}
    return Meta(title=title, extra=extra) if example is None else Meta(title=title, examples=[example], extra=extra)


NAME_RULE = "needs a letter, then up to 59 letters, digits, - and _"

Name = Annotated[str, Meta(pattern=f"^{NAME.pattern}$", description=NAME_RULE)]
SamePackage = Annotated[str, Meta(pattern=f"^({NAME.pattern})?$", description=NAME_RULE)]
Handler = Annotated[
    str, Meta(max_length=HANDLER), words("Handler", "file.function for Python and Node.js; any text for a bootstrap.")
]
Timeout = Annotated[int, Meta(ge=TIMEOUTS[0], le=TIMEOUTS[1]), words("Timeout", unit="seconds")]
Instances = Annotated[int, Meta(ge=INSTANCES[0], le=INSTANCES[1])]
Requests = Annotated[
    int,
    Meta(ge=REQUESTS[0], le=REQUESTS[1]),
    words("Requests per instance", "Requests that one instance serves at the same time."),
]
Initializer = Annotated[
    str,
    Meta(max_length=HANDLER),
    words("Initializer", "Handler that runs once in each new instance, before its first request. Empty means none."),
]
InitializerTimeout = Annotated[
    int,
    Meta(ge=INITIALIZER_TIMEOUTS[0], le=INITIALIZER_TIMEOUTS[1]),
    words("Timeout of the initializer", "Default 300.", example=300, unit="seconds", initial=300),
]
PreStopHandler = Annotated[
    str, Meta(max_length=HANDLER), words("Pre-stop handler", "Runs before an instance is stopped. Empty means none.")
]
#: 0: no hook; Terraform sends this value.
RestoreHookTimeout = Annotated[int, Meta(ge=0, le=INITIALIZER_TIMEOUTS[1])]
PreStopTimeout = Annotated[
    int,
    Meta(ge=PRE_STOP_TIMEOUTS[0], le=PRE_STOP_TIMEOUTS[1]),
    words("Timeout of the pre-stop handler", "Default 90.", example=90, unit="seconds", initial=90),
]
FileName = Annotated[str, Meta(max_length=FILE_NAME)]
Link = Annotated[str, Meta(max_length=LINK)]
Label = Annotated[str, Meta(max_length=LABEL)]
Param = Annotated[str, Meta(max_length=PARAM, description=f"must be JSON text of up to {PARAM} characters")]
Description = Annotated[str, Meta(max_length=DESCRIPTION), words("Description")]
EventAge = Annotated[
    int,
    Meta(ge=EVENT_AGES[0], le=EVENT_AGES[1]),
    words(
        "Maximum age (s)",
        "1 to 86,400; empty: 86,400. An older invocation is not tried again, and discarded if it still waits.",
    ),
]
Retries = Annotated[
    int,
    Meta(ge=RETRIES[0], le=RETRIES[1]),
    words(
        "Maximum retries",
        "0 to 3 further attempts after an error of the function. Retry rules and the error itself go first.",
    ),
]
Percent = Annotated[int, Meta(ge=0, le=100)]


def cpu_of(memory: int) -> int:
    """Return the CPU of an instance with ``memory`` MB in thousandths of a CPU, as FunctionGraph derives it."""
    return memory * 100 // 128 + 200
