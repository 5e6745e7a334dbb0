"""Intake of messages that a real broker queued for a trigger while the engine was stopped."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import anyio

from bench.harness import Options, Round, scratch
from bench.intake.source import BATCH_SIZE, TEXT, Listening, Source, Watch, figures, in_records, wait_for_messages
from bench.server import engine

MESSAGES = 20_000


def absent() -> str:
    if not all(find_spec(name) for name in ("aiormq", "cryptography", "pytest")):
        return "install its client with pip install -e '.[dev]'"
    from tests.support.rabbit_broker import PROGRAM

    return "" if Path(PROGRAM).exists() else "install a broker with apt-get install rabbitmq-server"


def measure(options: Options) -> Round:
    from tests.support.rabbit_broker import PASSWORD, USER, VHOST, rabbit_broker

    broker, messages = rabbit_broker(), options.scaled(MESSAGES)
    with scratch(options) as directory:
        exchange = directory.name
        anyio.run(broker.create, exchange)
        login = {"access_user": USER, "access_password": PASSWORD, "vhost": VHOST, "connect_address": broker.address}
        with engine(directory) as server:
            Listening(
                server, "RABBITMQ", {"instance_id": "i", "exchange_name": exchange, "batch_size": BATCH_SIZE, **login}
            )
        anyio.run(broker.pour, exchange, TEXT.encode(), messages)
        with engine(directory, profile=options.profile) as server:
            watch = Watch(server)
            wait_for_messages(directory, messages, in_records)
            return watch.figures("rabbitmq", messages)


SOURCE = Source(description="messages of RabbitMQ", figures=figures("rabbitmq"), measure=measure, absent=absent)
