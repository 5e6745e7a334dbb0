"""Log lines of an engine inside another program: records of the module ``logging``, below the logger ``functiond``."""

from __future__ import annotations

import structlog
from structlog.typing import EventDict


def log_to_host() -> None:
    """Hand the engine's log to ``logging``, unless the program has configured structlog itself."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, _to_record],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def _to_record(logger: object, method: str, event: EventDict) -> tuple[tuple[str, str], dict[str, object]]:
    """Return the arguments of a method of ``logging.Logger``: the event with its values as one line of text."""
    traceback = {"exc_info": event.pop("exc_info")} if "exc_info" in event else {}
    text = [str(event.pop("event")), *(f"{name}={value}" for name, value in event.items())]
    return ("%s", " ".join(text)), traceback
