"""Output for operators: metrics in the Prometheus format, and log events on standard error.

Metrics are collected when they are requested, from frozen snapshots of the engine's parts.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TextIO

import anyio.to_thread
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
    values: Mapping[str, float] = {}
    distribution: Distribution | None = None
    counter: bool = False


class Family(Struct, frozen=True, kw_only=True):
    """Metric at one moment, with several labels. Each sample has the values of ``labels`` and a value.

    The value is a ``Distribution`` if the metric is a histogram, and a number otherwise.
    """

    name: str
    help: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    samples: Sequence[tuple[tuple[str, ...], float | Distribution]]


def count(name: str, help: str, value: float | Mapping[str, float], label: str = "") -> Figure:
    values = dict(value) if isinstance(value, Mapping) else {"": value}
    return Figure(name=name, help=help, label=label, values=values, counter=True)


def gauge(name: str, help: str, value: float | Mapping[str, float], label: str = "") -> Figure:
    values = dict(value) if isinstance(value, Mapping) else {"": value}
    return Figure(name=name, help=help, label=label, values=values)


def histogram(name: str, help: str, distribution: Distribution) -> Figure:
    return Figure(name=name, help=help, distribution=distribution)


class Telemetry:
    """Metrics in the Prometheus text format.

    ``read`` and ``families`` return the current metrics and are called for each request. ``families`` gets the project
    whose functions are named; None: those of all projects.
    """

    def __init__(
        self,
        read: Callable[[], Iterator[Figure]],
        families: Callable[[str | None], Iterator[Family]] = lambda project: iter(()),
    ) -> None:
        self._read, self._families = read, families

    async def render(self, project: str | None = None) -> bytes:
        """Return all metrics as text. The text is written in a thread, because it may have thousands of lines."""
        snapshot = _Snapshot([*self._read()], [*self._families(project)])
        return await anyio.to_thread.run_sync(snapshot.text)


class _Snapshot:
    def __init__(self, figures: Sequence[Figure], families: Sequence[Family]) -> None:
        self._figures, self._families = figures, families

    def collect(self) -> Iterator[Metric]:
        return map(_metric, self._figures)

    def text(self) -> bytes:
        registry = CollectorRegistry()
        registry.register(self)
        lines = [line for family in self._families for line in _lines(family)]
        return generate_latest(registry) + "".join(lines).encode()


def _metric(figure: Figure) -> Metric:
    name = f"functiond_{figure.name}"
    if figure.distribution is not None:
        buckets = _buckets(figure.distribution)
        return HistogramMetricFamily(name, figure.help, buckets=buckets, sum_value=figure.distribution.total)
    labels = [figure.label] if figure.label else []
    family = (CounterMetricFamily if figure.counter else GaugeMetricFamily)(name, figure.help, labels=labels)
    for label, value in figure.values.items():
        family.add_metric([label] if figure.label else [], value)
    return family


def _lines(family: Family) -> Iterator[str]:
    """Yield the lines of a metric with several labels.

    The library takes five times as long for them, and holds the lock of the interpreter, which delays the engine.
    """
    name = f"functiond_{family.name}{'_total' if family.kind == 'counter' else ''}"
    yield f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"
    for values, value in family.samples:
        labels = ",".join(f'{label}="{_escaped(one)}"' for label, one in zip(family.labels, values, strict=True))
        if isinstance(value, Distribution):
            for bound, amount in _buckets(value):
                yield f'{name}_bucket{{{labels},le="{bound}"}} {amount}\n'
            yield f"{name}_sum{{{labels}}} {value.total!r}\n{name}_count{{{labels}}} {amount}\n"
        else:
            yield f"{name}{{{labels}}} {value!r}\n" if labels else f"{name} {value!r}\n"


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
