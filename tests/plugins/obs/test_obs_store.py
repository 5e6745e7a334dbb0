"""Object store contract, run against a real S3 server and against a folder."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec
import pytest
from anyio.abc import SocketAttribute, SocketStream

from engine import ObjectMissing, SettingsError, StoreRefused, StoreUnavailable
from plugins.obs import plugin
from plugins.obs.links import code_links
from plugins.obs.opening import StoreOpener
from plugins.obs.options import ObsSettings
from plugins.obs.store import ObjectStore
from tests.support.ports import free_ports
from tests.support.s3_server import ACCESS, SECRET, S3Server


@pytest.fixture(params=["s3", "folder"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> ObsSettings:
    if request.param == "folder":
        return ObsSettings(folder=str(tmp_path / "objects"))
    return s3_service(request.getfixturevalue("seaweed").service.endpoint)


@pytest.fixture
async def store(service: ObsSettings) -> AsyncIterator[ObjectStore]:
    async with StoreOpener(service).open() as opened:
        yield opened


def s3_service(endpoint: str, secret: str = SECRET, timeout: float = 60.0) -> ObsSettings:
    return ObsSettings(endpoint=endpoint, access_key=ACCESS, secret_key=secret, path_style=True, timeout=timeout)


async def content(store: ObjectStore, bucket: str, key: str) -> bytes:
    async with store.read(bucket, key) as blocks:
        return b"".join([block async for block in blocks])


@pytest.mark.parametrize("key", ["a.zip", "deep/er/ü b+c%20.zip"])
async def test_what_was_written_is_read(store: ObjectStore, key: str) -> None:
    written = os.urandom((1 << 20) + 3)

    etag = await store.write("bucket", key, written)

    assert await content(store, "bucket", key) == written
    assert etag


async def test_an_object_is_replaced_and_has_another_etag(store: ObjectStore) -> None:
    first = await store.write("bucket", "again", b"1")
    second = await store.write("bucket", "again", b"2")

    assert await content(store, "bucket", "again") == b"2"
    assert first != second


async def test_what_is_not_there_is_told(store: ObjectStore) -> None:
    await store.write("bucket", "there", b"")

    with pytest.raises(ObjectMissing, match="no such object: bucket bucket, key elsewhere"):
        await content(store, "bucket", "elsewhere")
    with pytest.raises(ObjectMissing, match="no such bucket"):
        await content(store, "nowhere", "there")


async def test_a_list_comes_in_pages_by_key(store: ObjectStore) -> None:
    for key in ("in/c", "in/a", "out/a", "in/b"):
        await store.write("listed", key, key.encode())

    first = await store.list("listed", prefix="in/", limit=2)
    rest = await store.list("listed", prefix="in/", after="in/b")

    assert ([stored.key for stored in first.objects], first.more) == (["in/a", "in/b"], True)
    assert ([stored.key for stored in rest.objects], rest.more) == (["in/c"], False)
    assert (rest.objects[0].size, bool(rest.objects[0].etag)) == (4, True)
    assert rest.objects[0].modified_at > 1e9


async def test_leaving_an_object_half_read_is_fine(store: ObjectStore) -> None:
    await store.write("bucket", "long", bytes(8 << 20))

    async with store.read("bucket", "long") as blocks:
        block = await anext(blocks)

    assert 0 < len(block) < 8 << 20
    assert await content(store, "bucket", "long") == bytes(8 << 20)


async def test_a_wrong_key_is_refused(seaweed: S3Server) -> None:
    async with StoreOpener(s3_service(seaweed.service.endpoint, secret="wrong")).open() as store:
        with pytest.raises(StoreRefused, match="SignatureDoesNotMatch"):
            await content(store, "bucket", "key")


async def test_a_store_that_is_down_is_unavailable() -> None:
    (port,) = free_ports(1)

    async with StoreOpener(s3_service(f"http://127.0.0.1:{port}")).open() as store:
        with pytest.raises(StoreUnavailable):
            await content(store, "bucket", "key")


@asynccontextmanager
async def answering(reply: bytes, *, hang: bool) -> AsyncIterator[str]:
    """Start a store that sends this reply to every request, then closes the connection or stays silent."""

    async def answer(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(reply)
            if hang:
                await anyio.sleep_forever()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, answer)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"


@pytest.mark.parametrize(
    ("reply", "hang", "problem"),
    [
        (HALF, False, "an incomplete one"),
        (HALF, True, "was not received within 0.5 s"),
        (b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n", False, "503"),
        (b"no HTTP\r\n\r\n", False, "no answer"),
        (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", False, "not followed"),
    ],
)
async def test_an_object_that_does_not_come_whole_is_unavailable(reply: bytes, hang: bool, problem: str) -> None:
    async with (
        answering(reply, hang=hang) as url,
        StoreOpener(s3_service(url, timeout=0.5 if hang else 60.0)).open() as store,
    ):
        with pytest.raises(StoreUnavailable, match=problem):
            await content(store, "bucket", "key")


@pytest.mark.parametrize(
    "key", ["../secret", "a/../../secret", "/secret", "link", "linked/secret", "a//b", ".", "fifo", "loop", "l" * 300]
)
async def test_nothing_outside_the_folder_is_read(tmp_path: Path, key: str) -> None:
    bucket = tmp_path / "objects" / "bucket"
    (bucket / "a").mkdir(parents=True)
    (bucket / "a" / "b").write_text("inside")
    (tmp_path / "objects" / "secret").write_text("secret")
    (bucket / "link").symlink_to(tmp_path / "objects" / "secret")
    (bucket / "linked").symlink_to(tmp_path / "objects")
    (bucket / "loop").symlink_to("loop")
    os.mkfifo(bucket / "fifo")

    async with StoreOpener(ObsSettings(folder=str(tmp_path / "objects"))).open() as store:
        with pytest.raises(ObjectMissing):
            await content(store, "bucket", key)
        assert [stored.key for stored in (await store.list("bucket")).objects] == ["a/b"]


@pytest.mark.parametrize("bucket", ["..", ".", "", "../outside", "linked", "bucket/a", "./bucket"])
async def test_only_subfolders_of_the_folder_are_buckets(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "objects" / "bucket" / "a").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (tmp_path / "objects" / "linked").symlink_to(tmp_path / "outside")

    async with StoreOpener(ObsSettings(folder=str(tmp_path / "objects"))).open() as store:
        with pytest.raises(ObjectMissing):
            await store.list(bucket)
        with pytest.raises(ObjectMissing):
            await store.write(bucket, "new", b"")
        with pytest.raises(ObjectMissing):
            await content(store, bucket, "secret")

    assert [name for _, _, names in os.walk(tmp_path) for name in names] == ["secret"]


async def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "bucket" / "taken").mkdir(parents=True)
    async with StoreOpener(ObsSettings(folder=str(tmp_path))).open() as store:
        with pytest.raises(StoreRefused):
            await store.write("bucket", "taken", b"content")

    assert os.listdir(tmp_path / "bucket") == ["taken"]


async def test_an_object_of_a_folder_cannot_lie_below_another(tmp_path: Path) -> None:
    async with StoreOpener(ObsSettings(folder=str(tmp_path))).open() as store:
        await store.write("bucket", "a", b"")

        with pytest.raises(StoreRefused, match="below or above"):
            await store.write("bucket", "a/b", b"")
        assert [stored.key for stored in (await store.list("bucket")).objects] == ["a"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"endpoint": "http://here", "folder": "/there"}, "not both"),
        ({"endpoint": "http://here"}, "access_key"),
        ({"endpoint": "ftp://here", "access_key": "a", "secret_key": "s"}, "must look like"),
        ({"endpoint": "https://here/path", "access_key": "a", "secret_key": "s"}, "must look like"),
        ({"endpoint": "http://here:port", "access_key": "a", "secret_key": "s"}, "must look like"),
        ({"bucket": "b"}, "unknown field"),
    ],
)
def test_settings_that_do_not_fit_are_refused(table: dict[str, str], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(table, ObsSettings)


def test_the_secret_is_not_shown() -> None:
    assert SECRET not in repr(s3_service("http://here"))


def test_an_endpoint_without_its_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.obs.opening.find_spec", lambda name: None)

    with pytest.raises(SettingsError, match=r"pip install '.\[obs\]'"):
        code_links(s3_service("http://here"))
    assert code_links(ObsSettings(folder="/anywhere")) is not None
    assert code_links(ObsSettings()) is None
    assert plugin.code_links is code_links
