"""Output for operators: metrics in the Prometheus format, and log events on standard error.

Metrics are collected when they are requested, from frozen snapshots of the engine's parts.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal, TextIO

import anyio.to_thread
import structlog
from msgspec import Struct

from engine.metrics.histogram import Distribution
from engine.model.text import visible


class Family(Struct, frozen=True, kw_only=True):
    """Metric at one moment. Each sample has the values of ``labels`` and a value.

    The value is a ``Distribution`` if the metric is a histogram, and a number otherwise.
    """

    name: str
    help: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...] = ()
    samples: Sequence[tuple[tuple[str, ...], float | Distribution]]


def count(name: str, help: str, value: float | Mapping[str, float], label: str = "") -> Family:
    """Return a counter with one value, or with one for each value of ``label``."""
    return Family(name=name, help=help, kind="counter", labels=(label,) if label else (), samples=_samples(value))


def gauge(name: str, help: str, value: float | Mapping[str, float], label: str = "") -> Family:
    """Return a gauge with one value, or with one for each value of ``label``."""
    return Family(name=name, help=help, kind="gauge", labels=(label,) if label else (), samples=_samples(value))


def histogram(name: str, help: str, distribution: Distribution) -> Family:
    return Family(name=name, help=help, kind="histogram", samples=[((), distribution)])


def _samples(value: float | Mapping[str, float]) -> Sequence[tuple[tuple[str, ...], float]]:
    return [((name,), float(n)) for name, n in value.items()] if isinstance(value, Mapping) else [((), float(value))]


async def rendered(families: Sequence[Family]) -> bytes:
    """Return metrics in the Prometheus text format. A thread writes it, because it may have thousands of lines."""
    return await anyio.to_thread.run_sync(lambda: "".join(chain.from_iterable(map(_lines, families))).encode())


def _lines(family: Family) -> Iterator[str]:
    """Yield the lines of a metric.

    The library of Prometheus takes five times as long, and holds the lock of the interpreter, which delays the engine.
    """
    name = f"functiond_{family.name}{'_total' if family.kind == 'counter' else ''}"
    yield f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"
    for values, value in family.samples:
        labels = ",".join(f'{label}="{_escaped(text)}"' for label, text in zip(family.labels, values, strict=True))
        shown = f"{{{labels}}}" if labels else ""
        if isinstance(value, Distribution):
            for bound, amount in _buckets(value):
                yield f'{name}_bucket{{{labels}{"," * bool(labels)}le="{bound}"}} {amount}\n'
            yield f"{name}_sum{shown} {value.total!r}\n{name}_count{shown} {amount}\n"
        else:
            yield f"{name}{shown} {value!r}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    running = 0
    for bound, amount in zip((*distribution.bounds, float("inf")), distribution.counts, strict=True):
        running += amount
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), running))
    return buckets


def configure_logging(form: str, level: str) -> None:
    """Configure logging to standard error, one line for each event. ``form`` is ``console`` or ``json``."""
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "json":
        # Local variables have secrets, such as headers of requests.
        errors = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors += [structlog.processors.ExceptionRenderer(errors), structlog.processors.JSONRenderer()]
    else:
        processors.append(_visible_values)
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_write_traceback)
        processors.append(renderer)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_LibraryHandler()], force=True)


def _visible_values(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape control characters in values, such as paths of requests: a terminal would obey them."""
    return {name: visible(value) if isinstance(value, str) else value for name, value in event.items()}


def _write_traceback(file: TextIO, error: structlog.typing.ExcInfo) -> None:
    """Write a traceback without local variables: the default formatter prints all of them, which takes seconds."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    file.write(visible(text.getvalue(), keep="\n\t"))


class _LibraryHandler(logging.Handler):
    """Handler that writes log records of libraries in the engine's format.

    Errors of the handler are not raised in the library that logs.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # the arguments do not match the format
            message = str(record.msg)
        fields = {"exc_info": record.exc_info} if record.exc_info else {}
        level = min(record.levelno // 10 * 10, logging.CRITICAL)  # libraries may define further levels
        structlog.get_logger().log(level, message, library=record.name, **fields)
