"""Document databases as a source. Tests marked ``slow`` use a real server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import bson
import msgspec
import pytest
from bson import Binary, Decimal128, Int64, ObjectId, Timestamp

import plugins.dds.options
from engine import SettingsError
from engine.resources.bound_trigger import BoundTrigger
from plugins.dds import gauss_plugin, plugin
from plugins.dds.client import MIN_WAIT, NAME, Now, ResumeToken, first_of, read
from plugins.dds.options import USER, DdsOptions, DdsSettings, Instance, check_client
from plugins.dds.records import Change, EventEncoder, change_of
from tests.doubles import ManualClock
from tests.support.certificates import write_certificate
from tests.support.mongo_server import COLLECTION, DATABASE, PASSWORD, MongoServer, mongo_server
from tests.support.triggering import House, house, until

KEY = ObjectId("5f61de944778db5fcded3f87")
QUICK: dict[str, Any] = {"plugins__dds__batch_wait": 0.0, "plugins__dds__timeout": 0.5}


def options(**changes: Any) -> DdsOptions:
    given = {"instance_id": "i", "db_name": "d", "collection_name": "c", "db_password": "p", "batch_size": 10}
    return DdsOptions(**{**given, **changes})


# --- events -------------------------------------------------------------------------------------------------


def change(operation: str = "insert", token: str = "8265", **rest: Any) -> Change:
    document = {"_id": {"_data": token}, "operationType": operation, "clusterTime": Timestamp(1, 1), **rest}
    return change_of(bson.encode(document))


def encoder(kind: str = "DDS", limit: int = 1 << 20) -> EventEncoder:
    return EventEncoder(kind=kind, region="r", source_id="s", database="d", collection="c", limit=limit)


def records(payload: bytes, source: str = "dds") -> list[Any]:
    return [record[source] for record in json.loads(payload)["records"]]


@pytest.mark.parametrize(
    ("kind", "source", "more"),
    [("DDS", "dds", {}), ("GAUSSMONGO", "gauss_mongo", {"vernier": '{"_data": "8265"}'})],
)
def test_a_change_is_told_as_documented(kind: str, source: str, more: dict[str, str]) -> None:
    ns = {"db": "d", "coll": "c"}
    changed = change(ns=ns, documentKey={"_id": KEY}, fullDocument={"_id": KEY, "name": "né"})

    [event] = encoder(kind).events([changed])

    told = {
        "size_bytes": str(changed.size),
        "token": '{"_data": "8265"}',
        "full_document": '{"_id": {"$oid": "5f61de944778db5fcded3f87"}, "name": "né"}',
        "ns": '{"db": "d", "coll": "c"}',
    }
    named = {"event_source": source, "event_name": "insert", "region": "r", "event_version": "1.0"}
    assert json.loads(event.payload) == {"records": [{**named, source: told, "event_source_id": "s"}], **more}


def test_documents_are_relaxed_extended_json_whatever_they_hold() -> None:
    held = {"n": Int64(5), "f": float("nan"), "d": Decimal128("1.5"), "b": Binary(b"x"), "t": datetime(2026, 1, 2)}
    raw = bson.encode({"_id": {"_data": ""}, "operationType": "insert", "fullDocument": {**held, "s": "xy"}})

    [event] = encoder().events([change_of(raw.replace(b"xy\0", b"x\xff\0"))])

    assert json.loads(records(event.payload)[0]["full_document"]) == {
        "n": 5,
        "f": {"$numberDouble": "NaN"},
        "d": {"$numberDecimal": "1.5"},
        "b": {"$binary": {"base64": "eA==", "subType": "00"}},
        "t": {"$date": "2026-01-02T00:00:00Z"},
        "s": "x\ufffd",
    }


def test_a_moment_for_which_python_has_no_date_stops_nothing() -> None:
    far = bson.DatetimeMS(1 << 60)

    [event] = encoder().events([change(fullDocument={"t": far})])

    assert json.loads(records(event.payload)[0]["full_document"]) == {"t": {"$date": {"$numberLong": str(1 << 60)}}}


def test_a_document_that_nobody_can_read_stops_nothing_and_its_key_is_told() -> None:
    document = {"uuid": Binary(b"xyz", 4)}

    [event] = encoder().events(
        [change(documentKey={"_id": 1}, fullDocument=document, wallTime=bson.DatetimeMS(1 << 60))]
    )

    [told] = records(event.payload)
    assert (told["full_document"], told["token"]) == ('{"_id": 1}', '{"_data": "8265"}')


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        (change("delete", documentKey={"_id": 1}), '{"_id": 1}'),
        (change("update", documentKey={"_id": 1}, fullDocument=None), '{"_id": 1}'),
        (change("drop"), "{}"),
    ],
)
def test_the_key_of_a_document_that_is_gone_is_told(gone: Change, told: str) -> None:
    [event] = encoder().events([gone])

    assert records(event.payload)[0]["full_document"] == told


@pytest.mark.parametrize("kind", ["DDS", "GAUSSMONGO"])
@pytest.mark.parametrize("limit", range(300, 1500, 170))
def test_events_keep_to_the_limit_and_all_changes_in_order(kind: str, limit: int) -> None:
    changes = [change(token="7" * (n % 5), fullDocument={"n": n, "x": "x" * (n % 7)}) for n in range(30)]

    payloads = [event.payload for event in encoder(kind, limit).events(changes)]

    source = {"DDS": "dds", "GAUSSMONGO": "gauss_mongo"}[kind]
    told = [records(payload, source) for payload in payloads]
    assert [json.loads(record["full_document"])["n"] for some in told for record in some] == list(range(30))
    assert all(len(payload) <= limit or len(some) == 1 for payload, some in zip(payloads, told, strict=True))
    if kind == "GAUSSMONGO":
        assert [json.loads(payload)["vernier"] for payload in payloads] == [some[-1]["token"] for some in told]


# --- start of a collection ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waited", "alone", "moment", "since"),
    [
        (0.25, True, (160, 1), 160.25),
        (30.0, True, (130, 1), 130.5),
        (30.0, False, (130, 1), 0.0),  # the answering member doesn't make the changes; its clock may differ
        (-0.5, True, (160, 8), 0.0),  # no change since then
        (-5.0, True, (160, 8), 0.0),  # the clock was set
    ],
)
def test_a_collection_is_begun_when_the_trigger_was_enabled(
    waited: float, alone: bool, moment: tuple[int, int], since: float
) -> None:
    token = first_of("p", Now(last=(160, 7), time=160.5, alone=alone), waited)

    assert token == ResumeToken(place="p", moment=moment, since=since)


def test_a_cursor_counts_for_its_own_collection_only() -> None:
    cursors = {NAME: msgspec.json.encode(ResumeToken(place="i/d.c", token="{}"))}

    assert read(cursors, "i/d.c").known
    assert not read(cursors, "i/d.other").known
    assert not read({}, "i/d.c").known


# --- settings -----------------------------------------------------------------------------------------------


def test_the_settings_of_an_instance_go_before_what_a_trigger_says() -> None:
    known = {"i": Instance(address="real:1", password="theirs", tls=True), "j": Instance(password="theirs", tls=True)}
    settings = DdsSettings(instances=known)
    other = ("other:1", "other:2")

    assert settings.server(options(instance_addrs=other), "dds") == known["i"]
    foreign = settings.server(options(instance_id="j", instance_addrs=other), "dds")
    assert (foreign.addresses, foreign.password, foreign.tls) == (["other:1", "other:2"], "p", True)


def test_a_trigger_brings_its_password_to_the_address_of_the_settings() -> None:
    settings = DdsSettings(instances={"i": Instance(address="real:1"), "j": Instance(address="real:2", user="")})

    login, none = (settings.server(options(instance_id=name), "dds").connection for name in ("i", "j"))

    assert (login["username"], login["password"]) == ("rwuser", "p")
    assert "username" not in none


def test_an_instance_that_nobody_knows_is_named() -> None:
    with pytest.raises(SettingsError, match=r"plugins\.gaussmongo\.instances\.i\.address"):
        DdsSettings().server(options(), "gaussmongo")


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins.dds.options, "find_spec", lambda name: None)

    with pytest.raises(SettingsError, match=r"pip install '.\[dds\]'"):
        check_client()


async def test_replies_tell_the_addresses_that_the_settings_know(tmp_path: Path) -> None:
    async with house(tmp_path, [plugin], plugins__dds__instances__i__address="a:1, b:2") as place:
        data = {"db_name": "d", "collection_name": "c", "db_password": "p", "batch_size": 1}

        known, unknown = [await place.create("DDS", instance_id=name, **data) for name in ("i", "j")]

        assert known.shown["instance_addrs"] == ["a:1", "b:2"]
        assert unknown.shown == {**data, "instance_id": "j", "db_password": "******", "db_user": "rwuser"}


# --- the source ---------------------------------------------------------------------------------------------


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[MongoServer]:
    async with mongo_server(tmp_path / "mongo") as server:
        yield server


async def watching(place: House, server: MongoServer, kind: str = "DDS", **changes: Any) -> BoundTrigger:
    where = {"db_name": DATABASE, "collection_name": COLLECTION, "instance_addrs": [server.address]}
    trigger = await place.create(
        kind, **{"instance_id": "i", "db_password": PASSWORD, "batch_size": 10, **where, **changes}
    )
    return trigger if trigger.stored.active else await place.update(trigger, status="ACTIVE")


async def is_in(place: House, trigger: BoundTrigger, state: str, problem: str = "") -> None:
    await until(lambda: place.state(trigger).state == state and problem in place.state(trigger).problem)


@asynccontextmanager
async def running(
    folder: Path, server: MongoServer, *, batch_size: int = 10, **settings: Any
) -> AsyncIterator[tuple[House, BoundTrigger]]:
    """Run an engine with a trigger, and wait until the trigger reads."""
    async with house(folder / "data", [plugin], **{**QUICK, **settings}) as place:
        trigger = await watching(place, server, batch_size=batch_size)
        await is_in(place, trigger, "running")
        yield place, trigger


async def told(place: House, count: int, source: str = "dds") -> list[Any]:
    """Return all records as soon as there are ``count``."""
    while True:
        heard = [record for event in await place.events() for record in event["records"]]
        if len(heard) >= count:
            return heard
        await anyio.sleep(0.01)


async def numbers(place: House, count: int) -> list[int]:
    return [json.loads(record["dds"]["full_document"])["number"] for record in await told(place, count)]


async def test_every_change_of_a_document_is_told_and_an_update_with_the_document(
    tmp_path: Path, server: MongoServer
) -> None:
    await server.insert(0)
    async with house(tmp_path / "data", [plugin], **QUICK) as place, server.client() as client:
        orders = client[DATABASE][COLLECTION]
        trigger = await watching(place, server)  # does not wait until the source runs
        await orders.insert_one({"_id": 1, "a": 1})
        await orders.update_one({"_id": 1}, {"$set": {"b": 2}})
        await told(place, 2)  # the source looks the document up when it reads the change
        await orders.replace_one({"_id": 1}, {"c": 3})
        await told(place, 3)
        await orders.delete_one({"_id": 1})
        heard = await told(place, 4)

    documents = [{"_id": 1, "a": 1}, {"_id": 1, "a": 1, "b": 2}, {"_id": 1, "c": 3}, {"_id": 1}]
    assert [record["event_name"] for record in heard] == ["insert", "update", "replace", "delete"]
    assert [json.loads(record["dds"]["full_document"]) for record in heard] == documents
    assert {record["event_source_id"] for record in heard} == {trigger.id}
    assert {record["dds"]["ns"] for record in heard} == {'{"db": "shop", "coll": "orders"}'}


async def test_gemini_tells_how_far_it_is_and_only_what_is_wanted(tmp_path: Path, server: MongoServer) -> None:
    wanted: dict[str, Any] = {"plugins__gaussmongo__operations": "delete,drop"}
    async with house(tmp_path / "data", [gauss_plugin], **wanted) as place, server.client() as client:
        trigger = await watching(place, server, "GAUSSMONGO")
        await is_in(place, trigger, "running")
        await server.insert(1, 2, 3)
        await client[DATABASE][COLLECTION].delete_one({"number": 2})
        await client[DATABASE][COLLECTION].drop()
        heard = await told(place, 2)
        events = await place.events()

    assert [record["event_name"] for record in heard] == ["delete", "drop"]
    assert [event["vernier"] for event in events] == [event["records"][-1]["gauss_mongo"]["token"] for event in events]


async def test_a_batch_ends_at_its_size_and_a_change_too_large_is_thrown_away(
    tmp_path: Path, server: MongoServer
) -> None:
    async with running(tmp_path, server, batch_size=3) as (place, trigger), server.client() as client:
        await server.insert(1, 2, 3, 4, 5)
        await client[DATABASE][COLLECTION].insert_one({"number": 6, "much": "x" * (6 << 20)})
        await server.insert(7)

        assert await numbers(place, 6) == [1, 2, 3, 4, 5, 7]
        assert max(len(event["records"]) for event in await place.events()) == 3
        await until(lambda: place.state(trigger).refused == 1)


async def test_what_comes_while_the_server_could_not_be_reached_at_first_is_told(
    tmp_path: Path, server: MongoServer
) -> None:
    async with house(tmp_path / "data", [plugin], **QUICK) as place:
        await server.kill()
        trigger = await watching(place, server)
        await until(lambda: place.state(trigger).failures >= 2)
        await server.run()
        await server.insert(1)

        assert await numbers(place, 1) == [1]


async def test_what_changed_in_the_second_before_the_trigger_is_not_told(tmp_path: Path, server: MongoServer) -> None:
    clock = ManualClock()  # time stands still: the trigger is enabled at the moment of the server's reply
    stopping: dict[str, Any] = {**QUICK, "plugins__dds__on_lost": "stop"}
    async with house(tmp_path / "data", [plugin], clock=clock, **stopping) as place, server.client() as client:
        await server.insert(1)
        await client[DATABASE][COLLECTION].drop()
        await server.insert(2)
        trigger = await watching(place, server)
        await is_in(place, trigger, "running")
        await server.insert(3)

        assert await numbers(place, 1) == [3]


async def test_a_quiet_collection_is_kept_close_to_the_present(tmp_path: Path, server: MongoServer) -> None:
    often: dict[str, Any] = {"plugins__dds__check_every": 0.2, "plugins__dds__keep_every": 0.0}
    async with running(tmp_path, server, **often) as (place, trigger):
        before = await place.cursors(trigger)
        await server.insert(1, collection="other")
        while b"token" not in (now := await place.cursors(trigger))[NAME]:  # noqa: ASYNC110  (a row sets no event)
            await anyio.sleep(0.01)

        assert now != before
        assert await place.keys() == []
    async with house(tmp_path / "data", [plugin], **QUICK) as place:
        await server.insert(2)

        assert await numbers(place, 1) == [2]


@pytest.mark.parametrize("how", ["drop", "rename"])
async def test_what_comes_under_the_name_of_a_collection_that_is_gone_is_read_on(
    tmp_path: Path, server: MongoServer, how: str
) -> None:
    async with running(tmp_path, server) as (place, trigger), server.client() as client:
        await server.insert(1)
        await numbers(place, 1)
        await getattr(client[DATABASE][COLLECTION], how)(*(["archive"] if how == "rename" else []))
        await is_in(place, trigger, "running", f"collection {DATABASE}.{COLLECTION} was {how}")
        await server.insert(2, 3)

        assert await numbers(place, 3) == [1, 2, 3]
        await is_in(place, trigger, "running", "a new collection of its name is read from its beginning (over)")


async def test_a_trigger_of_a_dropped_collection_may_stop_until_it_is_changed(
    tmp_path: Path, server: MongoServer
) -> None:
    stopping: dict[str, Any] = {**QUICK, "plugins__dds__on_lost": "stop"}
    async with running(tmp_path, server, **stopping) as (place, trigger), server.client() as client:
        await server.insert(1)
        await client[DATABASE][COLLECTION].drop()
        await is_in(place, trigger, "failing", "was dropped; change the trigger to continue")
        await server.insert(2)
    async with house(tmp_path / "data", [plugin], **stopping) as place:
        await is_in(place, trigger, "failing", "was dropped; change the trigger to continue")
        before = await numbers(place, 1)
        await place.update(trigger, batch_size=5)

        assert (before, await numbers(place, 2)) == ([1], [1, 2])


@pytest.mark.parametrize(("on_lost", "state"), [("restart", "running"), ("stop", "failing")])
async def test_where_the_server_has_forgotten_the_past_it_is_said_and_gone_on_from_now(
    tmp_path: Path, server: MongoServer, on_lost: str, state: str
) -> None:
    async with running(tmp_path, server, plugins__dds__on_lost=on_lost) as (place, trigger):
        await server.insert(1)
        await numbers(place, 1)
        await place.update(trigger, status="DISABLED")
        await is_in(place, trigger, "disabled")
        await server.insert(2)
        await server.fail("aggregate", errorCode=286)
        await place.update(trigger, status="ACTIVE")
        await is_in(place, trigger, state, "are lost: the server no longer has")
        if on_lost == "stop":
            trigger = await place.update(trigger, batch_size=5)
            await is_in(place, trigger, "running")
        await server.insert(3)

        assert await numbers(place, 2) == [1, 3]


async def test_a_server_that_forgets_again_and_again_is_asked_slowly(tmp_path: Path, server: MongoServer) -> None:
    async with running(tmp_path, server) as (place, trigger):
        await server.fail("aggregate", times=2, errorCode=286)
        began = anyio.current_time()
        await place.update(trigger, batch_size=5)
        await is_in(place, trigger, "running", "are lost")

        assert anyio.current_time() - began >= 2 * MIN_WAIT


async def test_a_connection_that_breaks_is_made_again_and_nothing_is_missed_or_told_twice(
    tmp_path: Path, server: MongoServer
) -> None:
    async with running(tmp_path, server) as (place, _):
        for number in range(1, 6):
            await server.fail("getMore", closeConnection=True)
            await server.insert(number, number + 10)

        assert await numbers(place, 10) == [n for number in range(1, 6) for n in (number, number + 10)]


async def test_a_wrong_password_is_named_and_not_shown(tmp_path: Path, server: MongoServer) -> None:
    async with house(tmp_path / "data", [plugin], **QUICK) as place:
        trigger = await watching(place, server, db_password="quite wrong")
        await until(lambda: "uthentication failed" in place.state(trigger).problem)

        assert "quite wrong" not in place.state(trigger).problem


async def test_a_login_over_tls_is_made_with_whom_the_settings_believe(tmp_path: Path, server: MongoServer) -> None:
    write_certificate(tmp_path)
    trusted: dict[str, Any] = {"ca_file": str(tmp_path / "cert.pem"), "tls": True, "address": server.address}
    known = {f"plugins__dds__instances__i__{name}": value for name, value in trusted.items()}
    unknown = {f"plugins__dds__instances__j__{name}": trusted[name] for name in ("tls", "address")}
    login: dict[str, Any] = {"username": USER, "password": PASSWORD, "tls": True, "tlsCAFile": trusted["ca_file"]}
    await server.kill()
    await server.run("--auth", "--tls-cert-file", tmp_path / "cert.pem", "--tls-key-file", tmp_path / "key.pem")
    async with house(tmp_path / "data", [plugin], **QUICK, **known, **unknown) as place:
        trigger, other = await watching(place, server), await watching(place, server, instance_id="j")
        await is_in(place, trigger, "running")
        await server.insert(1, **login)
        await is_in(place, other, "failing", "certificate verify failed")

        assert await numbers(place, 1) == [1]
