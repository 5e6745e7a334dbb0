"""Vendor's SDK for SMN, unmodified, with the topics of an engine process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine_process import PROJECT, REGION, engine_on, to, until
from tests.acceptance.sdk import SDK_WARNINGS, refused, sdk_home, send, smn
from tests.acceptance.two_keys import Guarded

#: Waits for a gate file, then appends each received message to a file.
NOTE = """
import os, time
def handler(event, context):
    while not os.path.exists({gate!r}):
        time.sleep(0.01)
    with open({path!r}, 'a') as file:
        for record in event['record']:
            file.write(record['smn']['message'] + chr(10))
"""

pytestmark = SDK_WARNINGS


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Guarded]:
    with sdk_home(tmp_path), engine_on(tmp_path / "data") as engine, ExitStack() as stack:
        yield Guarded(engine=engine, kind=smn.SmnClient, stack=stack)


ask = partial(send, models=smn)


def create(client: Any, name: str) -> str:
    urn: str = ask(client, "CreateTopic", name=name, display_name=f"{name}'s").topic_urn
    return urn


def publish(client: Any, urn: str, message: str) -> Any:
    given = {"subject": "of a test", "message": message, "time_to_live": "3600"}
    return ask(client, "PublishMessage", topic_urn=urn, **given)


def lines(path: Path, least: int) -> list[str]:
    """Wait until functions have recorded at least ``least`` lines; return them."""
    return until(lambda: path.exists() and len(seen := path.read_text().split("\n")[:-1]) >= least and seen)


def test_what_the_sdk_published_runs_once_after_the_engine_was_killed(service: Guarded) -> None:
    gate, path = service.engine.data.parent / "gate", service.engine.data.parent / "noted"
    service.engine.create("note", NOTE.format(gate=str(gate), path=str(path)), strategy_config={"concurrency": 1})
    urn = create(service.client(), "orders")
    told = service.engine.trigger("note", "SMN", {"topic_urn": urn})
    client = service.client()
    published = [publish(client, urn, f"message {number}") for number in range(20)]
    service.engine.kill(
        children=True
    )  # nothing has run yet: the first invocation waits for the gate, the others for its end
    gate.touch()
    service.engine.start()
    noted = lines(path, 20)
    publish(service.client(), urn, "the next")

    assert told["subscription_status"] == "Confirmed"
    assert len({reply.message_id for reply in published} | {reply.request_id for reply in published}) == 40
    assert sorted(noted) == sorted(f"message {number}" for number in range(20))
    assert lines(path, 21)[-1] == "the next"


def test_the_sdk_lists_shows_renames_and_deletes_topics(service: Guarded) -> None:
    client = service.client()
    urns = [create(client, name) for name in ("a", "b", "c")]
    again = create(client, "a")
    ask(client, "UpdateTopic", topic_urn=urns[0], display_name="renamed")
    shown = ask(client, "ListTopicDetails", topic_urn=urns[0])
    page = ask(client, "ListTopics", offset=1, limit=1)
    topics = ask(client, "ListTopics", fuzzy_display_name="name")
    ask(client, "DeleteTopic", topic_urn=urns[1])
    subscriptions = ask(client, "ListSubscriptionsByTopic", topic_urn=urns[0])

    assert urns == [f"urn:smn:{REGION}:{PROJECT}:{name}" for name in ("a", "b", "c")]
    assert (again, shown.name, shown.display_name, shown.topic_urn) == (urns[0], "a", "renamed", urns[0])
    assert (page.topic_count, [topic.name for topic in page.topics]) == (3, ["b"])
    assert ([topic.name for topic in topics.topics], subscriptions.subscription_count) == (["a"], 0)
    with refused(404, "SMN.0006"):
        publish(client, urns[1], "x")
    with refused(400, "SMN.0011"):
        ask(client, "AddSubscription", topic_urn=urns[0], protocol="https", endpoint="https://hooks.example")


def test_a_function_that_calls_itself_by_a_topic_ends_after_a_while(service: Guarded) -> None:
    engine, path = service.engine, service.engine.data.parent / "noted"
    engine.create("again", NOTE.format(gate=str(service.engine.data.parent), path=str(path)))
    urn = create(service.client(), "rounds")
    engine.trigger("again", "SMN", {"topic_urn": urn})
    to_topic = to("SMN", topic_urn=urn)
    engine.configure("again", destination_config={"on_success": to_topic})
    publish(service.client(), urn, "the first")
    given_up = until(lambda: engine.ask("GET", f"/v2/{PROJECT}/fgs/deliveries").json["deliveries"])

    assert len(lines(path, 17)) == 17
    assert "loop" in given_up[0]["error"]
