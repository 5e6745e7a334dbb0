"""Channel of an AMQP connection to a broker. If the broker closes the channel, the block that uses it is cancelled.

The client library is aiormq, the basis of aio-pika. The latter adds reconnection and message objects, which are not
needed here: a failed trigger is restarted by the engine. The library's decoders are replaced by lenient ones.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import quote

import anyio

from plugins._shared.connections import client_context, deadline, load_library
from plugins.rabbitmq.options import Instance

Read = Callable[[bytes], tuple[int, Any]]  #: returns the number of read bytes, and the value
#: Seconds within which a broker must answer.
DEADLINE = 15.0
#: Routing key for all messages of a topic exchange; a fanout exchange ignores it.
EVERYTHING = "#"
#: Seconds between heartbeats. After three missing ones the connection counts as lost.
HEARTBEAT = 10


def install_lenient_decoders() -> None:
    """Replace the client library's decoders for all connections of this process. Valid values are decoded as before.

    Brokers forward properties and routing keys without checking them: ids that are bytes, times in microseconds, tables
    outside the specification. The client closes its connection at a value that it cannot decode; the broker then
    delivers that message again first, endlessly. Triggers use the message id only, so such values are skipped.
    """
    from pamqp import decode

    skips: dict[str, Read] = {
        "shortstr": _skip_text,
        "table": lambda data: (4 + int.from_bytes(data[:4], "big"), {}),
        "timestamp": lambda data: (8, None),
    }
    for kind, skip in skips.items():
        read = decode.METHODS[kind]
        if not isinstance(read, partial):
            decode.METHODS[kind] = partial(_read, read, skip)


def _read(read: Read, skip: Read, data: bytes) -> tuple[int, Any]:
    try:
        return read(data)
    except Exception:  # the client raises many types of errors for invalid values
        return skip(data)


def _skip_text(data: bytes) -> tuple[int, str]:
    """Decode a text, with escapes for invalid bytes.

    Equal bytes become equal texts, so a message id still identifies a message.
    """
    end = 1 + data[0]
    return end, data[1:end].decode("utf-8", "backslashreplace")


class BrokerRefused(ConnectionError):
    """Refusal of a call by the broker, or of an exchange that cannot be used."""


@asynccontextmanager
async def opened(broker: Instance, vhost: str, limits: AbstractContextManager[None]) -> AsyncIterator[Any]:
    """Connect to a broker within ``limits``, and yield a channel. The connection is closed when the block ends.

    If the broker closes the channel, cancel the block and raise the broker's error.
    """
    with limits:
        connection = await _connect(broker, vhost)
    try:
        with deadline("the broker did not open a channel", DEADLINE):
            channel = await connection.channel(publisher_confirms=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_closed, channel)
            yield channel
            tasks.cancel_scope.cancel()
    finally:
        with anyio.move_on_after(2, shield=True), suppress(asyncio.CancelledError):  # closing cancels waiting calls
            await connection.close()


async def refusal(connection: Any, *calls: Callable[[Any], Awaitable[object]], within: float = DEADLINE) -> str:
    """Make calls on a channel of their own. Return the broker's reason if it refuses one, else an empty text."""
    with deadline("the broker did not answer", within):
        channel = await connection.channel(publisher_confirms=False)
        try:
            for call in calls:
                await call(channel)
        except _library().exceptions.AMQPChannelError as refused:  # which closes the channel
            return str(refused)
        await channel.close()
        return ""


async def _closed(channel: Any) -> None:
    """Wait until the channel is closed, then raise its error."""
    closing, over = channel.closing, asyncio.Event()
    closing.add_done_callback(lambda _: over.set())
    await over.wait()
    if not closing.cancelled() and isinstance(error := closing.exception(), Exception):
        raise error
    raise ConnectionError("the broker has closed the connection")


async def _connect(broker: Instance, vhost: str) -> Any:
    *others, last = broker.address.split(",")
    for address in others:
        try:
            return await _connect_to(address.strip(), broker, vhost)
        except OSError:
            continue
    return await _connect_to(last.strip(), broker, vhost)


async def _connect_to(address: str, broker: Instance, vhost: str) -> Any:
    client, login = _library(), f"{quote(broker.user, safe='')}:{quote(broker.password, safe='')}"
    scheme = "amqps" if broker.tls else "amqp"
    url = f"{scheme}://{login}@{address}/{quote(vhost or '/', safe='')}?heartbeat={HEARTBEAT}"
    context = client_context(broker.ca_file, broker.cert_file, broker.key_file) if broker.tls else None
    with deadline(f"{address} did not answer", DEADLINE):
        try:
            return await client.connect(url, context=context)
        except client.exceptions.InvalidFrameError:  # the client's only error for a refusal after the login
            raise ConnectionError(f"{address} refuses {broker.user!r} access to vhost {vhost or '/'!r}") from None


def _library() -> Any:
    """Return the module of the client library. Raises SettingsError if it is not installed."""
    module = load_library("aiormq", "RabbitMQ", "rabbitmq")
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # it raises all that it logs
    install_lenient_decoders()
    return module
