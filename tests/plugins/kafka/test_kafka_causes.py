"""Causes of Kafka's problems, as the state of a trigger and the error of a delivery show them. No broker is needed."""

from __future__ import annotations

import logging
import ssl
import struct
from asyncio import IncompleteReadError, StreamReader, StreamWriter, start_server
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from plugins.kafka import plugin
from plugins.kafka.client import RECENT, Causes, library, named_causes
from tests.plugins.kafka.test_kafka import OUTCOME, deliver
from tests.support.certificates import write_certificate
from tests.support.kafka_script import scripted_broker, server_tls
from tests.support.ports import free_port
from tests.support.triggering import house, until

API_VERSIONS, HANDSHAKE, AUTHENTICATE = 18, 17, 36
REFUSED = b"Authentication failed: wrong password for user reader"


async def problem_of(folder: Path, **options: Any) -> str:
    """Return the problem of a trigger with these options."""
    async with house(folder, [plugin]) as place:
        trigger = await place.create("KAFKA", instance_id="i", topic_ids=["t"], batch_size=1, **options)
        await place.update(trigger, status="ACTIVE")
        await until(lambda: bool(place.state(trigger).problem))
        return place.state(trigger).problem


async def refuse_passwords(reader: StreamReader, writer: StreamWriter) -> None:
    """Speak Kafka up to the login, as a broker that knows another password."""
    try:
        while True:
            request = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
            api, _, correlation = struct.unpack(">hhi", request[:8])
            text = struct.pack(">h", len(REFUSED)) + REFUSED
            answer = {
                API_VERSIONS: struct.pack(
                    ">hi" + "hhh" * 3, 0, 3, API_VERSIONS, 0, 0, HANDSHAKE, 0, 1, AUTHENTICATE, 0, 0
                ),
                HANDSHAKE: struct.pack(">hih", 0, 1, len(b"PLAIN")) + b"PLAIN",
                AUTHENTICATE: struct.pack(">h", 58) + text + struct.pack(">i", 0),
            }[api]
            body = struct.pack(">i", correlation) + answer
            writer.write(struct.pack(">i", len(body)) + body)
    except IncompleteReadError:
        writer.close()


@asynccontextmanager
async def strict_broker() -> AsyncIterator[str]:
    server = await start_server(refuse_passwords, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_trigger_names_a_broker_that_is_down(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"

    problem = await problem_of(tmp_path, kafka_connect_address=address)

    assert address in problem
    assert "Connect call failed" in problem


async def test_a_trigger_names_an_unknown_host(tmp_path: Path) -> None:
    problem = await problem_of(tmp_path, kafka_connect_address="broker.invalid:9092")

    assert "broker.invalid" in problem
    assert "Unable to bootstrap" not in problem


async def test_a_trigger_names_a_wrong_password_and_does_not_show_it(tmp_path: Path) -> None:
    async with strict_broker() as address:
        login = {"kafka_user": "reader", "kafka_password": "not-the-password"}
        problem = await problem_of(tmp_path, kafka_connect_address=address, **login)

    assert REFUSED.decode() in problem
    assert "not-the-password" not in problem


async def test_a_trigger_without_the_certificate_that_the_cluster_needs_names_it(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    tls = {"kafka_ssl_enable": True, "kafka_ca": (tmp_path / "cert.pem").read_text()}
    async with scripted_broker(server_tls(tmp_path, ssl.CERT_REQUIRED)) as broker:
        problem = await problem_of(tmp_path / "data", kafka_connect_address=broker.address, **tls)

    assert "which client certificate it needs" in problem


def test_an_error_of_the_library_has_the_cause_that_its_client_has_logged() -> None:
    logger, errors = logging.getLogger("aiokafka"), library().errors

    def fail() -> None:
        with named_causes():
            logger.error('Unable connect to "a:1": %s', "the login was withdrawn")
            logger.error("Unable to update metadata from %s", [1])
            raise errors.NodeNotReadyError("node 1")

    with pytest.raises(ConnectionError, match=r"NodeNotReadyError.*the login was withdrawn"):
        fail()


async def test_a_delivery_names_a_broker_that_is_down(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with house(tmp_path, [plugin], plugins__kafka__instances__i__address=address) as place:
        with pytest.raises(ConnectionError, match="Connect call failed"):
            await deliver(place, "t", OUTCOME % b"x")


def test_an_old_cause_is_not_that_of_a_new_error(monkeypatch: pytest.MonkeyPatch) -> None:
    causes, now = Causes(), 100.0
    monkeypatch.setattr("plugins.kafka.client.time.monotonic", lambda: now)
    causes.note("the broker is down")
    recent = causes.added_to("no reply")
    now += RECENT + 1

    assert recent == "no reply: the broker is down"
    assert causes.added_to("no reply") == "no reply"


async def test_errors_of_one_client_are_not_causes_of_another() -> None:
    problems: list[str] = []
    library()  # listens to the log of the client library

    async def fail(text: str, logs: bool, turn: anyio.Event, then: anyio.Event) -> None:
        try:
            with named_causes():
                await turn.wait()
                if logs:
                    logging.getLogger("aiokafka.client").error("Unable to connect for %s", text)
                then.set()
                await anyio.lowlevel.checkpoint()
                raise ConnectionError(text)
        except ConnectionError as error:
            problems.append(str(error))

    first, second, last = anyio.Event(), anyio.Event(), anyio.Event()
    first.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fail, "one", True, first, second)
        tasks.start_soon(fail, "two", False, second, last)

    assert sorted(problems) == ["one: Unable to connect for one", "two"]
