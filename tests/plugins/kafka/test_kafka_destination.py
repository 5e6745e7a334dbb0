"""Errors of the destination KAFKA: each names the topic or cluster, and none floods the log or the cluster."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from plugins.kafka import destination, plugin
from plugins.kafka.client import library
from tests.plugins.kafka.test_kafka import OUTCOME, deliver
from tests.support import kafka_script as script
from tests.support.certificates import write_certificate
from tests.support.kafka_peer import kafka_peer
from tests.support.kafka_script import ScriptedBroker, scripted_broker, server_tls
from tests.support.triggering import House, house, until

RECORD = OUTCOME % b"x"


@asynccontextmanager
async def sending(
    folder: Path, server: ssl.SSLContext | None = None, /, **settings: Any
) -> AsyncIterator[tuple[House, ScriptedBroker]]:
    """Run an engine with the scripted broker, whose side of TLS is ``server``, as the cluster ``i``."""
    async with scripted_broker(server) as broker:
        named = {"address": broker.address, **settings}
        cluster = {f"plugins__kafka__instances__i__{name}": value for name, value in named.items()}
        async with house(folder / "data", [plugin], **cluster) as place:
            yield place, broker


class Lines(logging.Handler):
    """Handler of the engine's log, which keeps the lines of the client library."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("aiokafka"):
            self.texts.append(record.getMessage())


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the lines of the client library that the engine logs from now on."""
    library()
    monkeypatch.setattr("plugins.kafka.client._HANDLER._until", 0.0)
    handler = Lines()
    logging.getLogger().addHandler(handler)
    yield handler.texts
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (script.UNKNOWN_TOPIC, "there is no topic orders at i"),
        (script.TOPIC_REFUSED, "the login may not see topic orders"),
        (script.INVALID_TOPIC, "'orders' is not a valid name of a topic"),
    ],
)
async def test_a_topic_that_the_cluster_does_not_show_is_named_after_few_requests(
    tmp_path: Path, lines: list[str], code: int, text: str
) -> None:
    async with sending(tmp_path) as (place, broker):
        broker.topic = code
        for _ in range(3):
            with pytest.raises(LookupError, match=text):
                await deliver(place, "orders", RECORD)

        assert broker.asked[script.METADATA] <= 2 + 3
        assert len(lines) <= 1


async def test_a_topic_that_the_login_may_see_and_not_write_is_named(tmp_path: Path) -> None:
    async with sending(tmp_path) as (place, broker):
        broker.produce = script.TOPIC_REFUSED
        with pytest.raises(ConnectionError, match=r"topic orders of the cluster i: .*client is not authorized"):
            await deliver(place, "orders", RECORD)


async def test_a_topic_removed_under_an_open_client_is_named_without_a_flood(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination, "CONFIRMED", 1.0)
    async with sending(tmp_path) as (place, broker):
        await deliver(place, "orders", RECORD)
        before = broker.asked.total()
        broker.topic = broker.produce = script.UNKNOWN_TOPIC
        with pytest.raises(ConnectionError, match="topic orders of the cluster i: the record was not confirmed"):
            await deliver(place, "orders", RECORD)
        after = broker.asked.total()
        with pytest.raises(LookupError, match="there is no topic orders at i"):
            await deliver(place, "orders", RECORD)
        await anyio.sleep(0.5)

        assert after - before <= 100
        assert broker.asked.total() - after <= 8
        assert len(lines) <= 4

        broker.topic = broker.produce = script.OK
        await deliver(place, "orders", RECORD)

        assert len(broker.values) == 2


async def test_a_failed_record_breaks_no_delivery_beside_it(tmp_path: Path) -> None:
    async with sending(tmp_path) as (place, broker):
        await deliver(place, "orders", RECORD)
        broker.refused = {"closed"}
        broker.gates[script.PRODUCE].clear()

        async def fail() -> None:
            with pytest.raises(ConnectionError, match="topic closed"):
                await deliver(place, "closed", RECORD)
            broker.gates[script.METADATA].set()

        async with anyio.create_task_group() as tasks:
            asked = broker.asked[script.PRODUCE]
            tasks.start_soon(fail)
            await until(lambda: broker.asked[script.PRODUCE] > asked)
            broker.gates[script.METADATA].clear()
            asked = broker.asked[script.METADATA]
            tasks.start_soon(deliver, place, "beside", RECORD)  # waits for the broker, by the client of the other
            await until(lambda: broker.asked[script.METADATA] > asked)
            broker.gates[script.PRODUCE].set()

        await deliver(place, "orders", RECORD)
        assert len(broker.values) == 3
        assert broker.asked[script.INIT_PRODUCER] == 2


async def test_a_withdrawn_login_is_the_cause_that_a_delivery_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destination, "CONFIRMED", 3.0)
    async with sending(tmp_path, user="u", password="p") as (place, broker):
        await deliver(place, "orders", RECORD)
        broker.refusal = "the login was withdrawn"
        broker.disconnect()
        await anyio.sleep(0.2)  # the client has looked for the cluster, in vain
        for text in ("topic orders of the cluster i", "cannot connect to the cluster"):
            with pytest.raises(ConnectionError, match=rf"{text}: .*the login was withdrawn"):
                await deliver(place, "orders", RECORD)
        broker.refusal = ""
        await deliver(place, "orders", RECORD)


@pytest.mark.parametrize(("refused", "number"), [(script.OK, 7), (script.CLUSTER_REFUSED, -1), (-1, -1)])
async def test_records_have_the_number_of_an_idempotent_producer_unless_the_cluster_refuses_it(
    tmp_path: Path, refused: int, number: int
) -> None:
    async with sending(tmp_path) as (place, broker):
        broker.init_producer = refused
        await deliver(place, "orders", RECORD)
        [batch] = broker.values

        assert int.from_bytes(batch[43:51], "big", signed=True) == number


def client_tls(folder: Path) -> dict[str, Any]:
    return {"tls": True, "ca_file": str(folder / "cert.pem")}


@pytest.mark.parametrize(
    ("server", "client", "text"),
    [
        (None, client_tls, "check whether the port speaks TLS"),
        (ssl.CERT_NONE, lambda folder: {}, "check whether the port speaks TLS"),
        (ssl.CERT_REQUIRED, client_tls, "which client certificate it needs"),
    ],
)
async def test_a_connection_that_the_cluster_closes_has_a_likely_cause(
    tmp_path: Path, server: ssl.VerifyMode | None, client: Callable[[Path], dict[str, Any]], text: str
) -> None:
    write_certificate(tmp_path)
    tls = None if server is None else server_tls(tmp_path, server)
    async with sending(tmp_path, tls, **client(tmp_path)) as (place, broker):
        with pytest.raises(ConnectionError, match=text) as caught:
            await deliver(place, "orders", RECORD)

    assert broker.address in str(caught.value)


async def test_a_client_with_a_certificate_delivers(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    files = {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem"), **client_tls(tmp_path)}
    async with sending(tmp_path, server_tls(tmp_path, ssl.CERT_REQUIRED), **files) as (place, broker):
        await deliver(place, "orders", RECORD)

        assert len(broker.values) == 1


def test_the_client_library_logs_a_cause_once_a_minute(lines: list[str]) -> None:
    logger = logging.getLogger("aiokafka.some.part")
    for number in range(1000):
        logger.error("Topic %s not found", "orders")
        logger.error("Record %s is broken", number)

    assert lines.count("Topic orders not found") == 1
    assert len(lines) == 1 + 1


async def test_a_record_whose_confirmation_is_lost_is_stored_once(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    async with kafka_peer(tmp_path / "broker") as peer:
        await peer.create("orders")
        place: dict[str, Any] = {"plugins__kafka__instances__i__address": peer.address}
        async with house(tmp_path / "data", [plugin], **place) as running:
            await deliver(running, "orders", RECORD)
            producers: Any = running.engine.plugins.context_for("KAFKA").service
            client, lost = producers._clients["i"]._lease.client.client, list[Any]()
            send = client.send

            async def lose_one(node: int, request: Any, **more: Any) -> Any:
                reply = await send(node, request, **more)
                if type(request).__name__ == "ProduceRequest" and not lost:
                    lost.append(reply)
                    raise library().errors.RequestTimedOutError
                return reply

            client.send = lose_one
            await deliver(running, "orders", RECORD)
            await deliver(running, "orders", RECORD)

        assert len(lost) == 1
        await peer.send("orders", b"last")
        assert [record.value for record in await peer.records("orders", 4)] == [RECORD, RECORD, RECORD, b"last"]
