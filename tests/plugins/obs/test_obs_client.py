"""Client of an S3 store: one for all requests, replaced when it fails, closed with the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from aiobotocore.session import AioSession
from anyio.abc import SocketAttribute, SocketStream
from msgspec import Struct, field

from engine import StoreUnavailable
from engine.errors import FunctiondError
from plugins.obs import plugin as obs
from plugins.obs.destination import ObsDestination, ObsParam
from plugins.obs.opening import StoreOpener
from plugins.obs.options import ObsSettings
from plugins.obs.service import ObsService
from plugins.obs.store import ObjectStore
from tests.doubles import ManualClock
from tests.plugins import delivering
from tests.plugins.obs.test_obs_stores import seen, settings_of
from tests.support.s3_server import ACCESS, SECRET, S3Server, free_s3_ports, s3_server
from tests.support.triggering import House, house

RECORD = b'{"request_context":{"request_id":"id"}}'
BATCH_SIZE = 32  #: concurrent deliveries per destination
DAY = 86_400.0


class Made(Struct):
    """Sessions that the client's library loaded, and connection pools of clients that have sent a request."""

    sessions: list[AioSession] = field(default_factory=list)
    pools: list[aiohttp.ClientSession] = field(default_factory=list)

    @property
    def closed(self) -> list[bool]:
        return [pool.closed for pool in self.pools]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Record the objects that the library creates during the test."""
    made = Made()
    note(monkeypatch, AioSession, made.sessions)
    note(monkeypatch, aiohttp.ClientSession, made.pools)
    return made


def note(monkeypatch: pytest.MonkeyPatch, kind: type, instances: list[Any]) -> None:
    make = kind.__init__  # type: ignore[misc]

    def noted(instance: Any, *parts: Any, **more: Any) -> None:
        instances.append(instance)
        make(instance, *parts, **more)

    monkeypatch.setattr(kind, "__init__", noted)


async def deliver(place: House, number: int, expires: int = 0) -> None:
    destination = ObsDestination(ObsParam(bucket="outcomes", expires=expires))
    await delivering.deliver(place, "OBS", destination, RECORD, number=number)


def opened(place: House) -> AbstractAsyncContextManager[ObjectStore]:
    """Open the engine's store."""
    hub = place.engine.plugins.of(obs).service
    assert isinstance(hub, ObsService)
    return hub.opener.open()


async def read(place: House, key: str) -> bytes:
    async with opened(place) as store, store.read("bucket", key) as blocks:
        return b"".join([block async for block in blocks])


async def test_deliveries_that_begin_together_share_one_client(tmp_path: Path, seaweed: S3Server, made: Made) -> None:
    async def attempt(number: int) -> None:
        with suppress(StoreUnavailable):  # a busy SeaweedFS may answer 500 to many at once
            await deliver(place, number)

    async with house(tmp_path, [obs], **settings_of(seaweed.service)) as place:
        for _ in range(2):
            async with anyio.create_task_group() as tasks:
                for number in range(BATCH_SIZE):
                    tasks.start_soon(attempt, number)

        assert (len(made.sessions), made.closed) == (1, [False])
    assert made.closed == [True]


async def test_triggers_and_expiry_use_the_client_of_deliveries(tmp_path: Path, seaweed: S3Server, made: Made) -> None:
    clock = ManualClock(1_000_000.0)
    async with house(tmp_path, [obs], clock=clock, **settings_of(seaweed.service)) as place:
        await deliver(place, 1, expires=1)
        trigger = await place.create("OBS", bucket="outcomes", events=["ObjectCreated"])
        await seen(place, trigger)
        clock.advance(2 * DAY)
        await deliver(place, 2, expires=1)
        parts = place.engine.plugins.of(obs)
        assert isinstance(parts.service, ObsService)
        await parts.service.expiry._delete_due(parts)

        assert len(await parts.store.scan("expiring")) == 1
        assert (len(made.sessions), made.closed) == (1, [False])
    assert made.closed == [True]


async def test_a_client_that_lost_its_store_is_replaced(tmp_path: Path, made: Made) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    server = S3Server(ports=free_s3_ports())
    async with house(tmp_path / "data", [obs], **settings_of(server.service)) as place:
        with s3_server(first, server.ports):
            await deliver(place, 1)
        with pytest.raises(StoreUnavailable):
            await deliver(place, 2)
        with s3_server(second, server.ports):
            await deliver(place, 2)
            await deliver(place, 3)

        assert (len(made.sessions), made.closed) == (1, [True, False])
    assert made.closed == [True, True]


# --- failures -----------------------------------------------------------------------------------------------------


class Scripted(Struct):
    """Server with scripted replies, chosen by the last part of the path."""

    replies: dict[str, bytes] = field(default_factory=dict)
    rest: bytes = b""  #: second part of the object ``long``
    go_on: anyio.Event = field(default_factory=anyio.Event)  #: releases ``rest``
    silent: int = 0  #: number of requests that are never answered

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            while (head := await self._request(stream)) is not None:
                key = head.split(b" ", 2)[1].rpartition(b"/")[2].decode()
                await stream.send(self.replies[key])
                if key == "long":
                    await self.go_on.wait()
                    await stream.send(self.rest)
                elif key == "bad" and b"Connection: close" in self.replies[key]:
                    return
                elif key == "silent":
                    self.silent += 1
                    await anyio.sleep_forever()

    async def _request(self, stream: SocketStream) -> bytes | None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            try:
                head += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return None
        return head


@asynccontextmanager
async def scripted(server: Scripted) -> AsyncIterator[ObsSettings]:
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, server.serve)
        url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        yield ObsSettings(endpoint=url, access_key=ACCESS, secret_key=SECRET, path_style=True)
        tasks.cancel_scope.cancel()


def answer(status: str, body: bytes, *, length: int | None = None, last: bool = False) -> bytes:
    end = "Connection: close\r\n" if last else ""
    return f"HTTP/1.1 {status}\r\n{end}Content-Length: {length or len(body)}\r\n\r\n".encode() + body


def error(status: str, code: str) -> bytes:
    return answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())


GOOD = answer("200 OK", b"good")
SILENT = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("reply", "replaced"),
    [
        (error("404 Not Found", "NoSuchKey"), False),
        (error("404 Not Found", "NoSuchBucket"), False),
        (error("403 Forbidden", "AccessDenied"), False),
        (error("503 Slow Down", "SlowDown"), False),
        (error("400 Bad Request", "ExpiredToken"), True),
        (answer("200 OK", b"half", length=100, last=True), True),
        (b"no HTTP\r\n\r\nConnection: close", True),
        (SILENT, True),
    ],
    ids=["no key", "no bucket", "refused", "slow down", "expired", "half", "no HTTP", "no answer in time"],
)
async def test_only_a_lost_connection_or_expired_credentials_replace_the_client(
    tmp_path: Path, made: Made, reply: bytes, replaced: bool
) -> None:
    silent = reply == SILENT
    async with (
        scripted(Scripted({"good": GOOD, "bad": reply})) as service,
        house(tmp_path, [obs], **settings_of(service, **({"timeout": 1.0} if silent else {}))) as place,
    ):
        assert await read(place, "good") == b"good"
        with pytest.raises(FunctiondError, match="within 1 s" if silent else None):
            await read(place, "bad")
        assert await read(place, "good") == b"good"

        assert made.closed == ([True, False] if replaced else [False])


async def test_a_client_that_failed_is_closed_when_the_last_request_that_uses_it_ends(
    tmp_path: Path, made: Made
) -> None:
    long, server = bytes(4 << 20), Scripted({"good": GOOD, "bad": answer("200 OK", b"half", length=100, last=True)})
    server.replies["long"], server.rest = answer("200 OK", long[: 2 << 20], length=len(long)), long[2 << 20 :]
    async with scripted(server) as service, house(tmp_path, [obs], **settings_of(service)) as place:
        async with opened(place) as store, store.read("bucket", "long") as blocks:
            content = await anext(blocks)
            with pytest.raises(StoreUnavailable):
                await read(place, "bad")
            assert await read(place, "good") == b"good"
            meanwhile = made.closed
            server.go_on.set()
            content += b"".join([block async for block in blocks])

        assert (meanwhile, made.closed, len(content)) == ([False, False], [True, False], len(long))


async def test_a_request_that_is_cancelled_keeps_no_client_open(tmp_path: Path, made: Made) -> None:
    server = Scripted({"good": GOOD, "silent": SILENT})
    server.replies["bad"] = answer("200 OK", b"half", length=100, last=True)
    async with scripted(server) as service, house(tmp_path, [obs], **settings_of(service)) as place:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, place, "silent")
            while not made.pools:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(StoreUnavailable):
                await read(place, "bad")
            meanwhile = made.closed
            tasks.cancel_scope.cancel()

        assert (meanwhile, made.closed) == ([False], [True])


async def test_without_an_engine_the_client_is_closed_with_its_last_user(made: Made) -> None:
    async with scripted(Scripted({"good": GOOD})) as service:
        opener = StoreOpener(service)
        async with opener.open() as store:
            async with opener.open() as other, other.read("bucket", "good"):
                pass
            async with store.read("bucket", "good"):
                pass
            meanwhile = made.closed

        assert (meanwhile, made.closed) == ([False], [True])


async def test_an_error_of_the_reader_is_its_own_and_replaces_no_client(tmp_path: Path, made: Made) -> None:
    async with (
        scripted(Scripted({"good": GOOD})) as service,
        house(tmp_path, [obs], **settings_of(service)) as place,
    ):
        with pytest.raises(OSError, match="disk full"):
            async with opened(place) as store, store.read("bucket", "good"):
                raise OSError("disk full")

        assert (await read(place, "good"), made.closed) == (b"good", [False])


async def test_requests_that_hang_keep_no_other_waiting(tmp_path: Path, made: Made) -> None:
    server = Scripted({"good": GOOD, "silent": SILENT})
    async with scripted(server) as service, house(tmp_path, [obs], **settings_of(service)) as place:
        async with anyio.create_task_group() as tasks:
            for _ in range(4 * BATCH_SIZE):
                tasks.start_soon(read, place, "silent")
            while server.silent < 4 * BATCH_SIZE:
                await anyio.lowlevel.checkpoint()
            content = await read(place, "good")
            tasks.cancel_scope.cancel()

        assert (content, made.closed) == (b"good", [False])
