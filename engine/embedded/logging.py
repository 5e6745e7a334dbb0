"""Log lines of an engine inside another program: records of the module ``logging``, below the logger ``functiond``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

ROOT = "functiond"  #: the engine's loggers have this name, or one below it


def log_to_host() -> None:
    """Hand the engine's log to ``logging``, unless the program has configured structlog itself.

    Other loggers of structlog keep its defaults: the program may use them without any configuration.
    """
    if structlog.is_configured():
        return
    defaults = structlog.get_config()
    others: Callable[..., WrappedLogger] = defaults["logger_factory"]
    wrap_other: Callable[..., Any] = defaults["wrapper_class"]

    def make(*name: Any) -> WrappedLogger:
        return logging.getLogger(name[0]) if name and _is_engines(name[0]) else others(*name)

    def wrap(logger: WrappedLogger, processors: list[Processor], context: dict[str, Any]) -> Any:
        if isinstance(logger, logging.Logger) and _is_engines(logger.name):
            engines: list[Processor] = [structlog.stdlib.filter_by_level, _to_record]
            return structlog.stdlib.BoundLogger(logger, engines, context)
        return wrap_other(logger, processors=processors, context=context)

    structlog.configure(wrapper_class=cast(Any, wrap), logger_factory=make)


def _is_engines(name: object) -> bool:
    return f"{name}.".startswith(f"{ROOT}.")


def _to_record(logger: object, method: str, event: EventDict) -> tuple[tuple[str, str], dict[str, object]]:
    """Return the arguments of a method of ``logging.Logger``: the event with its values as one line of text."""
    traceback = {"exc_info": event.pop("exc_info")} if "exc_info" in event else {}
    text = [str(event.pop("event")), *(f"{name}={value}" for name, value in event.items())]
    return ("%s", " ".join(text)), traceback
