"""Client library of Kafka: connections, and the causes of its errors.

The library logs causes, and raises errors that do not name them. Without them, a wrong password, an unknown host and a
broker that is down look the same: ``Unable to bootstrap``. The library also logs the same cause up to thousands of
times a second, so repetitions are left out of the log.
"""

from __future__ import annotations

import logging
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import anyio

from plugins._shared.connections import client_context, load_library
from plugins.kafka.options import Instance

PACE = 0.1  #: seconds between two requests of a client for metadata

RECENT = 60.0  #: seconds for which a logged error counts as the cause of a later one, and is not logged again
LENGTH = 300  #: characters of a cause
_NUMBERS = re.compile(r"\w*\d\w*")  #: words in which texts of one cause differ
_UNREADY = "node which is not ready"
#: Texts of the library, of which the first shows its list of addresses as Python objects.
_UNCONNECTED = ("Unable to bootstrap", _UNREADY)
_CONSEQUENCES = ("Unable to update metadata", _UNREADY)  #: follow the cause, which they would replace
_CLOSED = (ConnectionResetError, BrokenPipeError, TimeoutError, ssl.SSLError)


class Causes:
    """Last error that one client has logged."""

    def __init__(self) -> None:
        self._text, self._noted = "", 0.0

    def note(self, text: str) -> None:
        self._text, self._noted = text[:LENGTH], time.monotonic()

    def added_to(self, problem: str) -> str:
        """Return the text of an error with its cause, if the client has logged one lately."""
        cause = f": {self._text}" if self._text and time.monotonic() - self._noted <= RECENT else ""
        internal = any(text in problem for text in _UNCONNECTED[not cause :])
        return f"{'cannot connect to the cluster' if internal else problem}{cause}"


_current: ContextVar[Causes | None] = ContextVar("functiond kafka causes", default=None)


@contextmanager
def named_causes(causes: Causes | None = None, where: str = "") -> Iterator[None]:
    """Raise errors of connections and of the library, after ``where`` and with their cause.

    Tasks that a client starts in the block log it, too.
    """
    causes = causes or Causes()
    token = _current.set(causes)
    try:
        yield
    except Exception as error:
        if not isinstance(error, ConnectionError | TimeoutError) and not type(error).__module__.startswith("aiokafka"):
            raise
        words = (where, str(error) or type(error).__name__, getattr(error, "description", ""))
        raise ConnectionError(causes.added_to(": ".join(filter(None, words)))) from error
    finally:
        _current.reset(token)


def _explained(error: BaseException) -> str:
    """Return the text of an error of a new connection. The event loop drops the alert with which a server ends TLS."""
    text = str(error) or type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError) or not (isinstance(error, _CLOSED) or text.endswith(" closed")):
        return text
    return f"{text}; check whether the port speaks TLS, and which client certificate it needs"


class _Handler(logging.Handler):
    """Handler of the library's records, which belong to the client in whose context they are made.

    Passes records on to the handlers of the engine, each text once in ``RECENT`` seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._logged: set[str] = set()
        self._until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        causes, text = _current.get() or Causes(), record.getMessage()
        error = next((argument for argument in record.args or () if isinstance(argument, BaseException)), None)
        if error is not None and text.startswith("Unable connect"):
            text = text.removesuffix(str(error)) + _explained(error)
        follows = any(part in text for part in _CONSEQUENCES)
        if (record.levelno >= logging.ERROR or text.startswith("Unable")) and not follows:
            causes.note(text)
        if time.monotonic() >= self._until:
            self._logged.clear()
            self._until = time.monotonic() + RECENT
        if (kind := _NUMBERS.sub("", text[:LENGTH])) not in self._logged:
            self._logged.add(kind)
            logging.getLogger().handle(record)


_HANDLER = _Handler()


def connection(instance: Instance) -> dict[str, Any]:
    """Return arguments for the client library's consumers and producers.

    Raises OSError if a TLS file cannot be read.
    """
    arguments: dict[str, Any] = {
        "bootstrap_servers": instance.address,
        "client_id": "functiond",
        "security_protocol": ("SASL_" if instance.user else "") + ("SSL" if instance.tls else "PLAINTEXT"),
        "request_timeout_ms": 10_000,
    }
    if instance.user:
        arguments["sasl_mechanism"] = instance.mechanism
        arguments["sasl_plain_username"] = instance.user
        arguments["sasl_plain_password"] = instance.password
    if instance.tls:
        arguments["ssl_context"] = client_context(instance.ca_file, instance.cert_file, instance.key_file)
    return arguments


def pace(client: Any) -> None:
    """Let a client wait ``PACE`` between requests for metadata. While a leader is missing it would not wait at all."""

    class Paced(type(client)):  # type: ignore[misc]
        _last = 0.0

        async def _metadata_update(self, *arguments: Any) -> Any:
            await anyio.sleep(max(0.0, self._last + PACE - anyio.current_time()))
            self._last = anyio.current_time()
            return await super()._metadata_update(*arguments)

    client.__class__ = Paced


def library() -> Any:
    """Return the module of the client library. Raises SettingsError if it is not installed."""
    module = load_library("aiokafka", "Kafka", "kafka")
    logger = logging.getLogger("aiokafka")
    logger.addHandler(_HANDLER)
    logger.propagate = False  # the handler passes records on, and leaves out repetitions
    return module
