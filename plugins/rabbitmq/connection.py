"""A channel to a broker: what works on it ends when the broker closes it.

The client is aiormq, on which aio-pika is built: of the latter only what reconnects and wraps messages would be added,
and here the trigger is what starts again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

import anyio

from engine import SettingsError
from plugins._shared.deadline import deadline
from plugins._shared.tls import client_context
from plugins.rabbitmq.lenient_decoding import install_lenient_decoders
from plugins.rabbitmq.settings import Instance

#: Seconds that a broker has for an answer.
DEADLINE = 15.0
#: Seconds between signs of life. A broker that has shown none for three times as long is taken to be gone.
HEARTBEAT = 10


@asynccontextmanager
async def opened(broker: Instance, vhost: str) -> AsyncIterator[Any]:
    """The block is cancelled, and what the broker says is raised, when it closes the channel."""
    connection = await _connect(broker, vhost)
    try:
        with deadline("the broker did not open a channel", DEADLINE):
            channel = await connection.channel(publisher_confirms=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_closed, channel)
            yield channel
            tasks.cancel_scope.cancel()
    finally:
        with anyio.move_on_after(2, shield=True), suppress(asyncio.CancelledError):  # so it ends what waits for it
            await connection.close()


async def is_direct(channel: Any, exchange: str) -> bool:
    """Whether the broker says so of an exchange that is there, as it does when asked to make it a fanout one."""
    asking = await channel.connection.channel(publisher_confirms=False)  # a refusal closes it
    try:
        await asking.exchange_declare(exchange, exchange_type="fanout", durable=True)
    except _library().exceptions.AMQPChannelError as refusal:
        return "current is 'direct'" in str(refusal)
    await asking.close()
    return False


async def _closed(channel: Any) -> None:
    """Raises once it is."""
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
        except client.exceptions.InvalidFrameError:  # all that the client says of a refusal after the login
            raise ConnectionError(f"{address} lets {broker.user!r} use no vhost {vhost or '/'!r}") from None


def _library() -> Any:
    """The client. Raises SettingsError if it is not installed."""
    try:
        import aiormq
    except ImportError:
        raise SettingsError("RabbitMQ needs the extra rabbitmq: pip install '.[rabbitmq]' in the clone") from None
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # what it complains of, it raises as well
    install_lenient_decoders()
    return aiormq
