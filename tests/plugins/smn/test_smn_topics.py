"""Topics of the engine itself: their API, and the functions that their messages call."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import msgspec
import pytest
from anyio.abc import TaskStatus
from msgspec import Struct

from engine import Plugin, PluginContext
from engine.app.api_wiring import build_apps
from engine.asgi.listener import listen
from engine.code.store import CodeSource
from engine.model import DestinationSpec, Record, State
from engine.model.urn import parse_urn
from engine.protocols import Selection
from engine.resources.bound_trigger import BoundTrigger
from engine.resources.triggers import TriggerDraft
from plugins._shared.rows import rows_of
from plugins.smn import plugin as smn
from plugins.smn.destination import SmnDestination, SmnParam
from plugins.smn.problems import SmnProblem
from plugins.smn.topics import SUBSCRIPTIONS
from tests.doubles import ManualClock
from tests.plugins import delivering
from tests.support.http_app import PROJECT, REGION, SOURCE, encoded
from tests.support.storages import ended
from tests.support.triggering import HELD, URN, House, NeverStarts, api_client, house, until

TOPIC = f"urn:smn:{REGION}:{PROJECT}:orders"
HELLO_ID, OTHER_ID = 1, 2
LEVEL = [{"name": "level", "type": "STRING", "value": "high"}]
MOMENT = 1_772_346_600.0  # 2026-03-01T06:30:00Z


class Scene(Struct, kw_only=True):
    place: House
    client: httpx.AsyncClient

    async def ask(self, method: str, path: str, body: Any = None, project: str = PROJECT, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        path = f"/v2/{project}/notifications/{path}"
        return await self.client.request(method, path, json=body, headers=named)

    async def publish(self, message: str = "paid", **more: Any) -> httpx.Response:
        reply: httpx.Response = await self.ask("POST", f"topics/{TOPIC}/publish", {"message": message, **more})
        return reply

    async def trigger(self, function: str = "hello", topic: str = TOPIC) -> BoundTrigger:
        urn = parse_urn(function, region=REGION, project=PROJECT)
        draft = TriggerDraft(kind="SMN", data={"topic_urn": topic})
        trigger = await self.place.engine.resources.triggers.create(urn, draft)
        await until(lambda: self.place.state(trigger).state == "running")
        return trigger

    async def messages(self) -> list[str]:
        return [record["smn"]["message"] for event in await self.place.events() for record in event["record"]]

    async def record(self, function_id: int) -> Record:
        """Return the only record of this function."""
        selection = Selection(function_id=function_id, states=frozenset(State))
        [stored], _ = await self.place.engine.storage.records.list(selection)
        return stored

    async def ended(self, function_id: int) -> Record:
        await self.place.engine.dispatcher.ended((await self.record(function_id)).key, None)
        return await self.record(function_id)


@asynccontextmanager
async def scene(folder: Path, plugin: Plugin = smn, **more: Any) -> AsyncIterator[Scene]:
    """Open an engine with the topic ``orders`` and any trigger of an earlier engine on this folder."""
    async with house(folder, [plugin], **more) as place, api_client(place) as client:
        made = Scene(place=place, client=client)
        await made.ask("POST", "topics", {"name": "orders"})
        yield made


async def another_function(place: House) -> None:
    hello = place.engine.catalog.route(place.urn)
    other = msgspec.structs.replace(hello, function_id=0, name="other")
    await place.engine.catalog.create(other, CodeSource(kind="inline", file=encoded(SOURCE)))


async def test_an_event_is_as_documented(tmp_path: Path) -> None:
    async with scene(tmp_path, clock=ManualClock(MOMENT)) as it:
        await it.trigger()
        attribute = {"name": "level", "type": "STRING", "value": "high"}
        reply = await it.publish('{"order": 7}', subject="order 7", message_attributes=[attribute])
        [event] = await it.place.events()

    assert (reply.status_code, reply.json().keys()) == (200, {"request_id", "message_id"})
    request_id = event.pop("requestId")
    assert len(request_id) == 36
    assert event == {
        "record": [
            {
                "event_version": "1.0",
                "event_source": "smn",
                "event_subscription_urn": URN,
                "smn": {
                    "topic_urn": TOPIC,
                    "timestamp": "2026-03-01T06:30:00Z",
                    "message_attributes": {"level": {"type": "STRING", "value": "high"}},
                    "message": '{"order": 7}',
                    "type": "notification",
                    "message_id": reply.json()["message_id"],
                    "subject": "order 7",
                },
            }
        ],
        "functionname": "hello",
        "timestamp": "Sun Mar 01 2026 06:30:00 GMT+0000 (UTC)",
    }


async def test_a_message_calls_every_function_of_its_topic_or_none(tmp_path: Path) -> None:
    async with scene(tmp_path, queue__function_rows=1) as it:
        await another_function(it.place)
        await it.ask("POST", "topics", {"name": "narrow"})
        for function in ("other", "hello"):
            await it.trigger(function)
        await it.trigger("hello", TOPIC.replace("orders", "narrow"))
        await it.ask("POST", f"topics/{TOPIC.replace('orders', 'narrow')}/publish", {"message": "fills hello"})

        refused = await it.publish("too much")
        rows = it.place.engine.backlog.rows
        [first] = await it.place.keys()
        await it.place.engine.dispatcher.cancel(first)
        taken = await it.publish("fits")

        assert (refused.status_code, int(refused.headers["retry-after"]) > 0, rows) == (429, True, 1)
        assert (taken.status_code, it.place.engine.backlog.rows) == (200, 2)


async def test_a_function_that_is_switched_off_gets_its_message_when_it_is_on_again_and_holds_up_no_other(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as it:
        await another_function(it.place)
        for function in ("other", "hello"):
            await it.trigger(function)
        await it.place.engine.catalog.limit(it.place.urn, 0)
        reply = await it.publish("for both")
        it.place.engine.scheduler.resume(HELD)
        ran = await it.ended(OTHER_ID)
        waiting = await it.record(HELLO_ID)
        await it.place.engine.catalog.limit(it.place.urn, 1)
        late = await it.ended(HELLO_ID)

        assert (reply.status_code, ran.state, waiting.state) == (200, State.SUCCESS, State.WAIT)
        assert (late.key, late.state) == (waiting.key, State.SUCCESS)


async def test_a_trigger_gets_messages_from_when_it_is_stored_and_whether_its_source_runs_or_not(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, plugin=msgspec.structs.replace(smn, trigger=NeverStarts)) as one:
        trigger = await one.place.create("SMN", topic_urn=TOPIC.replace("orders", "others"))
        await one.publish("not for it")
        await one.place.update(trigger, topic_urn=TOPIC)
        await one.publish("while it starts")
        await one.place.delete(trigger)
        await one.publish("late")

        assert await one.messages() == ["while it starts"]


async def test_a_publication_that_is_sent_again_calls_once_and_another_with_its_key_nobody(tmp_path: Path) -> None:
    clock = ManualClock(MOMENT)
    async with scene(tmp_path, clock=clock) as one:
        await one.trigger()
        path, body = f"topics/{TOPIC}/publish", {"message": "paid"}
        first = await one.ask("POST", path, body, Idempotency_Key="a")
        clock.advance(5)
        again = await one.ask("POST", path, body, Idempotency_Key="a")
        other = await one.ask("POST", path, body, Idempotency_Key="b")

        await another_function(one.place)
        await one.trigger("other")
        for change in ({"message": "lost"}, {"subject": "lost"}, {"message_attributes": LEVEL}):
            refused = await one.ask("POST", path, {**body, **change}, Idempotency_Key="a")
            assert (refused.status_code, "Idempotency-Key 'a'" in refused.text) == (409, True)

        assert first.json()["message_id"] == again.json()["message_id"] != other.json()["message_id"]
        assert await one.messages() == ["paid", "paid"]


async def test_a_key_ends_with_its_topic(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.trigger()
        path, ids = f"topics/{TOPIC}/publish", list[str]()
        for message in ("before", "after"):
            reply = await it.ask("POST", path, {"message": message}, Idempotency_Key="a")
            ids.append(reply.json()["message_id"])
            await it.ask("DELETE", f"topics/{TOPIC}")
            await it.ask("POST", "topics", {"name": "orders"})

        assert await it.messages() == ["before", "after"]
        assert ids[0] != ids[1]


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        ({"message": "a", "message_structure": '{"default": "b", "email": "c"}'}, ["b"]),
        ({"message_structure": '{"default": "b", "functionstage": "c"}'}, ["c"]),
        ({"message": "a", "message_attributes": [{"name": "p", "type": "PROTOCOL", "value": ["email"]}]}, []),
        (
            {"message": "a", "message_attributes": [{"name": "p", "type": "PROTOCOL", "value": ["functionstage"]}]},
            ["a"],
        ),
        ({"message": "a", "time_to_live": "60", "tags": {"a": "b"}}, ["a"]),
    ],
)
async def test_functions_get_what_is_for_functions(tmp_path: Path, body: dict[str, Any], messages: list[str]) -> None:
    async with scene(tmp_path) as it:
        await it.trigger()

        reply = await it.ask("POST", f"topics/{TOPIC}/publish", body)

        assert (reply.status_code, await it.messages()) == (200, messages)


PUBLISH = f"topics/{TOPIC}/publish"
REFUSED: list[tuple[str, str, Any, int, str]] = [
    ("POST", "topics", {"name": "-x"}, 400, "SMN.0002"),
    ("POST", "topics", [], 400, "SMN.0002"),
    ("PUT", f"topics/{TOPIC}", {"display_name": "x" * 193}, 400, "SMN.0003"),
    ("GET", "topics/orders", None, 400, "SMN.0005"),
    ("GET", f"topics/{TOPIC}s", None, 404, "SMN.0006"),
    ("GET", f"topics/urn:smn:{REGION}:theirs:orders", None, 404, "SMN.0006"),
    ("GET", "topics?limit=0", None, 400, "SMN.0015"),
    ("POST", PUBLISH, {}, 403, "SMN.0009"),
    ("POST", PUBLISH, {"message": "ü" * (128 << 10 | 1)}, 403, "SMN.0009"),
    ("POST", PUBLISH, {"message": "a", "subject": "ü" * 257}, 403, "SMN.0008"),
    ("POST", PUBLISH, {"message_structure": '{"email": "a"}'}, 400, "SMN.0021"),
    ("POST", PUBLISH, {"message": "a", "message_template_name": "t"}, 400, "SMN.0032"),
    ("POST", PUBLISH, {"message": "a", "time_to_live": "86401"}, 400, "SMN.0005"),
    ("POST", f"topics/{TOPIC}/subscriptions", {"protocol": "http", "endpoint": "http://a"}, 400, "SMN.0011"),
    ("POST", f"topics/{TOPIC}/subscriptions", {"protocol": "functiongraph"}, 400, "SMN.0011"),
    ("DELETE", "subscriptions/x", None, 404, "SMN.0014"),
    ("GET", "message_template", None, 404, "SMN.0001"),
]


async def test_what_topics_cannot_do_is_refused_as_by_the_vendor(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.trigger()
        replies = [await it.ask(method, path, body) for method, path, body, _, _ in REFUSED]

        assert [(reply.status_code, reply.json()["code"]) for reply in replies] == [row[3:] for row in REFUSED]
        assert all(reply.json().keys() == {"request_id", "code", "message"} for reply in replies)
        assert await it.messages() == []


async def test_topics_outlive_the_engine_and_are_their_projects_own(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.trigger()
        shown = (await it.ask("GET", f"topics/{TOPIC}")).json()
        theirs = await it.ask("POST", "topics", {"name": "orders"}, project="theirs")
        own = theirs.json()["topic_urn"]
        await it.trigger(topic=own)
        await it.ask("POST", f"topics/{own}/publish", {"message": "not for us"}, project="theirs")
    async with scene(tmp_path) as it:
        again = await it.ask("POST", "topics", {"name": "orders"})
        kept = (await it.ask("GET", f"topics/{TOPIC}")).json()
        elsewhere = TOPIC.replace(REGION, "cn-north-4")
        await it.ask("POST", f"topics/{elsewhere}/publish", {"message": "from any region"})

        assert (theirs.status_code, again.status_code) == (201, 200)
        assert {**kept, "request_id": ""} == {**shown, "request_id": ""}
        assert await it.messages() == ["from any region"]


async def test_the_trigger_tells_whether_its_subscription_is_confirmed(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        own, other = await it.trigger(), await it.trigger(topic="urn:smn:cn-north-4:abc:orders")
        reply = await it.client.get(f"/v2/{PROJECT}/fgs/triggers/{URN}")
        listed = (await it.ask("GET", f"topics/{TOPIC}/subscriptions")).json()
        told = {trigger["trigger_id"]: trigger for trigger in reply.json()}

        assert told[own.id]["event_data"] == {"topic_urn": TOPIC}
        assert (told[own.id]["path"], told[own.id]["subscription_status"]) == (f"/triggers/smn/{own.id}", "Confirmed")
        assert told[other.id]["subscription_status"] == "Unconfirmed"
        assert [
            (subscription["protocol"], subscription["endpoint"], subscription["status"])
            for subscription in listed["subscriptions"]
        ] == [("functionstage", URN, 1)]


@pytest.mark.parametrize("protocol", ["functionstage", "functiongraph"])
async def test_a_subscription_of_a_function_is_a_trigger(tmp_path: Path, protocol: str) -> None:
    subscription = {"protocol": protocol, "endpoint": URN.removesuffix(":latest")}
    async with scene(tmp_path) as it:
        made, again = [await it.ask("POST", f"topics/{TOPIC}/subscriptions", subscription) for _ in range(2)]
        unknown = await it.ask("POST", f"topics/{TOPIC}/subscriptions", {**subscription, "endpoint": f"{URN[:-6]}s"})
        await it.publish("first")
    async with scene(tmp_path) as it:
        await it.publish("second")
        named = made.json()["subscription_urn"]
        listed = [
            (await it.ask("GET", f"subscriptions?protocol={name}")).json() for name in (protocol, "http", "functions")
        ]
        messages, removed = await it.messages(), await it.ask("DELETE", f"subscriptions/{named}")
        await it.publish("third")
        rows = [row async for row in rows_of(it.place.engine.storage.store(smn.table), SUBSCRIPTIONS)]

        assert (made.status_code, again.json()["subscription_urn"], unknown.status_code) == (201, named, 404)
        assert [page["subscription_count"] for page in listed] == [1, 0, 0]
        [shown] = listed[0]["subscriptions"]
        assert (shown["protocol"], shown["endpoint"], shown["subscription_urn"]) == (protocol, URN, named)
        assert (messages, removed.status_code, await it.messages(), rows) == (["first", "second"], 200, messages, [])


async def test_a_topic_that_is_deleted_calls_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.trigger()
        await it.ask("DELETE", f"topics/{TOPIC}")
        refused = await it.publish()
    async with scene(tmp_path) as it:  # creates the topic again
        taken = await it.publish("again")

        assert (refused.status_code, taken.status_code, await it.messages()) == (404, 200, ["again"])


OUTCOMES = f"urn:smn:{REGION}:{PROJECT}:outcomes"
RECORD = json.dumps({"request_context": {"request_id": "id", "function_urn": URN}}).encode()


async def deliver(place: House, topic: str = OUTCOMES) -> None:
    await delivering.deliver(place, "SMN", SmnDestination(SmnParam(topic_urn=topic)), RECORD)


async def listening(place: House, client: httpx.AsyncClient, project: str = PROJECT) -> None:
    await client.post(f"/v2/{project}/notifications/topics", json={"name": "outcomes"})
    trigger = await place.create("SMN", topic_urn=OUTCOMES)
    await until(lambda: place.state(trigger).state == "running")


async def test_an_outcome_that_is_delivered_twice_is_one_message(tmp_path: Path) -> None:
    async with house(tmp_path, [smn]) as place, api_client(place) as client:
        await listening(place, client)
        await deliver(place)
        await deliver(place)
        [event] = await place.events()

        assert event["record"][0]["smn"]["message"] == RECORD.decode()
        assert event["record"][0]["smn"]["subject"] == f"success of {URN}"


class Slow:
    """Service that takes 0.3 seconds to start."""

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        await anyio.sleep(0.3)
        task_status.started()
        await anyio.sleep_forever()


async def test_pending_deliveries_of_the_last_engine_are_made_once_the_triggers_listen(tmp_path: Path) -> None:
    slow = Plugin(kinds=("SLOW",), serve=lambda settings: Slow())
    async with house(tmp_path, [smn]) as place, api_client(place) as client:
        await listening(place, client)
        await ended(
            place.engine.storage,
            deliver_to=DestinationSpec(destination="SMN", param=json.dumps({"topic_urn": OUTCOMES})),
        )
    async with house(tmp_path, [smn, slow]) as place:
        await until(lambda: place.engine.delivery.statistics().delivered == 1)
        _, event = await place.events()

        assert event["record"][0]["smn"]["subject"] == f"success of {URN}"


async def test_what_cannot_be_delivered_says_why(tmp_path: Path) -> None:
    async with house(tmp_path, [smn]) as place:
        with pytest.raises(SmnProblem, match=r"SMN\.0006 Topic not found"):
            await deliver(place)
        with pytest.raises(SmnProblem, match=r"SMN\.0005"):
            await deliver(place, "outcomes")


async def test_an_outcome_goes_to_a_topic_elsewhere_where_it_is_one_message_as_well(tmp_path: Path) -> None:
    async with house(tmp_path / "there", [smn]) as there, api_client(there) as client:
        await listening(there, client)
        elsewhere: dict[str, Any] = {
            "plugins__smn__endpoint": str(client.base_url).rstrip("/"),
            "plugins__smn__project_id": PROJECT,
            "plugins__smn__access_key": "AK",
            "plugins__smn__secret_key": "SK",
        }
        async with house(tmp_path / "here", [smn], **elsewhere) as here:
            async with listen(build_apps(here.engine)[0], "127.0.0.1", 0) as port:
                own = await client.get(f"http://127.0.0.1:{port}/v2/{PROJECT}/notifications/topics")
            await deliver(here)
            await deliver(here)
            with pytest.raises(ConnectionError, match=r"404.*SMN\.0006"):
                await deliver(here, f"{OUTCOMES}s")
        [event] = await there.events()

        assert event["record"][0]["smn"]["message"] == RECORD.decode()
        assert own.status_code == 404  # with an endpoint, the engine serves no topics itself
