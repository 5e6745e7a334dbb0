"""OBS triggers and destinations on third-party object stores."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import pytest
from aiobotocore.session import get_session

from engine.model.clock import SystemClock
from plugins.obs import plugin as obs
from plugins.obs.destination import ObsDestination, ObsParam
from plugins.obs.opening import StoreOpener
from plugins.obs.options import ObsSettings
from plugins.obs.store import ObjectStore
from tests.plugins.delivering import deliver
from tests.support.moto_server import moto_server
from tests.support.s3_server import ACCESS, SECRET, S3Server, s3_server
from tests.support.triggering import House, api_client, house, until

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


def settings_of(service: ObsSettings, **more: Any) -> dict[str, Any]:
    named = {name: getattr(service, name) for name in ("endpoint", "access_key", "secret_key", "path_style")}
    return {f"plugins__obs__{name}": value for name, value in {**named, "scan": 0.05, **more}.items()}


def moto_service(url: str) -> ObsSettings:
    return ObsSettings(endpoint=url, access_key=ACCESS, secret_key=SECRET, path_style=True)


class Ahead(SystemClock):
    """Clock ten seconds ahead, so that every change is old enough to be listed."""

    def now(self) -> float:
        return time.time() + 10


async def happened(place: House, count: int) -> list[tuple[str, str]]:
    """Return event names with their keys as soon as there are ``count`` events."""
    while len(events := await place.events()) < count:  # noqa: ASYNC110  (the journal sets no event)
        await anyio.sleep(0.01)
    records = [record for event in events for record in event["Records"]]
    return sorted((record["eventName"], unquote(record["s3"]["object"]["key"])) for record in records)


async def told_of(place: House, key: str) -> None:
    while key not in {told for _, told in await happened(place, 0)}:  # noqa: ASYNC110  (as above)
        await anyio.sleep(0.01)


async def seen(place: House, trigger: Any) -> None:
    """Wait until the source has listed the whole bucket."""
    while b'"whole":true' not in (await place.cursors(trigger)).get("objects", b""):  # noqa: ASYNC110  (as above)
        await anyio.sleep(0.01)


async def put(store: ObjectStore, bucket: str, *keys: str) -> None:
    for key in keys:
        await store.write(bucket, key, key.encode())


@asynccontextmanager
async def client(url: str, service: str) -> AsyncIterator[Any]:
    keys = {"aws_access_key_id": ACCESS, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    async with get_session().create_client(service, endpoint_url=url, **keys) as made:
        yield made


async def test_what_was_there_before_the_trigger_is_no_event(tmp_path: Path, seaweed: S3Server) -> None:
    async with StoreOpener(seaweed.service).open() as store:
        await put(store, "photos", "in/old", "in/gone")
        async with house(tmp_path, [obs], clock=Ahead(), **settings_of(seaweed.service)) as place:
            trigger = await place.create("OBS", bucket="photos", events=["ObjectCreated", "Delete"], prefix="in/")
            await seen(place, trigger)
            # SeaweedFS lists in/a/b before in/a-b, which is not the order of bytes.
            await put(store, "photos", "in/a/b", "in/a-b", "in/a.b", "out/c")
            await happened(place, 3)
            await store.delete("photos", "in/gone")

            assert await happened(place, 4) == [
                *(("ObjectCreated:Put", f"in/a{sign}b") for sign in "-./"),
                ("ObjectRemoved:Delete", "in/gone"),
            ]


async def test_a_store_that_dies_and_comes_back_costs_no_event_and_repeats_none(tmp_path: Path) -> None:
    with s3_server(tmp_path) as server:
        ports = server.ports
        async with StoreOpener(server.service).open() as store:
            await put(store, "photos", "before")
    async with house(tmp_path / "data", [obs], **settings_of(server.service)) as place:
        trigger = await place.create("OBS", bucket="photos", events=["ObjectCreated"])
        await until(lambda: "no answer" in place.state(trigger).problem)
        with s3_server(tmp_path, ports):
            async with StoreOpener(server.service).open() as store:
                await put(store, "photos", "first")
                await seen(place, trigger)
                await put(store, "photos", "second")
                await told_of(place, "second")
        await until(lambda: "no answer" in place.state(trigger).problem)
        with s3_server(tmp_path, ports):
            async with StoreOpener(server.service).open() as store:
                await put(store, "photos", "third")
                await told_of(place, "third")
        events = await happened(place, 3)
        # ``before`` may be reported: created in the same second as the trigger.
        keys = [key for _, key in events if key != "before"]

        assert keys == ["first", "second", "third"]


async def test_objects_are_replaced_and_deleted_in_another_store_as_well(tmp_path: Path, moto: str) -> None:
    service = moto_service(moto)
    async with client(moto, "s3") as s3, house(tmp_path, [obs], **settings_of(service)) as place:
        await s3.create_bucket(Bucket="many")
        await place.create("OBS", bucket="many", events=["ObjectCreated", "ObjectRemoved"], suffix=".png")
        async with StoreOpener(service).open() as store:
            await put(store, "many", "b.png", "a.png", "a.txt")
            await happened(place, 2)
            await store.write("many", "b.png", b"another")
            await happened(place, 3)
            await store.delete("many", "a.png")

        put_event, removed = "ObjectCreated:Put", "ObjectRemoved:Delete"
        assert await happened(place, 4) == [
            (put_event, "a.png"),
            (put_event, "b.png"),
            (put_event, "b.png"),
            (removed, "a.png"),
        ]


async def test_a_store_notifies_by_way_of_a_topic(tmp_path: Path, moto: str) -> None:
    keys = ["in/a b+c%20.csv", "in/ü/x.csv"]
    async with (
        house(tmp_path, [obs], plugins__obs__token="a-token") as place,
        api_client(place) as api,
        client(moto, "s3") as s3,
        client(moto, "sns") as sns,
    ):
        trigger = await place.create("OBS", bucket="told", events=["Put", "Delete"], suffix=".csv", name="r")
        await until(lambda: place.state(trigger).state == "running")
        await s3.create_bucket(Bucket="told")
        topic = (await sns.create_topic(Name="objects"))["TopicArn"]
        url = f"{api.base_url}".rstrip("/").replace("//", "//sns:a-token@") + "/triggers/obs"
        await sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=url)
        told = {"TopicArn": topic, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        await s3.put_bucket_notification_configuration(
            Bucket="told", NotificationConfiguration={"TopicConfigurations": [told]}
        )
        for key in (*keys, "in/other"):
            await s3.put_object(Bucket="told", Key=key, Body=b"123")
        await s3.delete_object(Bucket="told", Key=keys[0])

        assert await happened(place, 3) == [
            ("ObjectCreated:Put", keys[0]),
            ("ObjectCreated:Put", keys[1]),
            ("ObjectRemoved:Delete", keys[0]),
        ]
        [record] = (await place.events())[0]["Records"]
        assert (record["s3"]["object"]["size"], record["s3"]["configurationId"]) == (3, "r")


async def test_an_outcome_becomes_an_object(tmp_path: Path, seaweed: S3Server) -> None:
    record = json.dumps({"request_context": {"request_id": "id"}}).encode()
    destination = ObsDestination(ObsParam(bucket="outcomes", prefix="of/hello", expires=1))
    async with house(tmp_path, [obs], **settings_of(seaweed.service)) as place:
        for _ in range(2):
            await deliver(place, "OBS", destination, record)
        async with StoreOpener(seaweed.service).open() as store:
            listing = await store.list("outcomes")

        assert [(stored.key, stored.size) for stored in listing.objects] == [("of/hello/id-7.json", len(record))]
