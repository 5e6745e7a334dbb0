"""Live log of a function with the ends of its attempts, read in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from msgspec import Struct
from msgspec.json import decode

from engine.deploy.client import ApiError, Client, NotRunning, path_of
from engine.http.live_logs import AttemptEnd

_RETRY = 1.0  #: seconds until a lost connection is tried again
_BEGIN = 5.0  #: longest wait for the begin of the stream in seconds


class LogLine(Struct, frozen=True, kw_only=True):
    time: str | None
    stream: str
    text: str
    request_id: str


class Dropped(Struct, frozen=True, kw_only=True):
    """Lines that the engine left out, because the function wrote them too fast."""

    lines: int


class Lost(Struct, frozen=True, kw_only=True):
    """Reason why the log cannot be read. The thread goes on trying."""

    reason: str


Item = LogLine | AttemptEnd | Dropped | Lost
_KINDS: dict[bytes, type[LogLine | AttemptEnd | Dropped]] = {
    b"line": LogLine,
    b"attempt": AttemptEnd,
    b"dropped": Dropped,
}


def follow(client: Client, function: str, put: Callable[[str, Item], None]) -> None:
    """Call ``put`` with the function's name and each item of its log, in a thread. Return when the log has begun."""
    begun = threading.Event()
    threading.Thread(target=_follow, args=(client, function, put, begun), daemon=True).start()
    begun.wait(_BEGIN)


def _follow(client: Client, function: str, put: Callable[[str, Item], None], begun: threading.Event) -> None:
    told = ""
    while True:
        try:
            for name, data in client.events(path_of(function, "/logs?attempts=true")):
                begun.set()
                told = ""
                if data and name in _KINDS:
                    put(function, decode(data, type=_KINDS[name]))
            reason = "the engine stops"
        except (NotRunning, ApiError) as error:
            reason = str(error)
        if reason != told:
            put(function, Lost(reason=reason))
            told = reason
        time.sleep(_RETRY)
