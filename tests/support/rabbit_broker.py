"""RabbitMQ broker in a process of its own, on free ports. Shared by the whole test run, as its start takes seconds.

The user, password and virtual host contain characters that need escaping in URLs.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL
from urllib.parse import quote

import aiormq
import aiormq.abc
import anyio.to_thread
from pamqp.commands import Basic

from tests.support.certificates import write_certificate
from tests.support.ports import free_port
from tests.support.programs import program

#: Debian's server program; its wrapper script would change to another user.
PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
USER, PASSWORD, VHOST = "sh@p", "p@s/w%25r?d", "/sh op"
#: Seconds allowed for its start.
MAX_WAIT = 200.0


class Broker:
    """Broker that can be restarted on the same ports with its stored messages."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port, self.tls_port, self._epmd_port = free_port(), free_port(), free_port()
        self.address, self.tls_address = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.tls_port}"
        self.ca_file = folder / "cert.pem"
        self._processes: list[subprocess.Popen[bytes]] = []
        write_certificate(folder)
        (folder / "rabbitmq.conf").write_text(self._configuration())

    def start(self) -> None:
        environment = self._environment()
        epmd = [
            "epmd",
            "-address",
            "127.0.0.1",
            "-port",
            str(self._epmd_port),
        ]  # else the broker starts an epmd that outlives it
        self._processes = [subprocess.Popen(epmd, env=environment, stdout=DEVNULL, stderr=DEVNULL)]
        with (self._folder / "output").open("wb") as output:
            server = subprocess.Popen(
                [PROGRAM], env=environment, stdin=DEVNULL, stdout=output, stderr=output, cwd=self._folder
            )
        self._processes.append(server)
        until = time.monotonic() + MAX_WAIT
        while not (_listens(self.port) and _listens(self.tls_port)):
            running = server.poll() is None and time.monotonic() < until
            assert running, f"RabbitMQ did not start: {(self._folder / 'output').read_text()[-2000:]}"
            time.sleep(0.02)

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def url(self, *, user: str = USER, password: str = PASSWORD, vhost: str = VHOST) -> str:
        return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{self.address}/{quote(vhost, safe='')}"

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[aiormq.abc.AbstractChannel]:
        connection = await aiormq.connect(self.url())
        try:
            yield await connection.channel()
        finally:
            await connection.close()

    async def create(self, exchange: str, kind: str = "fanout") -> None:
        async with self.channel() as channel:
            await channel.exchange_declare(exchange, exchange_type=kind, durable=True)

    async def delete(self, exchange: str) -> None:
        async with self.channel() as channel:
            await channel.exchange_delete(exchange)

    async def send(self, exchange: str, *bodies: bytes, ids: bool = True, key: str = "k") -> None:
        """Send messages with publisher confirms; with ``ids``, each body is also the message id."""
        async with self.channel() as channel:
            for body in bodies:
                about = Basic.Properties(delivery_mode=2, message_id=body.decode()[:100] if ids else None)
                await channel.basic_publish(body, exchange=exchange, routing_key=key, properties=about)

    async def send_routed(self, exchange: str, body: bytes) -> None:
        """Send a message until a queue has taken it. A killed broker may have lost a binding that it confirmed."""
        about = Basic.Properties(delivery_mode=2, message_id=body.decode()[:100])
        async with self.channel() as channel:
            while True:
                try:
                    await channel.basic_publish(
                        body, exchange=exchange, routing_key="k", properties=about, mandatory=True
                    )
                    return
                except aiormq.exceptions.PublishError:  # until the source has bound its queue again
                    await anyio.sleep(0.05)

    async def pour(self, exchange: str, body: bytes, count: int) -> None:
        """Send ``count`` equal messages with ids, without waiting for confirms."""
        connection = await aiormq.connect(self.url())
        channel = await connection.channel(publisher_confirms=False)
        for number in range(count):
            about = Basic.Properties(delivery_mode=2, message_id=str(number))
            await channel.basic_publish(body, exchange=exchange, properties=about)
        await channel.exchange_declare(exchange, passive=True)  # answered only after all messages have arrived
        await connection.close()

    async def ready(self, queue: str) -> int | None:
        """Return the number of messages ready for delivery; None if the queue does not exist."""
        async with self.channel() as channel:
            try:
                return (await channel.queue_declare(queue, passive=True)).message_count
            except aiormq.exceptions.ChannelNotFoundEntity:
                return None

    async def delete_queue(self, name: str) -> None:
        async with self.channel() as channel:
            await channel.queue_delete(name)

    def add_reader(self, user: str) -> None:
        """Add a user with the same password, who may read all, but configure and write only the queues of triggers."""
        name, vhost = (f'<<"{text}">>' for text in (user, VHOST))
        allowed = ", ".join(f'<<"{pattern}">>' for pattern in ("^functiond-", "^functiond-", ".*"))
        made = f'rabbit_auth_backend_internal:add_user({name}, <<"{PASSWORD}">>, {name})'
        granted = f"rabbit_auth_backend_internal:set_permissions({name}, {vhost}, {allowed}, {name})"
        command = [str(PROGRAM.with_name("rabbitmqctl")), "-n", f"functiond{self.port}@localhost", "eval"]
        subprocess.run([*command, f"{made}, {granted}."], env=self._environment(), check=True, capture_output=True)

    def _environment(self) -> dict[str, str]:
        folder = str(self._folder)
        return {
            **os.environ,
            "HOME": folder,
            "RABBITMQ_BASE": folder,
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_NODENAME": f"functiond{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RUNNING_UNDER_SYSTEMD": "1",  # the script execs the server, so that signals reach it
        }

    def _configuration(self) -> str:
        lines = {
            "listeners.tcp.1": self.address,
            "listeners.ssl.1": self.tls_address,
            "ssl_options.certfile": self.ca_file,
            "ssl_options.keyfile": self._folder / "key.pem",
            "default_user": USER,
            "default_pass": PASSWORD,
            "default_vhost": VHOST,
        }
        return "".join(f"{name} = {value}\n" for name, value in lines.items())


@functools.cache
def rabbit_broker() -> Broker:
    """Start the broker; it runs until the end of the test run."""
    program("rabbitmq-server")
    folder = Path(tempfile.mkdtemp(prefix="functiond-rabbit-"))
    broker = Broker(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(broker.kill)
    broker.start()
    return broker


async def started_broker() -> Broker:
    return await anyio.to_thread.run_sync(rabbit_broker)


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
