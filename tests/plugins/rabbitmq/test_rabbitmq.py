"""RabbitMQ as a source. Tests marked ``slow`` use a real broker."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pamqp.encode
import pytest
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.commands import Basic

from engine import EVENT_LIMIT, SettingsError
from engine.resources.bound_trigger import BoundTrigger
from plugins._shared.connections import deadline
from plugins.rabbitmq import plugin
from plugins.rabbitmq.binding import FIRST, PrefetchWindow
from plugins.rabbitmq.connection import opened
from plugins.rabbitmq.options import Instance, RabbitOptions, RabbitSettings
from plugins.rabbitmq.source import FULL, MARK, ROWS, Accepted, _Reader, mark_of
from tests.support.rabbit_broker import PASSWORD, USER, VHOST, Broker, started_broker
from tests.support.triggering import House, house, messages, until

#: Short intervals: checks and retries run all the time.
QUICK: dict[str, Any] = {"plugins__rabbitmq__check_every": 0.05, "retry__longest": 0.2}


@pytest.fixture
async def broker() -> Broker:
    return await started_broker()


def options(**changes: Any) -> RabbitOptions:
    whole = {"instance_id": "i", "exchange_name": "x", "access_password": "p", "batch_size": 10, **changes}
    return msgspec.convert(whole, RabbitOptions)


# --- recently accepted messages -----------------------------------------------------------------------------


def test_a_message_is_known_by_its_id_and_content() -> None:
    long = "x" * 200

    assert mark_of("a", b"b") == mark_of("a", b"b")
    assert len({mark_of("a", b"b"), mark_of("a", b"c"), mark_of("b", b"b"), mark_of("ab", b"")}) == 4
    assert mark_of(long + "1", b"b") != mark_of(long + "2", b"b")


@pytest.mark.parametrize("together", [1, 10, 1000])
def test_the_last_messages_are_remembered_and_others_forgotten(together: int) -> None:
    disk: dict[str, bytes] = {"exchange": b"x"}
    accepted = Accepted(disk)
    marks = [number.to_bytes(MARK, "big") for number in range(2 * ROWS * FULL + 5000)]
    for start in range(0, len(marks), together):
        cursor = accepted.cursor(marks[start : start + together])
        assert len(cursor) == 1
        disk.update(cursor)
        accepted.note(cursor)
        if start % 3000 == 0:
            accepted = Accepted(disk)  # as after a restart of the engine

    assert all(mark in accepted for mark in marks[-(ROWS - 1) * FULL :])
    assert not any(mark in accepted for mark in marks[: -ROWS * (FULL + together)])
    assert len(disk) == ROWS + 1


def test_a_batch_without_ids_moves_no_cursor() -> None:
    assert Accepted({}).cursor([]) == {}
    assert b"" not in Accepted({"0": bytes(8)})


# --- the window ---------------------------------------------------------------------------------------------


def test_the_window_has_room_for_two_batches_or_for_as_many_bytes() -> None:
    window = PrefetchWindow(1000, room=10_000)

    sizes = []
    for largest in (0, 4000, *[1] * 30):
        window.adapt(largest)
        sizes.append(window.size)

    assert (sizes[0], sizes[1], sizes[-1]) == (2000, 2, 2000)
    assert sizes[1:] == sorted(sizes[1:])
    assert window.adapt(20_000)
    assert (window.size, window.batch) == (1, 1)


# --- settings -----------------------------------------------------------------------------------------------


def test_the_settings_of_an_instance_go_before_what_a_trigger_says() -> None:
    settings = RabbitSettings(instances={"i": Instance(address="real:1", user="u", password="p")})
    login = options(instance_id="j", connect_address="other:1", access_user="w")

    assert settings.broker(options(connect_address="other:1")).address == "real:1"
    assert settings.broker(login) == Instance(address="other:1", user="w", password="p")


def test_an_instance_that_nobody_knows_is_named() -> None:
    with pytest.raises(SettingsError, match=r"plugins\.rabbitmq\.instances\.i\.address"):
        RabbitSettings().broker(options())


@pytest.mark.parametrize("address", ["a:1/?no_verify_ssl=1&cafile=/etc/passwd#", "u:p@a:1", "a:1\n"])
def test_a_trigger_names_a_host_and_no_more_of_a_url(address: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="connect_address"):
        options(connect_address=address)


def test_an_authority_means_nothing_without_tls() -> None:
    with pytest.raises(ValueError, match="tls = true"):
        Instance(address="a:1", ca_file="/ca.pem")


async def test_without_the_client_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiormq", None)

    with pytest.raises(SettingsError, match=r"pip install '.\[rabbitmq\]'"):
        async with opened(Instance(address="127.0.0.1:9"), ""):
            pass


async def test_a_broker_that_is_away_is_named() -> None:
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1.*9"):
        async with opened(Instance(address="127.0.0.1:9"), ""):
            pass


async def test_a_broker_that_falls_silent_is_told(broker: Broker) -> None:
    async with silenced(broker) as (address, silence):
        with pytest.RaisesGroup(pytest.RaisesExc(ConnectionError, match="the broker said nothing within")):
            async with opened(Instance(address=address, user=USER, password=PASSWORD), VHOST) as channel:
                silence.set()
                with deadline("the broker said nothing", 0.2):
                    await channel.queue_declare("q")


@asynccontextmanager
async def silenced(broker: Broker) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Proxy the broker. Once the event is set, the proxy drops everything that the broker sends."""
    silence = asyncio.Event()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, mute: bool) -> None:
        while data := await reader.read(1 << 16):
            if not (mute and silence.is_set()):
                writer.write(data)
        writer.close()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", broker.port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(carry, there, writer, mute=False))
            await carry(reader, onward, mute=True)

    async with await asyncio.start_server(join, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", silence


# --- the source ---------------------------------------------------------------------------------------------


@pytest.fixture
async def exchange(broker: Broker) -> str:
    return await created(broker)


async def created(broker: Broker, kind: str = "fanout") -> str:
    name = f"x-{uuid.uuid4()}"
    await broker.create(name, kind)
    return name


async def bound(place: House, broker: Broker, exchange: str, **changes: Any) -> BoundTrigger:
    data = {"exchange_name": exchange, "batch_size": 10, "vhost": VHOST, "connect_address": broker.address, **changes}
    return await place.create("RABBITMQ", instance_id="i", **{"access_user": USER, "access_password": PASSWORD, **data})


async def reading(place: House, broker: Broker, exchange: str, **changes: Any) -> BoundTrigger:
    trigger = await bound(place, broker, exchange, **changes)
    await runs(place, trigger)
    return trigger


async def runs(place: House, trigger: BoundTrigger) -> None:
    await until(lambda: place.state(trigger).state == "running")


async def has(broker: Broker, trigger: BoundTrigger, *, ready: int | None) -> None:
    """Wait until ``ready`` messages of the trigger's queue wait to be sent. None: until the queue is deleted."""
    while (found := await broker.ready(queue_of(trigger))) != ready:
        assert found is None or ready is None or found > ready, f"{found} is less than {ready}"
        await anyio.sleep(0.02)


def queue_of(trigger: BoundTrigger) -> str:
    return f"functiond-{trigger.id}"


async def test_a_batch_is_one_event(tmp_path: Path, broker: Broker, exchange: str) -> None:
    async with house(tmp_path, [plugin], plugins__rabbitmq__batch_wait=60.0) as place:
        await reading(place, broker, exchange, batch_size=2)
        await broker.send(exchange, b"a", b"\xc3\xa9", ids=False)
        await messages(place, 2)

        [event] = await place.events()
        assert abs(event.pop("event_time") - place.engine.clock.now()) < 60
        assert event == {
            "event_version": "v1.0",
            "trigger_type": "RABBITMQ",
            "region": place.engine.settings.http.region,
            "instance_id": "i",
            "records": [{"messages": ["a", "é"], "topic_id": exchange}],
        }


async def test_batches_end_at_their_bytes_and_a_message_too_large_is_thrown_away(
    tmp_path: Path, broker: Broker, exchange: str
) -> None:
    async with house(tmp_path, [plugin], plugins__rabbitmq__batch_bytes=1 << 20) as place:
        trigger = await reading(place, broker, exchange, batch_size=1000)
        await broker.send(exchange, b"x" * EVENT_LIMIT, *[b"%d" % n + b"y" * 700_000 for n in range(3)], b"end")
        found = await messages(place, 4)

        assert [message[:1] for message in found] == ["0", "1", "2", "e"]
        assert len(await place.events()) >= 3
        await until(lambda: place.state(trigger).refused == 1)


async def test_few_large_messages_are_held(
    tmp_path: Path, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    accept = _Reader._accept

    async def watched(reader: _Reader, batch: Sequence[Any]) -> None:
        held.append(len(batch) + reader._queue._received.qsize())
        await accept(reader, batch)

    async with house(tmp_path, [plugin]) as place:
        trigger = await reading(place, broker, exchange, batch_size=1000)
    await broker.send(exchange, *[b"%d" % n + b"x" * 20_000 for n in range(300)])
    monkeypatch.setattr(_Reader, "_accept", watched)
    async with house(tmp_path, [plugin], plugins__rabbitmq__batch_bytes=100_000) as place:
        await messages(place, 300)
        await has(broker, trigger, ready=0)

        assert max(held) <= FIRST + 9
        assert max(held[-10:]) <= 9


async def test_a_message_with_an_id_is_accepted_once_and_others_as_often_as_they_come(
    tmp_path: Path, broker: Broker, exchange: str
) -> None:
    async with house(tmp_path, [plugin]) as place:
        trigger = await reading(place, broker, exchange)
        await broker.send(exchange, b"1", b"1", b"2")
        await broker.send(exchange, b"1", b"3")
        await broker.send(exchange, b"4", b"4", ids=False)
        found = await messages(place, 5)
        await has(broker, trigger, ready=0)

        assert found == ["1", "2", "3", "4", "4"]


async def test_what_stands_beside_a_message_stops_no_trigger(
    tmp_path: Path, broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, now = b"\xf0\xff", datetime.now(UTC)
    async with house(tmp_path, [plugin]) as place:
        trigger = await reading(place, broker, exchange)
        with monkeypatch.context() as patch:  # the unpatched client rejects such values
            for kind in ("shortstr", "timestamp"):
                patch.setitem(pamqp.encode.METHODS, kind, partial(_encoded, pamqp.encode.METHODS[kind], odd))
            patch.setattr(pamqp.encode, "short_string", partial(_encoded, pamqp.encode.short_string, odd))
            async with broker.channel() as channel:
                for body, properties, key in (
                    (b"id", Basic.Properties(message_id="odd"), ""),
                    (b"time", Basic.Properties(timestamp=now), ""),
                    (b"table", Basic.Properties(headers={"odd": 1}, message_id="1"), ""),
                    (b"key", Basic.Properties(), "odd"),
                ):
                    await channel.basic_publish(body, exchange=exchange, routing_key=key, properties=properties)
        await broker.send(exchange, b"good")

        assert await messages(place, 5) == ["id", "time", "table", "key", "good"]
        await has(broker, trigger, ready=0)


def _encoded(encode: Callable[[Any], bytes], odd: bytes, value: Any) -> bytes:
    if isinstance(value, datetime):
        return int(value.timestamp() * 1e6).to_bytes(8, "big")
    return bytes([len(odd)]) + odd if value == "odd" else encode(value)


async def test_a_topic_exchange_gives_all_its_messages(tmp_path: Path, broker: Broker) -> None:
    async with house(tmp_path, [plugin]) as place:
        exchange = await created(broker, "topic")
        await reading(place, broker, exchange)
        await broker.send(exchange, b"1")

        assert await messages(place, 1) == ["1"]


async def test_a_direct_exchange_is_refused(tmp_path: Path, broker: Broker) -> None:
    async with house(tmp_path, [plugin]) as place:
        trigger = await bound(place, broker, await created(broker, "direct"))

        await until(lambda: "is a direct exchange" in place.state(trigger).problem)


async def test_a_full_backlog_leaves_messages_at_the_broker(tmp_path: Path, broker: Broker, exchange: str) -> None:
    async with house(tmp_path, [plugin], queue__function_rows=1) as place:
        trigger = await reading(place, broker, exchange, batch_size=2)
        await broker.send(exchange, b"first")
        await messages(place, 1)
        await broker.send(exchange, *(b"%d" % number for number in range(10)))
        await until(lambda: "backlog" in place.state(trigger).problem)

        await has(broker, trigger, ready=6)  # two batches have left the queue


async def test_a_broker_that_forgets_acknowledgements_brings_nothing_twice(
    tmp_path: Path, broker: Broker, exchange: str
) -> None:
    sent = [b"%d" % number for number in range(300)]
    async with house(tmp_path, [plugin], **QUICK, plugins__rabbitmq__batch_wait=0.0) as place:
        trigger = await reading(place, broker, exchange, batch_size=5)
        await broker.send(exchange, *sent)
        await messages(place, 300)
        await restart(broker, lambda: place.state(trigger).problem != "")
        await runs(place, trigger)
        await broker.send(exchange, b"last")
        found = await messages(place, 301)
        await has(broker, trigger, ready=0)

        assert sorted(found) == sorted([*(number.decode() for number in sent), "last"])


async def test_a_broker_lost_while_a_batch_waits_for_room_brings_that_batch_again(
    tmp_path: Path, broker: Broker, exchange: str
) -> None:
    async with house(tmp_path, [plugin], **QUICK, queue__function_rows=1) as place:
        trigger = await reading(place, broker, exchange, batch_size=2)
        await broker.send(exchange, b"1", ids=False)
        await messages(place, 1)
        await broker.send(exchange, b"2", b"3", ids=False)
        await until(lambda: "backlog" in place.state(trigger).problem)
        await restart(broker, lambda: place.state(trigger).state == "failing")
        [first] = await place.keys()
        await place.engine.dispatcher.cancel(first)

        assert await messages(place, 3) == ["1", "2", "3"]


async def restart(broker: Broker, noticed: Any) -> None:
    await anyio.to_thread.run_sync(broker.kill)
    await until(noticed)
    await anyio.to_thread.run_sync(broker.start)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"exchange_name": "nowhere"}, "no exchange 'nowhere'"),
        ({"access_password": "wrong"}, "Login was refused"),
        ({"vhost": "elsewhere"}, "access to vhost 'elsewhere'"),
    ],
)
async def test_what_the_broker_refuses_is_told(
    tmp_path: Path, broker: Broker, exchange: str, change: dict[str, Any], named: str
) -> None:
    async with house(tmp_path, [plugin]) as place:
        trigger = await bound(place, broker, **{"exchange": exchange, **change})

        await until(lambda: named in place.state(trigger).problem)


@asynccontextmanager
async def paused(tmp_path: Path, broker: Broker, exchange: str) -> AsyncIterator[tuple[House, BoundTrigger]]:
    """Run a trigger whose backlog is full: the message 0 fills it, 1 and 2 wait in a batch, 3 and 4 in the next one."""
    async with house(tmp_path, [plugin], **QUICK, queue__function_rows=1) as place:
        trigger = await reading(place, broker, exchange, batch_size=2)
        await broker.send(exchange, b"0")
        await messages(place, 1)
        await broker.send(exchange, b"1", b"2", b"3", b"4")
        await until(lambda: "backlog" in place.state(trigger).problem)
        await has(broker, trigger, ready=0)
        yield place, trigger


async def drained(place: House, count: int) -> list[str]:
    """Make room in the backlog until ``count`` messages are accepted, and return them."""
    while len(found := await messages(place, 1)) < count:
        await place.engine.dispatcher.cancel((await place.keys())[-1])
        await anyio.sleep(0.01)
    return found


async def tells(place: House, trigger: BoundTrigger, *texts: str) -> None:
    await until(lambda: all(text in place.state(trigger).problem for text in texts))


@pytest.mark.parametrize("missing", [False, True], ids=["at once", "later"])
async def test_an_exchange_made_anew_gets_messages_through_while_the_backlog_is_full(
    tmp_path: Path, broker: Broker, exchange: str, missing: bool
) -> None:
    async with paused(tmp_path, broker, exchange) as (place, trigger):
        await broker.delete(exchange)
        if missing:
            await tells(place, trigger, f"no exchange '{exchange}'", "no messages arrive since")
        await broker.create(exchange, "topic")
        await tells(place, trigger, f"{exchange} was deleted and made anew: messages sent between", "backlog")
        await broker.send(exchange, b"5", b"6")
        await has(broker, trigger, ready=2)

        assert sorted(await drained(place, 7)) == list("0123456")
        assert place.state(trigger).failures == 0


async def test_a_removed_binding_is_made_again_while_the_backlog_is_full(
    tmp_path: Path, broker: Broker, exchange: str
) -> None:
    async with paused(tmp_path, broker, exchange) as (_, trigger):
        async with broker.channel() as channel:
            await channel.queue_unbind(queue_of(trigger), exchange, "#")
        await broker.send_routed(exchange, b"5")

        await has(broker, trigger, ready=1)


async def test_a_deleted_queue_is_made_again_and_its_unread_messages_are_counted_as_lost(
    tmp_path: Path, broker: Broker, exchange: str
) -> None:
    async with paused(tmp_path, broker, exchange) as (place, trigger):
        await broker.send(exchange, *(b"lost %d" % number for number in range(60)))
        await anyio.sleep(12 * QUICK["plugins__rabbitmq__check_every"])  # the broker answers every tenth look
        await broker.delete_queue(queue_of(trigger))
        await tells(place, trigger, "was deleted with 60 unread messages: messages sent between", "backlog")
        await broker.send_routed(exchange, b"5")

        assert sorted(await drained(place, 6)) == list("012345")
        assert place.state(trigger).lost == 60


async def test_what_was_made_anew_while_no_engine_ran_is_said(tmp_path: Path, broker: Broker, exchange: str) -> None:
    async with house(tmp_path, [plugin], **QUICK) as place:
        trigger = await reading(place, broker, exchange)
    await broker.delete(exchange)
    await broker.delete_queue(queue_of(trigger))
    await broker.create(exchange)
    async with house(tmp_path, [plugin], **QUICK) as place:
        await tells(
            place, trigger, f"queue {queue_of(trigger)} was deleted and exchange {exchange} was deleted and made"
        )
    async with house(tmp_path, [plugin], **QUICK) as place:
        await runs(place, trigger)

        assert place.state(trigger).problem == ""


async def test_an_exchange_made_anew_as_a_direct_one_is_told_until_it_is_usable(
    tmp_path: Path, broker: Broker, exchange: str
) -> None:
    async with house(tmp_path, [plugin], **QUICK) as place:
        trigger = await reading(place, broker, exchange)
        await broker.delete(exchange)
        await broker.create(exchange, "direct")
        await tells(place, trigger, "is a direct exchange", "no messages arrive since")
        await broker.delete(exchange)
        await broker.create(exchange)
        await tells(place, trigger, "made anew: messages sent between")
        await broker.send(exchange, b"1")

        assert await messages(place, 1) == ["1"]


async def test_an_existing_queue_is_read_and_left_as_it_is(tmp_path: Path, broker: Broker, exchange: str) -> None:
    queue = f"q-{uuid.uuid4()}"
    async with broker.channel() as channel:
        await channel.queue_declare(queue, durable=True)
        await channel.queue_bind(queue, exchange, "k")
    await broker.send(exchange, b"before")
    async with house(tmp_path, [plugin], **QUICK) as place:
        trigger = await reading(place, broker, exchange, queue=queue)
        await messages(place, 1)
        await broker.delete_queue(queue)
        await tells(place, trigger, f"no queue '{queue}'")
        async with broker.channel() as channel:
            await channel.queue_declare(queue, durable=True)
        await tells(place, trigger, f"queue {queue} was deleted: messages sent between")
        await broker.send("", b"after", key=queue)
        await messages(place, 2)
        assert await broker.ready(queue_of(trigger)) is None
        await place.delete(trigger)
        await until(lambda: place.engine.sources.state(trigger.id) is None)

        assert await broker.ready(queue) == 0


async def test_a_user_who_may_not_make_the_guard_gets_messages_and_a_notice(
    tmp_path: Path, broker: Broker, exchange: str
) -> None:
    await anyio.to_thread.run_sync(broker.add_reader, "reader")
    async with house(tmp_path, [plugin], **QUICK) as place:
        trigger = await reading(place, broker, exchange, access_user="reader")
        await tells(place, trigger, f"nothing shows whether {exchange} is made anew", "ACCESS_REFUSED")
        await broker.delete(exchange)
        await tells(place, trigger, "no messages arrive since")
        await broker.create(exchange)
        await broker.send_routed(exchange, b"1")

        assert await messages(place, 1) == ["1"]
        await tells(place, trigger, "no exchange", "messages sent between")


async def test_the_queue_and_the_guard_go_with_their_trigger(tmp_path: Path, broker: Broker, exchange: str) -> None:
    async with house(tmp_path, [plugin]) as place:
        trigger = await reading(place, broker, exchange)
        await has(broker, trigger, ready=0)
        await place.delete(trigger)

        await has(broker, trigger, ready=None)
        await until(lambda: place.engine.sources.state(trigger.id) is None)
        async with broker.channel() as channel:
            with pytest.raises(ChannelNotFoundEntity):
                await channel.exchange_declare(queue_of(trigger), passive=True)


async def test_a_trigger_may_be_moved_to_another_exchange(tmp_path: Path, broker: Broker, exchange: str) -> None:
    async with house(tmp_path, [plugin]) as place:
        other = await created(broker)
        trigger = await place.update(await reading(place, broker, exchange), exchange_name=other)
        while (await place.cursors(trigger)).get("exchange") != other.encode():  # noqa: ASYNC110  (a cursor sets no event)
            await anyio.sleep(0.01)  # until the source has left the first exchange
        await broker.send(exchange, b"1")
        await broker.send(other, b"2")

        assert await messages(place, 1) == ["2"]
        await has(broker, trigger, ready=0)


async def test_settings_say_where_a_broker_is_and_whom_to_believe(
    tmp_path: Path, broker: Broker, exchange: str
) -> None:
    table = "plugins__rabbitmq__instances__i__"
    login = {f"{table}address": f"127.0.0.1:9, {broker.tls_address}", f"{table}user": USER, f"{table}tls": True}
    known: dict[str, Any] = {**login, f"{table}password": PASSWORD, f"{table}ca_file": str(broker.ca_file)}
    async with house(tmp_path / "known", [plugin], **known) as place:
        await reading(place, broker, exchange, access_password="none", connect_address="")
        await broker.send(exchange, b"1")

        assert await messages(place, 1) == ["1"]
    del known[f"{table}ca_file"]
    async with house(tmp_path / "unknown", [plugin], **known) as place:
        trigger = await bound(place, broker, exchange)

        await until(lambda: "CERTIFICATE_VERIFY_FAILED" in place.state(trigger).problem)
