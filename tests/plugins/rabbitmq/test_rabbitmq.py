"""RabbitMQ as a source. Tests marked ``slow`` use a real broker."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
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
from msgspec import Struct
from pamqp.commands import Basic

from engine import EVENT_LIMIT, SettingsError
from engine.resources.bound_trigger import BoundTrigger
from engine.triggers.sources import SourceState
from plugins._shared.connections import deadline
from plugins.rabbitmq import plugin
from plugins.rabbitmq.binding import FIRST, BoundQueue, PrefetchWindow
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
        async with opened(Instance(address="127.0.0.1:9"), "", nullcontext()):
            pass


async def test_a_broker_that_is_away_is_named() -> None:
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1.*9"):
        async with opened(Instance(address="127.0.0.1:9"), "", nullcontext()):
            pass


async def test_a_broker_that_falls_silent_is_told(broker: Broker) -> None:
    async with silenced(broker) as (address, silence):
        with pytest.RaisesGroup(pytest.RaisesExc(ConnectionError, match="the broker said nothing within")):
            async with opened(Instance(address=address, user=USER, password=PASSWORD), VHOST, nullcontext()) as channel:
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


class Scene(Struct, kw_only=True):
    """Engine with a trigger of an exchange."""

    place: House
    broker: Broker
    exchange: str
    trigger: BoundTrigger

    @property
    def queue(self) -> str:
        return f"functiond-{self.trigger.id}"

    @property
    def state(self) -> SourceState:
        return self.place.state(self.trigger)

    async def send(self, *bodies: bytes, ids: bool = True) -> None:
        await self.broker.send(self.exchange, *bodies, ids=ids)

    async def messages(self, count: int) -> list[str]:
        return await messages(self.place, count)

    async def tells(self, *texts: str) -> None:
        await until(lambda: all(text in self.state.problem for text in texts))

    async def has(self, *, ready: int | None) -> None:
        """Wait until ``ready`` messages of the trigger's queue wait to be sent. None: until the queue is deleted."""
        while (seen := await self.broker.ready(self.queue)) != ready:
            assert seen is None or ready is None or seen > ready, f"{seen} is less than {ready}"
            await anyio.sleep(0.02)

    async def make_anew(self, kind: str = "fanout") -> None:
        """Create the exchange again. ``kind``: for ``direct``, no trigger can read it."""
        await self.broker.delete(self.exchange)
        await self.broker.create(self.exchange, kind)

    async def restart_broker(self, noticed: Callable[[], bool]) -> None:
        await anyio.to_thread.run_sync(self.broker.kill)
        await until(noticed)
        await anyio.to_thread.run_sync(self.broker.start)

    async def drained(self, count: int) -> list[str]:
        """Make room in the backlog until ``count`` messages are accepted, and return them."""
        while len(found := await self.messages(1)) < count:
            await self.place.engine.dispatcher.cancel((await self.place.keys())[-1])
            await anyio.sleep(0.01)
        return found


class Rabbit(Struct, kw_only=True):
    """Exchange of a broker, and a folder for engines."""

    folder: Path
    broker: Broker
    exchange: str

    @asynccontextmanager
    async def reading(
        self, folder: str = "", /, *, runs: bool = True, settings: Mapping[str, Any] = {}, **options: Any
    ) -> AsyncIterator[Scene]:
        """Run an engine with a trigger, which the first engine of a folder creates. ``runs``: wait until it reads."""
        async with house(self.folder / folder, [plugin], **{**QUICK, **settings}) as place:
            login = {"vhost": VHOST, "access_user": USER, "access_password": PASSWORD}
            where = {"instance_id": "i", "exchange_name": self.exchange, "connect_address": self.broker.address}
            there = list(place.engine.resources.triggers.all())
            made = {"batch_size": 10, **where, **login, **options}
            trigger = there[0] if there else await place.create("RABBITMQ", **made)
            scene = Scene(place=place, broker=self.broker, exchange=self.exchange, trigger=trigger)
            if runs:
                await until(lambda: scene.state.state == "running")
            yield scene

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[Scene]:
        """Run a trigger whose backlog is full: message 0 fills it, 1 and 2 wait in a batch, 3 and 4 in the next one."""
        async with self.reading(settings={"queue__function_rows": 1}, batch_size=2) as one:
            await one.send(b"0")
            await one.messages(1)
            await one.send(b"1", b"2", b"3", b"4")
            await one.tells("backlog")
            await one.has(ready=0)
            yield one


@pytest.fixture
async def rabbit(tmp_path: Path, broker: Broker) -> Rabbit:
    exchange = f"x-{uuid.uuid4()}"
    await broker.create(exchange)
    return Rabbit(folder=tmp_path, broker=broker, exchange=exchange)


async def test_a_batch_is_one_event(rabbit: Rabbit) -> None:
    async with rabbit.reading(settings={"plugins__rabbitmq__batch_wait": 60.0}, batch_size=2) as one:
        await one.send(b"a", b"\xc3\xa9", ids=False)
        await one.messages(2)

        [event] = await one.place.events()
        assert abs(event.pop("event_time") - one.place.engine.clock.now()) < 60
        assert event == {
            "event_version": "v1.0",
            "trigger_type": "RABBITMQ",
            "region": one.place.engine.settings.http.region,
            "instance_id": "i",
            "records": [{"messages": ["a", "é"], "topic_id": one.exchange}],
        }


async def test_batches_end_at_their_bytes_and_a_message_too_large_is_thrown_away(rabbit: Rabbit) -> None:
    async with rabbit.reading(settings={"plugins__rabbitmq__batch_bytes": 1 << 20}, batch_size=1000) as one:
        await one.send(b"x" * EVENT_LIMIT, *[b"%d" % n + b"y" * 700_000 for n in range(3)], b"end")
        found = await one.messages(4)

        assert [message[:1] for message in found] == ["0", "1", "2", "e"]
        assert len(await one.place.events()) >= 3
        await until(lambda: one.state.refused == 1)


async def test_few_large_messages_are_held(rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    accept = _Reader._accept

    async def watched(reader: _Reader, batch: Sequence[Any]) -> None:
        held.append(len(batch) + reader._queue._received.qsize())
        await accept(reader, batch)

    async with rabbit.reading(batch_size=1000):
        pass
    await rabbit.broker.send(rabbit.exchange, *[b"%d" % n + b"x" * 20_000 for n in range(300)])
    monkeypatch.setattr(_Reader, "_accept", watched)
    async with rabbit.reading(settings={"plugins__rabbitmq__batch_bytes": 100_000}) as one:
        await one.messages(300)
        await one.has(ready=0)

        assert max(held) <= FIRST + 9
        assert max(held[-10:]) <= 9


async def test_a_message_with_an_id_is_accepted_once_and_others_as_often_as_they_come(rabbit: Rabbit) -> None:
    async with rabbit.reading() as one:
        await one.send(b"1", b"1", b"2")
        await one.send(b"1", b"3")
        await one.send(b"4", b"4", ids=False)
        found = await one.messages(5)
        await one.has(ready=0)

        assert found == ["1", "2", "3", "4", "4"]


async def test_what_stands_beside_a_message_stops_no_trigger(rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch) -> None:
    odd, now = b"\xf0\xff", datetime.now(UTC)
    async with rabbit.reading() as one:
        with monkeypatch.context() as patch:  # the unpatched client rejects such values
            for kind in ("shortstr", "timestamp"):
                patch.setitem(pamqp.encode.METHODS, kind, partial(_encoded, pamqp.encode.METHODS[kind], odd))
            patch.setattr(pamqp.encode, "short_string", partial(_encoded, pamqp.encode.short_string, odd))
            async with one.broker.channel() as channel:
                for body, properties, key in (
                    (b"id", Basic.Properties(message_id="odd"), ""),
                    (b"time", Basic.Properties(timestamp=now), ""),
                    (b"table", Basic.Properties(headers={"odd": 1}, message_id="1"), ""),
                    (b"key", Basic.Properties(), "odd"),
                ):
                    await channel.basic_publish(body, exchange=one.exchange, routing_key=key, properties=properties)
        await one.send(b"good")

        assert await one.messages(5) == ["id", "time", "table", "key", "good"]
        await one.has(ready=0)


def _encoded(encode: Callable[[Any], bytes], odd: bytes, value: Any) -> bytes:
    if isinstance(value, datetime):
        return int(value.timestamp() * 1e6).to_bytes(8, "big")
    return bytes([len(odd)]) + odd if value == "odd" else encode(value)


async def test_a_broker_that_forgets_acknowledgements_brings_nothing_twice(rabbit: Rabbit) -> None:
    sent = [b"%d" % number for number in range(300)]
    async with rabbit.reading(settings={"plugins__rabbitmq__batch_wait": 0.0}, batch_size=5) as one:
        await one.send(*sent)
        await one.messages(300)
        await one.restart_broker(lambda: one.state.problem != "")
        await until(lambda: one.state.state == "running")
        await one.send(b"last")
        found = await one.messages(301)
        await one.has(ready=0)

        assert sorted(found) == sorted([*(number.decode() for number in sent), "last"])


async def test_a_broker_lost_while_a_batch_waits_for_room_brings_that_batch_again(rabbit: Rabbit) -> None:
    async with rabbit.reading(settings={"queue__function_rows": 1}, batch_size=2) as one:
        await one.send(b"1", ids=False)
        await one.messages(1)
        await one.send(b"2", b"3", ids=False)
        await one.tells("backlog")
        await one.restart_broker(lambda: one.state.state == "failing")
        [first] = await one.place.keys()
        await one.place.engine.dispatcher.cancel(first)

        assert await one.messages(3) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"exchange_name": "nowhere"}, "no exchange 'nowhere'"),
        ({"access_password": "wrong"}, "Login was refused"),
        ({"vhost": "elsewhere"}, "access to vhost 'elsewhere'"),
    ],
)
async def test_what_the_broker_refuses_is_told(rabbit: Rabbit, change: dict[str, Any], named: str) -> None:
    async with rabbit.reading(runs=False, **change) as one:
        await one.tells(named)


@pytest.mark.parametrize("missing", [False, True], ids=["at once", "later"])
async def test_an_exchange_made_anew_gets_messages_through_while_the_backlog_is_full(
    rabbit: Rabbit, missing: bool
) -> None:
    async with rabbit.paused() as one:
        await one.broker.delete(one.exchange)
        if missing:
            await one.tells(f"no exchange '{one.exchange}'", "no messages arrive since")
        await one.broker.create(one.exchange, "topic")
        await one.tells(f"{one.exchange} was deleted and made anew: messages sent between", "backlog")
        await one.send(b"5", b"6")
        await one.has(ready=2)

        assert sorted(await one.drained(7)) == list("0123456")
        assert one.state.state == "running"  # possibly anew: a look may cross the end of its channel


async def test_a_removed_binding_is_made_again_while_the_backlog_is_full(rabbit: Rabbit) -> None:
    async with rabbit.paused() as one:
        async with one.broker.channel() as channel:
            await channel.queue_unbind(one.queue, one.exchange, "#")
        await one.broker.send_routed(one.exchange, b"5")

        await one.has(ready=1)


async def test_a_deleted_queue_is_made_again_and_its_unread_messages_are_counted_as_lost(rabbit: Rabbit) -> None:
    async with rabbit.paused() as one:
        await one.send(*(b"lost %d" % number for number in range(60)))
        await anyio.sleep(12 * QUICK["plugins__rabbitmq__check_every"])  # the broker answers every tenth look
        await one.broker.delete_queue(one.queue)
        await one.tells("was deleted with 60 unread messages: messages sent between", "backlog")
        await one.broker.send_routed(one.exchange, b"5")

        assert sorted(await one.drained(6)) == list("012345")
        assert one.state.lost == 60


async def test_what_was_made_anew_while_no_engine_ran_is_said(rabbit: Rabbit) -> None:
    async with rabbit.reading() as one:
        pass
    await one.make_anew()
    await one.broker.delete_queue(one.queue)
    async with rabbit.reading(runs=False) as one:
        await one.tells(f"queue {one.queue} was deleted and exchange {one.exchange} was deleted and made")
    async with rabbit.reading() as one:
        assert one.state.problem == ""


async def test_an_exchange_made_anew_as_a_direct_one_is_told_until_it_is_usable(rabbit: Rabbit) -> None:
    async with rabbit.reading() as one:
        await one.make_anew("direct")
        await one.tells("is a direct exchange", "no messages arrive since")
        await one.make_anew()
        await one.tells("made anew: messages sent between")
        await one.send(b"1")

        assert await one.messages(1) == ["1"]


async def test_a_type_that_changes_while_the_queue_is_bound_is_told(
    rabbit: Rabbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rabbit.reading() as one:
        check, kinds = BoundQueue._check_type, ["direct"]

        async def check_and_replace(queue: BoundQueue) -> None:
            await check(queue)
            if kinds:
                await one.make_anew(kinds.pop())

        monkeypatch.setattr(BoundQueue, "_check_type", check_and_replace)
        await one.make_anew()
        await one.tells("is a direct exchange", "no messages arrive since")


async def test_an_existing_queue_is_read_and_left_as_it_is(rabbit: Rabbit) -> None:
    queue, broker = f"q-{uuid.uuid4()}", rabbit.broker
    async with broker.channel() as channel:
        await channel.queue_declare(queue, durable=True)
        await channel.queue_bind(queue, rabbit.exchange, "k")
    await broker.send(rabbit.exchange, b"before")
    async with rabbit.reading(queue=queue) as one:
        await one.messages(1)
        await broker.delete_queue(queue)
        await one.tells(f"no queue '{queue}'")
        async with broker.channel() as channel:
            await channel.queue_declare(queue, durable=True)
        await one.tells(f"queue {queue} was deleted: messages sent between")
        await broker.send("", b"after", key=queue)
        await one.messages(2)
        assert await broker.ready(one.queue) is None
        await one.place.delete(one.trigger)
        await until(lambda: one.place.engine.sources.state(one.trigger.id) is None)

        assert await broker.ready(queue) == 0


async def test_a_user_who_may_not_make_the_guard_gets_messages_and_a_notice(rabbit: Rabbit) -> None:
    await anyio.to_thread.run_sync(rabbit.broker.add_reader, "reader")
    async with rabbit.reading(access_user="reader") as one:
        await one.tells(f"nothing shows whether {one.exchange} is made anew", "ACCESS_REFUSED")
        await one.broker.delete(one.exchange)
        await one.tells("no messages arrive since")
        await one.broker.create(one.exchange)
        await one.broker.send_routed(one.exchange, b"1")

        assert await one.messages(1) == ["1"]
        await one.tells("no exchange", "messages sent between")


async def test_the_queue_and_the_guard_go_with_their_trigger(rabbit: Rabbit) -> None:
    async with rabbit.reading() as one:
        await one.has(ready=0)
        await one.place.delete(one.trigger)

        await one.has(ready=None)
        await until(lambda: one.place.engine.sources.state(one.trigger.id) is None)
        async with one.broker.channel() as channel:
            with pytest.raises(ChannelNotFoundEntity):
                await channel.exchange_declare(one.queue, passive=True)


async def test_a_trigger_may_be_moved_to_another_exchange(rabbit: Rabbit) -> None:
    other = f"x-{uuid.uuid4()}"
    await rabbit.broker.create(other)
    async with rabbit.reading() as one:
        await one.place.update(one.trigger, exchange_name=other)

        async def has_moved() -> bool:
            return (await one.place.cursors(one.trigger)).get("exchange") == other.encode()

        await until(has_moved)
        await one.send(b"1")
        await one.broker.send(other, b"2")

        assert await one.messages(1) == ["2"]
        await one.has(ready=0)


async def test_settings_say_where_a_broker_is_and_whom_to_believe(rabbit: Rabbit) -> None:
    table = "plugins__rabbitmq__instances__i__"
    address = f"127.0.0.1:9, {rabbit.broker.tls_address}"
    unknown = {f"{table}address": address, f"{table}user": USER, f"{table}password": PASSWORD, f"{table}tls": True}
    known = {**unknown, f"{table}ca_file": str(rabbit.broker.ca_file)}
    async with rabbit.reading("known", settings=known, access_password="none", connect_address="") as one:
        await one.send(b"1")

        assert await one.messages(1) == ["1"]
    async with rabbit.reading("unknown", runs=False, settings=unknown) as one:
        await one.tells("CERTIFICATE_VERIFY_FAILED")
