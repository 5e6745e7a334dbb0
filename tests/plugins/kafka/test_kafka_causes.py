"""Causes of Kafka's problems, as the state of a trigger and the error of a delivery show them. No broker is needed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from plugins.kafka import plugin
from plugins.kafka.client import RECENT, Causes, library, named_causes
from tests.plugins.kafka.test_kafka import OUTCOME, deliver
from tests.support.kafka_script import scripted_broker
from tests.support.ports import free_port
from tests.support.triggering import house, until

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
