"""Output for operators: metrics in the Prometheus format, and log events on standard error.

Metrics are collected when they are requested, from frozen snapshots of the engine's parts.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

import structlog
from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from engine.metrics.histogram import Distribution
from engine.model.text import visible


class Figure(Struct, frozen=True, kw_only=True):
    """Metric at one moment, with its value for each value of ``label``.

    Keys of ``values`` are values of ``label``. A metric without label has one value with an empty key.
    """

    name: str
    help: str
    label: str = ""
    values: dict[str, float] = {}
    distribution: Distribution | None = None
    counter: bool = False


def count(name: str, help: str, value: float | dict[str, float], label: str = "") -> Figure:
    values = value if isinstance(value, dict) else {"": value}
    return Figure(name=name, help=help, label=label, values=values, counter=True)


def gauge(name: str, help: str, value: float | dict[str, float], label: str = "") -> Figure:
    values = value if isinstance(value, dict) else {"": value}
    return Figure(name=name, help=help, label=label, values=values)


def histogram(name: str, help: str, distribution: Distribution) -> Figure:
    return Figure(name=name, help=help, distribution=distribution)


class Telemetry:
    """Metrics in the Prometheus text format. ``read`` returns the current metrics and is called for each request."""

    def __init__(self, read: Callable[[], Iterator[Figure]]) -> None:
        self._read = read
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        return (_metric(figure) for figure in self._read())

    def render(self) -> bytes:
        return generate_latest(self._registry)


def _metric(figure: Figure) -> Metric:
    name = f"functiond_{figure.name}"
    if figure.distribution is not None:
        return _histogram(name, figure.help, figure.distribution)
    labels = [figure.label] if figure.label else []
    family = (CounterMetricFamily if figure.counter else GaugeMetricFamily)(name, figure.help, labels=labels)
    for label, value in figure.values.items():
        family.add_metric([label] if figure.label else [], value)
    return family


def _histogram(name: str, help: str, distribution: Distribution) -> Metric:
    buckets: list[tuple[str, float]] = []
    running = 0
    for bound, amount in zip((*distribution.bounds, float("inf")), distribution.counts, strict=True):
        running += amount
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), running))
    return HistogramMetricFamily(name, help, buckets=buckets, sum_value=distribution.total)


def configure_logging(form: str, level: str) -> None:
    """Configure logging to standard error, one line for each event. ``form`` is ``console`` or ``json``."""
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "json":
        processors += [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
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
