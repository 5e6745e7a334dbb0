"""Notifications of object stores: parsing per kind, authorisation of senders, and events for functions."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from engine import InvalidField, PushRequest, Reply
from engine.asgi.listener import listen
from engine.triggers.routes import Mounts, PluginRoutes
from plugins.obs import plugin as obs
from plugins.obs.notifications import Confirmation, read_notification
from plugins.obs.records import ObjectEvent, event_json
from plugins.obs.service import has_token
from tests.support.triggering import House, api_client, house, until

TIME = "2026-03-01T06:30:00.123Z"
SUBSCRIBE = "http://topics.example/confirm"


def record(key: str, source: str = "aws:s3", name: str = "ObjectCreated:Put", **more: Any) -> dict[str, Any]:
    place = {"bucket": {"name": "photos"}, "object": {"key": key, "size": 3, "sequencer": "0A"}}
    return {"eventSource": source, "eventName": name, "eventTime": TIME, "s3": place, **more}


def body(*records: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({**more, "Records": records}).encode()


def read(content: bytes) -> list[ObjectEvent]:
    told = read_notification(content)
    assert isinstance(told, list)
    return told


@pytest.mark.parametrize(
    ("written", "source", "key"),
    [
        ("in%2Fa+b.csv", "minio:s3", "in/a b.csv"),
        ("in/a+b.csv", "aws:s3", "in/a b.csv"),
        ("in/a%20b.csv", "aws:s3", "in/a b.csv"),
        ("in/a%2Bb%25.csv", "aws:s3", "in/a+b%.csv"),
        ("in/a b.csv", "ceph:s3", "in/a b.csv"),
        ("in/a+b%20.csv", "ceph:s3", "in/a+b%20.csv"),
        ("in/a b+%20.csv", "", "in/a b+%20.csv"),
        ("in/%FF.csv", "aws:s3", "in/%FF.csv"),
        ("in/100%.csv", "aws:s3", "in/100%.csv"),
        ("in%2F%C3%BC.csv", "aws:s3", "in/ü.csv"),
    ],
)
def test_a_key_is_read_however_it_is_encoded(written: str, source: str, key: str) -> None:
    [happening] = read(body(record(written, source)))

    assert happening.key == key


def test_a_record_may_come_in_the_message_of_a_topic() -> None:
    plain = body(record("a", name="s3:ObjectCreated:Copy"), EventName="s3:ObjectCreated:Copy", Key="photos/a")
    sns = json.dumps({"Type": "Notification", "MessageId": "1", "Message": plain.decode()}).encode()
    smn = json.dumps({"type": "Notification", "message_id": "1", "message": plain.decode()}).encode()

    assert read(plain) == read(sns) == read(smn)
    assert read(plain)[0].event == "ObjectCreated:Copy"


def test_the_same_record_has_the_same_id_and_another_another() -> None:
    first, again, other = read(body(record("a"), record("a"), record("b")))

    assert first.id == again.id != other.id


@pytest.mark.parametrize("content", [b'{"Service":"Amazon S3","Event":"s3:TestEvent"}', b'{"Records":[]}'])
def test_a_test_message_tells_nothing(content: bytes) -> None:
    assert read_notification(content) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"Records":1}',
        body({}),
        body({"eventName": "x", "s3": {}}),
        body(record("a", eventTime="soon")),
        body(record("a", eventTime=7)),
        body(record("a", eventTime="9999-12-31T23:59:59-23:59")),
        b'{"Type":"Notification","Message":"no JSON"}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_notification_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidField):
        read_notification(content)


def test_a_confirmation_is_told_from_events() -> None:
    sns = {"Type": "SubscriptionConfirmation", "SubscribeURL": SUBSCRIBE, "Message": "x"}
    smn = {"type": "SubscriptionConfirmation", "subscribe_url": SUBSCRIBE, "message": "x"}

    for told in (sns, smn):
        assert read_notification(json.dumps(told).encode()) == Confirmation(url=SUBSCRIBE)


def test_an_event_has_the_shape_of_the_platform() -> None:
    content = record(
        "in%2Fcat.jpg",
        "minio:s3",
        "s3:ObjectCreated:Put",
        awsRegion="eu-de",
        eventTime="2026-03-01T07:30:00.1236+01:00",
        userIdentity={"principalId": "me"},
        requestParameters={"sourceIPAddress": "192.0.2.9", "region": "x"},
        responseElements={"x-amz-request-id": "r", "x-minio-deployment-id": "d"},
    )
    content["s3"]["bucket"]["ownerIdentity"] = {"principalId": "owner"}
    content["s3"]["object"] |= {"eTag": "e", "versionId": "1", "contentType": "image/jpeg"}
    [happening] = read(body(content))

    assert json.loads(event_json(happening, "rule", "local")) == {
        "Records": [
            {
                "eventVersion": "2.0",
                "eventSource": "aws:s3",
                "awsRegion": "eu-de",
                "eventTime": TIME,
                "eventName": "ObjectCreated:Put",
                "userIdentity": {"principalId": "me"},
                "requestParameters": {"sourceIPAddress": "192.0.2.9"},
                "responseElements": {"x-amz-request-id": "r", "x-amz-id-2": ""},
                "s3": {
                    "s3SchemaVersion": "1.0",
                    "configurationId": "rule",
                    "bucket": {
                        "name": "photos",
                        "ownerIdentity": {"PrincipalId": "owner"},
                        "arn": "arn:aws:s3:::photos",
                    },
                    "object": {
                        "key": "in%2Fcat.jpg",
                        "eTag": "e",
                        "size": 3,
                        "versionId": "1",
                        "sequencer": "0A",
                    },
                },
            }
        ]
    }


async def listening(place: House, **options: Any) -> None:
    trigger = await place.create("OBS", bucket="photos", **options)
    await until(lambda: place.state(trigger).state == "running")


async def test_notifications_call_what_they_fit_once(tmp_path: Path) -> None:
    async with house(tmp_path, [obs]) as place, api_client(place) as client:
        await listening(place, events=["Put"], prefix="in/", suffix=".csv")
        fits, *others = record("in%2Fa.csv"), record("in/a.txt"), record("a.csv"), record("in/a.csv", name="s3:x:Put")
        content = body(*others, fits)

        first = await client.post("/triggers/obs", content=content)
        await client.post("/triggers/obs", content=content)

        assert (first.status_code, first.json()) == (200, {"accepted": 1})
        assert len(await place.events()) == 1


async def test_a_trigger_that_only_notifications_reach_has_no_problem(tmp_path: Path) -> None:
    async with house(tmp_path, [obs]) as place:
        trigger = await place.create("OBS", bucket="photos", events=["Put"])
        await until(lambda: place.state(trigger).state == "running")

        assert place.state(trigger).problem == ""


async def test_one_of_a_bucket_that_nobody_listens_to_must_come_again(tmp_path: Path) -> None:
    async with house(tmp_path, [obs]) as place, api_client(place) as client:
        await listening(place, events=["ObjectCreated"])
        other = record("a")
        other["s3"]["bucket"]["name"] = "other"

        reply = await client.post("/triggers/obs", content=body(record("a"), other))

        assert (reply.status_code, await place.events()) == (404, [])


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        (b"Bearer a-token", True),
        (b"bearer  a-token", True),
        (b"Basic " + base64.b64encode(b"ceph:a-token"), True),
        (b"Basic " + base64.b64encode(b"a-token:"), False),
        (b"Basic !", False),
        (b"Bearer a-toke", False),
        (b"Bearer", False),
        (b"a-token", False),
        (b"", False),
    ],
)
def test_a_token_is_shown_in_two_ways(header: bytes, shown: bool) -> None:
    assert has_token(header, "a-token") is shown


async def test_a_push_must_show_the_token_which_passes_whatever_failed_before(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"plugins__obs__token": "a-token", "auth__failures": 3}
    async with house(tmp_path, [obs], **settings) as place, api_client(place) as client:
        await listening(place, events=["ObjectCreated"])
        tokens = ["", "", "", "", "wrong-1", "wrong-2", "a-token", "wrong-3", "wrong-4", "a-token"]
        statuses = [
            (
                await client.post(
                    "/triggers/obs",
                    content=body(record(f"{number}")),
                    headers={"authorization": f"Bearer {token}"} if token else {},
                )
            ).status_code
            for number, token in enumerate(tokens)
        ]

        assert statuses == [401, 401, 401, 401, 401, 401, 200, 401, 401, 200]
        assert len(await place.events()) == 2


async def test_only_named_hosts_are_asked_to_confirm_a_subscription(tmp_path: Path) -> None:
    asked = []

    async def confirm(request: PushRequest) -> Reply:
        asked.append(request.query)
        return Reply()

    async with listen(PluginRoutes(Mounts(), "test").app(confirm), "127.0.0.1", 0) as port:
        named = f"127.0.0.1:{port}"
        async with house(tmp_path, [obs], plugins__obs__confirm_hosts=[named]) as place, api_client(place) as client:
            replies = [
                await client.post("/triggers/obs", json={"Type": "SubscriptionConfirmation", "SubscribeURL": url})
                for url in (f"http://{named}/?a", f"http://localhost:{port}/?b", f"http://x@{named}/?c")
            ]

    assert [reply.status_code for reply in replies] == [200, 400, 400]
    assert asked == ["a"]
