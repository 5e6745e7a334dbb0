"""Loops of a function through its own destination: stores and brokers carry the number of hops, and 16 end it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiokafka import AIOKafkaProducer

from engine.app.lifecycle import run_engine
from engine.app.parts import EngineParts
from engine.app.service import listening
from engine.code.store import CodeSource
from engine.errors import InvalidField, InvalidTrigger
from engine.model import AsyncSettings, DestinationSpec, PendingDelivery, Request, State
from engine.pipeline.delivery import MAX_HOPS
from engine.protocols import Plugin, Selection
from engine.resources.triggers import LOOP, TriggerDraft
from plugins.dis import plugin as dis
from plugins.kafka import plugin as kafka
from plugins.obs import folder as obs_folder
from plugins.obs import plugin as obs
from plugins.obs.opening import StoreOpener
from plugins.smn import plugin as smn
from plugins.webhook import plugin as webhook
from tests.plugins.obs.test_obs_stores import client, moto_service
from tests.plugins.obs.test_obs_stores import settings_of as store_settings
from tests.support.builders import a_function
from tests.support.http_app import SOURCE, encoded
from tests.support.inline_engine import PROJECT, SETTINGS, run_inline, urn_of
from tests.support.kafka_broker import EARLIEST, kafka_broker
from tests.support.moto_server import moto_server
from tests.support.triggering import settings_of

NAME = "hello"
SECRET = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjSw"
REMOTE = {"endpoint": "http://127.0.0.1:9", "access_key": "a", "secret_key": "a-secret-of-it", "project_id": "p"}


@asynccontextmanager
async def running(
    folder: Path, patch: pytest.MonkeyPatch, plugin: Plugin, **settings: Any
) -> AsyncIterator[EngineParts]:
    """Run an engine with a function that returns at once."""
    run_inline(patch, {NAME: lambda event, context: "again"})
    async with run_engine(settings_of(folder / "data", **SETTINGS, **settings), plugins=[plugin]) as engine:
        function = a_function(function_id=0, project=PROJECT, timeout=60)
        await engine.catalog.create(function, CodeSource(kind="inline", file=encoded(SOURCE)))
        with anyio.fail_after(60):
            yield engine


async def send_to(engine: EngineParts, kind: str, **param: Any) -> None:
    spec = DestinationSpec(destination=kind, param=json.dumps(param))
    await engine.catalog.put_settings(urn_of(NAME), AsyncSettings(on_success=spec))


async def fire_on(engine: EngineParts, kind: str, **data: Any) -> str:
    draft = TriggerDraft(kind=kind, data=data, status="ACTIVE")
    return (await engine.resources.triggers.create(urn_of(NAME), draft)).id


async def ended(engine: EngineParts, hops: int = 0) -> None:
    """Wait for the end of a loop whose first event has ``hops``, and compare its length with the longest chain."""
    function_id, page = engine.catalog.find(urn_of(NAME)).function_id, list[PendingDelivery]()
    while not page:
        await anyio.sleep(0.01)
        page = list((await engine.storage.outbox.given_up([function_id], 0, 10))[0])
    selection = Selection(function_id=function_id, states=frozenset(State), limit=1000)
    records, _ = await engine.storage.records.list(selection)

    assert [f"destinations invoked {MAX_HOPS} functions in a row" in given_up.error for given_up in page] == [True]
    assert len(records) == MAX_HOPS + 1 - hops


async def test_a_loop_over_a_folder_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "objects" / "loop").mkdir(parents=True)
    if not obs_folder.stores_hops(str(tmp_path / "objects")):
        pytest.skip("this file system has no attributes of users")
    async with running(tmp_path, monkeypatch, obs, plugins__obs__folder=str(tmp_path / "objects")) as engine:
        await fire_on(engine, "OBS", bucket="loop", events=["ObjectCreated"])
        await send_to(engine, "OBS", bucket="loop")
        (tmp_path / "objects" / "loop" / "first").write_text("x")
        await ended(engine)


async def test_a_loop_over_a_store_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with moto_server() as url:
        service = moto_service(url)
        async with running(tmp_path, monkeypatch, obs, **store_settings(service)) as engine:
            async with client(url, "s3") as s3:
                await s3.create_bucket(Bucket="loop")
            await fire_on(engine, "OBS", bucket="loop", events=["ObjectCreated"])
            await send_to(engine, "OBS", bucket="loop")
            async with StoreOpener(service).open() as store:
                await store.write("loop", "first", b"x")
            await ended(engine)


async def test_a_loop_over_a_topic_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with kafka_broker() as broker:
        await broker.create("t")
        cluster = {"plugins__kafka__instances__i__address": broker.address, **EARLIEST}
        async with running(tmp_path, monkeypatch, kafka, **cluster) as engine:
            data = {"topic_ids": ["t"], "batch_size": 10, "kafka_connect_address": broker.address}
            await fire_on(engine, "KAFKA", instance_id="i", **data)
            await send_to(engine, "KAFKA", instance_id="i", topic="t")
            async with AIOKafkaProducer(bootstrap_servers=broker.address) as producer:
                await producer.send_and_wait("t", b"first", headers=[("functiond-hops", b"13")])  # a round takes 1 s
            await ended(engine, 13)


async def test_a_loop_over_a_stream_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch, dis) as engine:
        service: Any = engine.plugins.of(dis).service
        streams = await service.access()
        made = {"partitions": 1, "retention": 24, "stream_type": "COMMON", "data_type": "BLOB"}
        await streams.create(PROJECT, "s", **made)
        await fire_on(engine, "DIS", stream_name="s", sharditerator_type="TRIM_HORIZON", is_serial="false")
        await send_to(engine, "DIS", stream_name="s")
        await engine.intake.accept(Request(function=urn_of(NAME), payload=b"1"))
        await ended(engine)


async def test_a_loop_over_a_webhook_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"plugins__webhook__secrets__s": SECRET, "http__port": 0}
    async with running(tmp_path, monkeypatch, webhook, **settings) as engine, listening(engine) as url:
        trigger_id = await fire_on(engine, "WEBHOOK", name="w", secret=SECRET)
        await send_to(engine, "WEBHOOK", url=f"{url}/triggers/webhook/{trigger_id}", secret="s")
        await engine.intake.accept(Request(function=urn_of(NAME), payload=b"1"))
        await ended(engine)


@pytest.mark.parametrize(
    ("plugin", "kind", "name", "more"),
    [
        (dis, "DIS", "stream_name", {"sharditerator_type": "LATEST"}),
        (smn, "SMN", "topic_urn", {}),
    ],
)
async def test_a_loop_that_nothing_would_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: Plugin, kind: str, name: str, more: dict[str, str]
) -> None:
    settings = {f"plugins__{kind.lower()}__{setting}": value for setting, value in REMOTE.items()}
    async with running(tmp_path, monkeypatch, plugin, **settings) as engine:
        triggers, urn = engine.resources.triggers, urn_of(NAME)
        trigger_id = await fire_on(engine, kind, **{name: "same"}, **more)
        with pytest.raises(InvalidField, match=LOOP):
            await send_to(engine, kind, **{name: "same"})
        await send_to(engine, kind, **{name: "another"})
        with pytest.raises(InvalidTrigger, match=LOOP):
            await triggers.update(urn, kind, trigger_id, [{name: "another"}])
        with pytest.raises(InvalidTrigger, match=LOOP):
            await fire_on(engine, kind, **{name: "another"}, **more)


async def test_a_folder_without_attributes_is_no_destination_of_its_own_trigger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.obs.stores_hops", lambda folder: False)
    async with running(tmp_path, monkeypatch, obs, plugins__obs__folder=str(tmp_path)) as engine:
        await fire_on(engine, "OBS", bucket="loop", events=["ObjectCreated"])
        with pytest.raises(InvalidField, match=LOOP):
            await send_to(engine, "OBS", bucket="loop")
