"""Errors of the destination KAFKA: each names the topic or cluster, and none floods the log or the cluster."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from plugins.kafka import destination, plugin
from plugins.kafka.client import RECENT, Causes, library, named_causes
from tests.plugins.kafka.test_kafka import OUTCOME, deliver
from tests.support import kafka_script as script
from tests.support.certificates import write_certificate
from tests.support.kafka_peer import kafka_peer
from tests.support.kafka_script import ScriptedBroker, scripted_broker, server_tls
from tests.support.ports import free_port
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


REFUSED = "Authentication failed: wrong password for user reader"


async def problem_of(folder: Path, **options: Any) -> str:
    """Return the problem of a trigger with these options."""
    async with house(folder, [plugin]) as place:
        trigger = await place.create("KAFKA", instance_id="i", topic_ids=["t"], batch_size=1, **options)
        await place.update(trigger, status="ACTIVE")
        await until(lambda: bool(place.state(trigger).problem))
        return place.state(trigger).problem


@pytest.mark.parametrize(
    ("address", "text"), [("127.0.0.1:9", "Connect call failed"), ("broker.invalid:9092", "broker.invalid")]
)
async def test_a_trigger_names_a_broker_that_is_down_or_whose_host_is_unknown(
    tmp_path: Path, address: str, text: str
) -> None:
    problem = await problem_of(tmp_path, kafka_connect_address=address)

    assert address in problem
    assert text in problem
    assert "Unable to bootstrap" not in problem


async def test_a_trigger_names_a_wrong_password_and_does_not_show_it(tmp_path: Path) -> None:
    async with scripted_broker() as broker:
        broker.refusal = REFUSED
        login = {"kafka_user": "reader", "kafka_password": "not-the-password"}
        problem = await problem_of(tmp_path, kafka_connect_address=broker.address, **login)

    assert REFUSED in problem
    assert "not-the-password" not in problem


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
        with pytest.raises(ConnectionError, match=r"cannot connect to the cluster.*Connect call failed"):
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
