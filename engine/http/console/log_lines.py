"""Lines of logs as pages and their streams show them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from msgspec import Struct

from engine.http.api.times import exact_time
from engine.logs.lines import Line

#: Time and request id that a function's logger writes before the level; the line has both anyway.
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]{8,12}Z [0-9a-f-]{36} ")
_ERROR = re.compile(r"(ERROR|CRITICAL|FATAL)\b|Traceback \(most recent call last\)")


class LogLine(Struct, frozen=True, kw_only=True):
    """Line of a log as a page shows it."""

    time: str  #: UTC; empty if unknown
    stream: str
    text: str
    request_id: str  #: empty: it belongs to no request
    error: bool


def shown_lines(lines: Iterable[Line], request_id: str) -> Iterator[LogLine]:
    for line in lines:
        text = _STAMP.sub("", line.text, count=1) if line.stream == "logger" else line.text
        yield LogLine(
            time=exact_time(line.at) if line.at else "",
            stream=line.stream,
            text=text,
            request_id=request_id,
            error=line.stream in ("stderr", "error") or _ERROR.match(text) is not None,
        )
