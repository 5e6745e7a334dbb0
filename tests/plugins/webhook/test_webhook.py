"""Signed webhooks in both directions, CloudEvents of a channel, and plugin routes on the API's listener."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from msgspec import Struct
from msgspec.structs import replace

from engine import PushRequest, Reply, SettingsError, Unauthorized, Undeliverable
from engine.asgi.listener import listen
from engine.code.store import CodeSource
from engine.errors import InvalidField
from engine.resources.bound_trigger import BoundTrigger
from engine.resources.triggers import TriggerDraft
from engine.triggers.routes import Mounts, PluginRoutes
from plugins.eventgrid import plugin as eventgrid
from plugins.webhook import plugin as webhook
from plugins.webhook.destination import WebhookDestination, WebhookParam
from plugins.webhook.signatures import check_standard, sign
from tests.plugins import delivering
from tests.support.http_app import PROJECT, SOURCE, encoded
from tests.support.triggering import House, NeverStarts, api_client, house, until

SECRET = "whsec_" + base64.b64encode(b"a key of some length").decode()
KEY = b"a key of some length"
NOW = 1_700_000_000
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Hook(Struct, kw_only=True):
    """Engine with a running trigger of a webhook, and a client of it."""

    place: House
    client: httpx.AsyncClient
    trigger: BoundTrigger

    async def push(self, body: bytes, message_id: str = "m1", *, query: str = "", **headers: str) -> httpx.Response:
        """Push a message that is signed unless its headers are given."""
        return await self.client.post(
            self.trigger.path + query, content=body, headers=headers or self.signed(body, message_id)
        )

    def signed(self, body: bytes, message_id: str = "m1", key: bytes = KEY) -> dict[str, str]:
        now = int(self.place.engine.clock.now())
        signature = f"v1,x {sign(key, message_id, now, body)}"
        return {"webhook-id": message_id, "webhook-timestamp": str(now), "webhook-signature": signature}


@asynccontextmanager
async def hooked(folder: Path, *, settings: dict[str, Any] | None = None, **options: str) -> AsyncIterator[Hook]:
    async with house(folder, [webhook], **(settings or {})) as place, api_client(place) as client:
        trigger = await place.create("WEBHOOK", **{"name": "orders", "secret": SECRET, **options})
        await until(lambda: place.state(trigger).state == "running")
        yield Hook(place=place, client=client, trigger=trigger)


def test_a_signature_is_that_of_the_specification() -> None:
    # Example of the Standard Webhooks specification.
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'

    signature = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "headers",
    [
        {b"webhook-id": b""},
        {b"webhook-timestamp": b"soon"},
        {b"webhook-timestamp": b"%d" % (NOW - 301)},
        {b"webhook-signature": b"v1,AAAA"},
        {b"webhook-id": b"other"},
    ],
)
def test_what_is_not_signed_so_is_refused(headers: Mapping[bytes, bytes]) -> None:
    good = {
        b"webhook-id": b"m",
        b"webhook-timestamp": b"%d" % NOW,
        b"webhook-signature": sign(KEY, "m", NOW, b"{}").encode(),
    }

    assert check_standard(KEY, good, b"{}", NOW + 299) == "m"
    with pytest.raises(Unauthorized):
        check_standard(KEY, {**good, **headers}, b"{}", NOW)


async def test_a_signed_request_becomes_one_event_however_often_it_comes(tmp_path: Path) -> None:
    async with hooked(tmp_path) as hook:
        body = b'{"order": 7}'
        refused = await hook.push(body, **hook.signed(body, key=b"wrong"))
        first, again = [await hook.push(body, query="?a=b") for _ in range(2)]
        other = await hook.push(b"else")

        assert (refused.status_code, refused.json()["error_code"]) == (401, "FSS.0401")
        assert (first.status_code, first.json(), other.status_code) == (202, again.json(), 200)
        [event] = await hook.place.events()
        told = (event["id"], event["body"], event["query"], event["trigger_name"])
        assert told == ("m1", body.decode(), "a=b", "orders")
        assert not {"webhook-signature", "host"} & set(event["headers"])
        assert hook.trigger.shown["secret"] == "******"


async def test_a_webhook_hands_on_its_trace_context(tmp_path: Path) -> None:
    async with hooked(tmp_path) as hook:
        for number, traceparent in enumerate((TRACE, "wrong")):
            await hook.push(b"1", **hook.signed(b"1", f"m{number}"), traceparent=traceparent)

        assert await hook.place.traces() == [TRACE, ""]


async def test_a_body_that_github_signed_runs_once_under_any_delivery_id(tmp_path: Path) -> None:
    async with hooked(tmp_path, secret="a text of some length", scheme="github") as hook:

        async def push(body: bytes, event: str = "push", **headers: str) -> httpx.Response:
            digest = hmac.digest(b"a text of some length", body, "sha256").hex()
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            return await hook.push(
                body, **{"x-hub-signature-256": f"sha256={digest}", "x-github-event": event, **given}
            )

        first, redelivered = [await push(b"\xff", x_github_delivery="d") for _ in range(2)]
        replayed = [
            await push(b"\xff", x_github_delivery="other"),
            await push(b"\xff"),
            await push(b"\xff", "release", x_github_delivery="third"),
        ]
        different = await push(b"2", x_github_delivery="d2")

        assert (first.status_code, redelivered.status_code, different.status_code) == (202, 202, 202)
        assert first.headers.get_list("cache-control") == ["no-store"]
        assert first.json() == redelivered.json()
        assert [(reply.status_code, reply.json()) for reply in replayed] == [(200, {"duplicate": True})] * 3
        told = [(event["id"], event["body"], event["isBase64Encoded"]) for event in await hook.place.events()]
        assert told == [("d", "/w==", True), ("d2", "2", False)]
        assert (await hook.place.events())[0]["headers"]["x-github-event"] == "push"


async def test_a_push_that_is_refused_for_a_while_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with hooked(tmp_path, settings={"queue__function_rows": 1}) as hook:
        await hook.push(b"0", "0")
        full = await hook.push(b"1", "1")
        await hook.place.engine.catalog.limit(hook.place.urn, 0)
        disabled = await hook.push(b"1", "1")
        hook.place.engine.intake.close()
        closed = await hook.push(b"1", "1")

        waits = [(reply.status_code, reply.headers["retry-after"]) for reply in (full, disabled, closed)]
        assert waits == [(429, "5"), (429, "60"), (503, "2")]


async def test_a_bad_secret_is_refused_and_not_shown(tmp_path: Path) -> None:
    async with house(tmp_path, [webhook]) as place:
        with pytest.raises(InvalidField, match="base64") as refused:
            await place.create("WEBHOOK", name="orders", secret="whsec_not base64 at all")

        assert "not base64" not in str(refused.value)


# --- CloudEvents --------------------------------------------------------------------------------------------

EVENT: dict[str, Any] = {"id": "1", "source": "shop", "specversion": "1.0", "type": "paid", "data": {"n": 1}}


async def post(client: httpx.AsyncClient, body: Any, kind: str = "cloudevents+json", **headers: str) -> httpx.Response:
    headers = {"content-type": f"application/{kind}", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return await client.post("/triggers/eventgrid/c", content=json.dumps(body), headers=headers)


@asynccontextmanager
async def channel(folder: Path) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    """Run an engine with a trigger of the channel ``c``, and yield it with a client."""
    async with house(folder, [eventgrid]) as place, api_client(place) as client:
        await place.create("EVENTGRID", channel_id="c")
        yield place, client


async def test_cloudevents_come_alone_in_headers_and_in_batches(tmp_path: Path) -> None:
    in_headers = {"ce_id": "2", "ce_source": "shop", "ce_specversion": "1.0", "ce_type": "paid%20up"}
    async with channel(tmp_path) as (place, client):
        replies = [
            await post(client, {**EVENT, "traceparent": TRACE}),
            await post(client, {"n": 2}, "json", **in_headers),
            await post(client, [{**EVENT, "id": "3"}, {**EVENT, "id": "1"}], "cloudevents-batch+json"),
        ]

        assert [(reply.status_code, reply.json()["accepted"]) for reply in replies] == [(202, 1), (202, 1), (202, 2)]
        events = await place.events()
        assert [(event["id"], event["type"]) for event in events] == [("1", "paid"), ("2", "paid up"), ("3", "paid")]
        assert events[1]["data"] == {"n": 2}
        assert await place.traces() == [TRACE, "", ""]


async def test_events_are_told_apart_by_source_and_id_whatever_these_are_made_of(tmp_path: Path) -> None:
    async with channel(tmp_path) as (place, client):
        await post(client, {**EVENT, "source": "urn:shop", "id": "1:2"})
        await post(client, {**EVENT, "source": "urn:shop:1", "id": "2"})

        assert [event["id"] for event in await place.events()] == ["1:2", "2"]


async def test_a_trigger_gets_events_from_when_it_is_stored_until_it_is_deleted(tmp_path: Path) -> None:
    async with house(tmp_path, [replace(eventgrid, trigger=NeverStarts)]) as place, api_client(place) as client:
        trigger = await place.create("EVENTGRID", channel_id="c")
        taken = await post(client, EVENT)
        await place.delete(trigger)
        late = await post(client, {**EVENT, "id": "2"})

        assert (taken.json(), late.status_code) == ({"accepted": 1}, 404)
        assert [event["id"] for event in await place.events()] == ["1"]


async def test_an_event_goes_to_those_who_asked_for_its_like(tmp_path: Path) -> None:
    async with house(tmp_path, [eventgrid]) as place, api_client(place) as client:
        await place.create("EVENTGRID", channel_id="c", event_types=["sent"])
        wanted = {"channel_id": "c", "source_name": "OBS", "bucket": "b", "prefix": "in/", "key_encode": True}
        trigger = await place.create("EVENTGRID", **wanted)
        await until(lambda: place.engine.sources.statistics().states == {"running": 2})
        data = {"obs": {"bucket": {"name": "b"}, "object": {"key": "in/a b"}}}

        await post(client, {**EVENT, "source": "OBS", "data": data})
        other = await post(client, {**EVENT, "id": "2", "source": "OBS"})

        assert other.json() == {"accepted": 0}
        [event] = await place.events()
        assert event["data"]["obs"]["object"]["key"] == "in%2Fa%20b"
        assert place.state(trigger).accepted == 1


async def test_a_function_that_is_switched_off_keeps_no_event_from_others(tmp_path: Path) -> None:
    async with channel(tmp_path) as (place, client):
        catalog, off = place.engine.catalog, replace(place.urn, name="off")
        hello = catalog.route(place.urn)
        await catalog.create(replace(hello, name="off"), CodeSource(kind="inline", file=encoded(SOURCE)))
        draft = TriggerDraft(kind="EVENTGRID", data={"channel_id": "c"})
        await place.engine.resources.triggers.create(off, draft)
        await catalog.limit(off, 0)

        refused = await post(client, EVENT)
        meanwhile = await place.events()
        await catalog.limit(off, 5)
        again = await post(client, EVENT)

        assert (refused.status_code, refused.headers["retry-after"], len(meanwhile)) == (429, "60", 1)
        assert (again.json(), await place.events()) == ({"accepted": 2}, meanwhile)


async def test_what_is_no_cloudevent_is_refused_with_the_attribute(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{"id": ""}, {"source": None}, {"specversion": "0.3"}, {"type": 5}]
    async with channel(tmp_path) as (_, client):
        for change in changes:
            reply = await post(client, {**EVENT, **change})

            assert (reply.status_code, next(iter(change)) in reply.json()["error_msg"]) == (400, True), change


async def test_a_channel_takes_events_of_its_own_project_only(tmp_path: Path) -> None:
    tokens = [{"token": f"token-of-{project}-123456", "project": project} for project in (PROJECT, "other")]
    async with (
        house(tmp_path, [eventgrid, webhook], auth__tokens=tokens) as place,
        api_client(place, authenticator=place.engine.authenticator) as client,
    ):
        await place.create("EVENTGRID", channel_id="c")
        trigger = await place.create("WEBHOOK", name="orders", secret=SECRET)
        await until(lambda: place.engine.sources.statistics().states == {"running": 2})

        replies = [await post(client, EVENT, x_auth_token=token["token"]) for token in tokens]
        nobody = await post(client, EVENT)
        signed_only = await Hook(place=place, client=client, trigger=trigger).push(b"1")

        assert [reply.status_code for reply in (*replies, nobody, signed_only)] == [202, 404, 401, 202]


async def test_a_body_may_be_as_large_as_its_mount_says(tmp_path: Path) -> None:
    async with house(tmp_path, [webhook]) as place, api_client(place) as client:
        routes = place.engine.plugins.context_for("WEBHOOK").routes
        with routes.mount("/small", nothing, limit=10) as path:
            replies = [await client.post(path, content=body) for body in (b"1" * 10, b"1" * 11, chunks(b"1", 11))]
            broken = await client.post(path + "/broken")

        assert [reply.status_code for reply in replies] == [200, 413, 413]
        assert broken.status_code == 500
        assert ["x-request-id" in reply.headers for reply in (*replies, broken)] == [False, True, True, True]


async def chunks(piece: bytes, amount: int) -> AsyncIterator[bytes]:
    for _ in range(amount):
        yield piece


# --- mounts -------------------------------------------------------------------------------------------------


async def nothing(request: PushRequest) -> Reply:
    if request.path == "/broken":
        raise ZeroDivisionError
    return Reply(body=json.dumps([request.method, request.path]).encode())


def test_the_longest_mount_wins_and_the_later_of_two() -> None:
    mounts = Mounts()
    routes = PluginRoutes(mounts, "p")
    with routes.mount("", nothing), routes.mount("/a", nothing) as short, routes.mount("/a/b/", nothing):
        matching = [
            mounts.find(path) for path in ("/triggers/p/a/b/c", "/triggers/p/a/bc", "/triggers/p/x", "/triggers/q")
        ]
        with routes.mount("/a", nothing):
            later = mounts.find("/triggers/p/a")

        assert [mount.path if mount else None for mount in matching] == [
            "/triggers/p/a/b",
            "/triggers/p/a",
            "/triggers/p",
            None,
        ]
        assert short == "/triggers/p/a"
        assert later is not mounts.find("/triggers/p/a")
    assert mounts.find("/triggers/p/a") is None


def test_a_claim_is_for_one_word_behind_the_project() -> None:
    mounts = Mounts()
    paths = ("/v2/p/streams", "/v2/p/streams/a/b", "/v3/p/streams", "/v2/p/streamsx", "/v2/streams", "/v2")
    with PluginRoutes(mounts, "p").claim("v2/streams", "v2/records", handler=nothing):
        matching = [mounts.find(path) for path in paths]

    assert [mount.signed if mount else None for mount in matching] == [True, True, None, None, None, None]
    assert mounts.find("/v2/p/streams") is None


async def test_a_plugin_may_listen_on_a_port_of_its_own(tmp_path: Path) -> None:
    async with (
        house(tmp_path, [webhook]) as place,
        httpx.AsyncClient(trust_env=False, verify=False, timeout=60) as client,
    ):
        routes = place.engine.plugins.context_for("WEBHOOK").routes
        async with routes.listen(routes.app(nothing), "127.0.0.1", 0) as port:
            reply = await client.put(f"http://127.0.0.1:{port}/any/path")
            with pytest.raises(SettingsError, match="cannot listen"):
                async with routes.listen(routes.app(nothing), "127.0.0.1", port):
                    pass

        assert reply.json() == ["PUT", "/any/path"]
        with pytest.raises(httpx.ConnectError):
            await client.put(f"http://127.0.0.1:{port}/any/path")


# --- the destination ----------------------------------------------------------------------------------------


class Receiver:
    """Receiver that replies with ``status`` and records requests."""

    def __init__(self, status: int) -> None:
        self.status, self.came = status, list[PushRequest]()

    async def __call__(self, request: PushRequest) -> Reply:
        self.came.append(request)
        return Reply(status=self.status)


async def deliver(place: House, port: int, secret: str = "main") -> None:
    param = WebhookParam(url=f"http://127.0.0.1:{port}/x", secret=secret)
    record = json.dumps({"request_context": {"request_id": "r"}}).encode()
    await delivering.deliver(place, "WEBHOOK", WebhookDestination(param), record)


@asynccontextmanager
async def receiving(folder: Path, status: int = 204, **settings: Any) -> AsyncIterator[tuple[House, Receiver, int]]:
    """Run an engine and a receiver that replies with ``status``; yield them and the receiver's port."""
    receiver = Receiver(status)
    async with house(folder, [webhook], plugins__webhook__secrets__main=SECRET, **settings) as place:
        app = place.engine.plugins.context_for("WEBHOOK").routes.app(receiver)
        async with listen(app, "127.0.0.1", 0) as port:
            yield place, receiver, port


async def test_an_outcome_goes_out_signed_and_under_one_id(tmp_path: Path) -> None:
    async with receiving(tmp_path) as (place, receiver, port):
        await deliver(place, port)
        await deliver(place, port)

    [one, two] = receiver.came
    assert check_standard(KEY, one.headers, one.body, place.engine.clock.now()) == "r-7"
    assert two.headers[b"webhook-id"] == b"r-7"


async def test_receivers_that_hang_leave_connections_to_others(tmp_path: Path) -> None:
    asked = set[asyncio.StreamWriter]()
    enough = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.add(writer)
        if len(asked) == 150:
            enough.set()

    async with (
        receiving(tmp_path, plugins__webhook__timeout=60.0) as (place, receiver, good),
        await asyncio.start_server(hang, "127.0.0.1", 0) as hanging,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(150):
            tasks.start_soon(deliver, place, hanging.sockets[0].getsockname()[1])
        with anyio.fail_after(50):
            await enough.wait()
            await deliver(place, good)
        tasks.cancel_scope.cancel()
        for writer in asked:
            writer.close()
    assert len(receiver.came) == 1


async def test_what_a_receiver_answers_beyond_its_status_is_not_waited_for(tmp_path: Path) -> None:
    delivered = anyio.Event()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await delivered.wait()

    async with (
        house(tmp_path, [webhook], plugins__webhook__timeout=30.0) as place,
        listen(answer, "127.0.0.1", 0) as port,
    ):
        await deliver(place, port, secret="")
        delivered.set()


@pytest.mark.parametrize(("status", "error"), [(500, ConnectionError), (302, ConnectionError), (410, Undeliverable)])
async def test_anything_but_success_is_tried_again_but_for_gone(
    tmp_path: Path, status: int, error: type[Exception]
) -> None:
    async with receiving(tmp_path, status) as (place, _, port):
        with pytest.raises(error, match=str(status)):
            await deliver(place, port, secret="")


async def test_a_secret_that_is_not_set_is_named(tmp_path: Path) -> None:
    async with house(tmp_path, [webhook]) as place:
        with pytest.raises(Exception, match=r"plugins\.webhook\.secrets\.missing"):
            await deliver(place, 9, secret="missing")


async def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path, [webhook]) as place:
        monkeypatch.setitem(sys.modules, "httpx", None)

        with pytest.raises(SettingsError, match=r"pip install '.\[http\]'"):
            await deliver(place, 9, secret="")
