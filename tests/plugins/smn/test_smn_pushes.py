"""Messages that topics of other services push: signature checks and the certificates fetched for them."""

from __future__ import annotations

import base64
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from anyio.streams.tls import TLSListener
from cryptography.hazmat.primitives import hashes
from msgspec import Struct
from msgspec.structs import replace
from structlog.testing import capture_logs

from engine import Forbidden, SettingsError, Unauthorized, Unavailable
from engine.resources.bound_trigger import BoundTrigger
from plugins._shared.http_client import Fetcher, HttpService
from plugins.smn import plugin as smn
from plugins.smn.events import timestamp_of
from plugins.smn.options import SmnSettings
from plugins.smn.pushed import KEPT, LIFE, Verifier, read_push
from plugins.smn.service import SmnService
from tests.doubles import ManualClock
from tests.support.http_app import PROJECT
from tests.support.moto_server import moto_server
from tests.support.topics import ARN, TOPIC, Served, Signer, encoded, serving
from tests.support.triggering import URN, House, api_client, house, until

#: Recorded pushes of LocalStack 4.4.0 as SNS: subscriptions and messages, with both versions of signatures.
SENT = json.loads((Path(__file__).parent / "sns_messages.json").read_text())


class Scene(Struct, kw_only=True):
    place: House
    client: httpx.AsyncClient
    trigger: BoundTrigger
    signer: Signer
    served: Served

    async def push(self, message: dict[str, Any]) -> httpx.Response:
        return await self.client.post(self.trigger.path, content=encoded(message))

    async def statuses(self, *messages: dict[str, Any]) -> list[int]:
        return [(await self.push(message)).status_code for message in messages]

    async def taken(self) -> list[dict[str, Any]]:
        return [record["smn"] for event in await self.place.events() for record in event["record"]]

    async def standing(self) -> str:
        shown = await self.client.get(f"/v2/{PROJECT}/fgs/triggers/{URN}/SMN/{self.trigger.id}")
        status: str = shown.json()["subscription_status"]
        return status


@asynccontextmanager
async def scene(folder: Path, topic: str = TOPIC, signer: Signer | None = None, **more: Any) -> AsyncIterator[Scene]:
    signer = signer or Signer()
    async with serving(signer) as served:
        settings = {"plugins__smn__private_hosts": [signer.host], **more}
        async with house(folder, [smn], **settings) as place, api_client(place) as client:
            trigger = await place.create("SMN", topic_urn=topic)
            await until(lambda: place.state(trigger).state == "running")
            yield Scene(place=place, client=client, trigger=trigger, signer=signer, served=served)


async def test_a_signed_message_calls_once_however_often_it_comes(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        message = it.signer.notification(1, subject="hi")
        statuses = await it.statuses(message, message, it.signer.notification(2))
        first, second = await it.taken()

        assert statuses == [200, 200, 200]
        assert {name: first[name] for name in ("topic_urn", "message", "message_id", "subject", "type")} == {
            "topic_urn": TOPIC,
            "message": "message 1",
            "message_id": "id1",
            "subject": "hi",
            "type": "notification",
        }
        assert (first["timestamp"], second["message"]) == (message["timestamp"], "message 2")
        assert it.served.asked == ["/cert.pem"]  # fetched once, then cached


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA512()])
async def test_the_digest_is_that_of_the_certificate(tmp_path: Path, digest: Any) -> None:
    async with scene(tmp_path, signer=Signer(digest)) as it:
        assert await it.statuses(it.signer.notification()) == [200]


@pytest.mark.parametrize("version", ["1", "2"])
async def test_messages_of_sns_are_read_as_well(tmp_path: Path, version: str) -> None:
    async with scene(tmp_path, ARN) as it:
        forged = {**it.signer.sns(version), "Subject": "ho"}
        other = {**it.signer.sns(version), "SignatureVersion": "12"[version == "1"]}
        statuses = await it.statuses(it.signer.sns(version), forged, other)
        [taken] = await it.taken()

        assert statuses == [200, 401, 401]
        assert (taken["message"], taken["subject"], taken["message_attributes"]) == ("hello", "hi", None)


CHANGES: list[tuple[dict[str, str], int]] = [
    ({"message": "message 2"}, 401),
    ({"message_id": "id2"}, 401),
    ({"subject": "added"}, 401),
    ({"timestamp": timestamp_of(time.time() - 3600)}, 401),
    ({"timestamp": "2099-03-01T06:30:00Z"}, 403),
    ({"timestamp": "2020-03-01T06:30:00Z"}, 403),
    ({"timestamp": "soon"}, 400),
    ({"topic_urn": "urn:smn:far-1:theirs:other"}, 403),
    ({"type": "UnsubscribeConfirmation"}, 401),
    ({"signature": base64.b64encode(bytes(256)).decode()}, 401),
    ({"signature": "?"}, 400),
    ({"signature_version": "v2"}, 400),
    ({"message_id": "id1\nsubject\nadded"}, 400),
    ({"signing_cert_url": "http://sns.example/cert.pem"}, 403),
    ({"signing_cert_url": "file:///etc/passwd"}, 403),
    ({"signing_cert_url": "http://[x/cert.pem"}, 403),
]


async def test_a_message_that_was_changed_is_refused(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        message = it.signer.notification(1)
        with capture_logs() as lines:
            statuses = await it.statuses(*({**message, **changed} for changed, _ in CHANGES))

        assert list(zip(CHANGES, statuses, strict=True)) == [((changed, due), due) for changed, due in CHANGES]
        assert (await it.taken(), await it.statuses(message)) == ([], [200])
        state = it.place.state(it.trigger)
        assert (state.state, state.accepted, state.refused) == ("running", 1, len(CHANGES))
        assert state.problem == "a push from 127.0.0.1 is refused: invalid URL"
        [line] = [line for line in lines if line["event"] == "push refused"]  # one a minute
        assert (line["trigger"], line["problem"].partition(":")[0]) == (
            it.trigger.id,
            "a push from 127.0.0.1 is refused",
        )


@pytest.mark.parametrize(("late", "status"), [(0, 200), (86_400, 403), (-86_400, 403)])
async def test_a_message_counts_only_while_it_is_known_whether_it_was_seen(
    tmp_path: Path, late: int, status: int
) -> None:
    async with scene(tmp_path, clock=ManualClock(time.time() + late)) as it:
        statuses = await it.statuses(it.signer.notification())

        assert (statuses, len(await it.taken())) == ([status], int(status == 200))


async def test_what_is_no_certificate_convinces_nobody(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        message, host = it.signer.notification(), f"http://{it.signer.host}"
        pages = ("confirm", "elsewhere", "long", "nothing")
        statuses = await it.statuses(*({**message, "signing_cert_url": f"{host}/{page}"} for page in pages))

        assert statuses == [401, 403, 403, 403]
        assert it.served.asked == ["/confirm", "/elsewhere", "/long", "/nothing"]


async def test_without_hosts_nobody_is_believed(tmp_path: Path) -> None:
    async with scene(tmp_path, plugins__smn__private_hosts=[]) as it:
        reply = await it.push(it.signer.notification())

        assert (reply.status_code, "plugins.smn.hosts" in reply.text, it.served.asked) == (403, True, [])


@pytest.mark.parametrize("topic", [TOPIC, ARN])
async def test_a_subscription_is_confirmed_and_its_end_is_noted(tmp_path: Path, topic: str) -> None:
    async with scene(tmp_path, topic) as it:
        before, url = await it.standing(), f"http://{it.signer.host}/confirm?token=t"
        asked = it.signer.confirmation(url) if topic == TOPIC else it.signer.sns_confirmation(url)
        elsewhere = {name: value.replace("token=t", "token=u") for name, value in asked.items()}
        statuses = await it.statuses(elsewhere, asked)
        after = await it.standing()

        assert (statuses, it.served.asked) == ([401, 200], ["/cert.pem", "/confirm?token=t"])
        assert (before, after) == ("Unconfirmed", "Confirmed")
        if topic == TOPIC:
            assert await it.statuses(it.signer.confirmation(url, "UnsubscribeConfirmation")) == [200]
            assert await it.standing() == "Unconfirmed"
        assert await it.taken() == []


async def test_only_named_hosts_are_asked_to_confirm(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        port = it.signer.host.partition(":")[2]
        reply = await it.push(it.signer.confirmation(f"http://localhost:{port}/confirm"))

        assert (reply.status_code, "plugins.smn.hosts" in reply.text) == (400, True)
        assert (it.served.asked, await it.standing()) == (["/cert.pem"], "Unconfirmed")


async def test_a_confirmation_outlives_the_engine_but_not_its_trigger(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.push(it.signer.notification())
    async with house(tmp_path, [smn]) as place, api_client(place) as client:
        [shown] = (await client.get(f"/v2/{PROJECT}/fgs/triggers/{URN}")).json()

        assert shown["subscription_status"] == "Confirmed"

        parts = place.engine.plugins.of(smn)
        service = parts.service
        assert isinstance(service, SmnService)
        await service.listeners.set_confirmed(parts.store, "gone", True)
        await service.listeners.forget_others(parts.store)
        assert [key for key, _ in await parts.store.scan("subscriptions")] == [shown["trigger_id"]]


@pytest.mark.parametrize(
    "message", SENT["messages"], ids=lambda message: f"{message['Type']} {message['SignatureVersion']}"
)
async def test_what_localstack_has_signed_is_believed_if_nothing_is_changed(message: dict[str, str]) -> None:
    async def fetch(url: str) -> bytes:
        return str(SENT["certificate"]).encode()

    verifier = Verifier(fetch)
    signed = {
        name: value for name, value in message.items() if "Signature" not in name and name[:2] not in ("Si", "Un")
    }
    await verifier.check(read_push(encoded(message)), 0.0)
    for name, value in signed.items():
        changed = {"Type": "UnsubscribeConfirmation", "Timestamp": "2026-03-01T06:30:00Z"}.get(name, f"{value}x")
        with pytest.raises(Unauthorized):
            await verifier.check(read_push(encoded({**message, name: changed})), 0.0)


async def test_certificates_are_kept_for_a_while_and_not_too_many() -> None:
    signer, fetched = Signer(), list[str]()

    async def fetch(url: str) -> bytes:
        fetched.append(url)
        return signer.certificate()

    verifier = Verifier(fetch)
    pushed = read_push(encoded(signer.notification()))
    for number in range(KEPT + 1):
        await verifier.check(replace(pushed, certificate_url=f"{number}"), 0.0)
    await verifier.check(replace(pushed, certificate_url="1"), 0.0)
    await verifier.check(replace(pushed, certificate_url="0"), 0.0)
    await verifier.check(replace(pushed, certificate_url="0"), LIFE + 1)

    assert fetched == [*map(str, range(KEPT + 1)), "0", "0"]


# --- source of certificates --------------------------------------------------------------------------------------


@asynccontextmanager
async def tls_server(signer: Signer, folder: Path) -> AsyncIterator[int]:
    """Serve the requested host name as body, with the signer's own certificate, which is valid for localhost."""
    (folder / "cert.pem").write_bytes(signer.certificate())
    (folder / "key.pem").write_bytes(signer.private_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")

    async def answer(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            asked = (await stream.receive()).decode()
            host = next(line[6:] for line in asked.splitlines() if line.lower().startswith("host: "))
            await stream.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(host)}\r\n\r\n{host}".encode())

    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as plain:
        listener = TLSListener(plain, context, standard_compatible=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, answer)
            port: int = plain.extra(anyio.abc.SocketAttribute.local_port)
            yield port
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def fetching(ca_file: str = "") -> AsyncIterator[HttpService]:
    http = HttpService(10.0, ca_file)
    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda *, task_status: http.run(None, task_status=task_status))  # type: ignore[arg-type]
        yield http
        tasks.cancel_scope.cancel()


async def test_a_host_is_known_by_its_certificate_at_the_address_that_was_looked_up(tmp_path: Path) -> None:
    async with tls_server(Signer(), tmp_path) as port:
        named = f"localhost:{port}"
        async with fetching(str(tmp_path / "cert.pem")) as http:
            trusted = await Fetcher(http, (), [named]).get(f"https://{named}/cert.pem")
            with pytest.raises(Unavailable, match="certificate"):
                await Fetcher(http, (), [f"127.0.0.1:{port}"]).get(f"https://127.0.0.1:{port}/cert.pem")
        async with fetching() as http:
            with pytest.raises(Unavailable, match="certificate"):
                await Fetcher(http, (), [named]).get(f"https://{named}/cert.pem")

    assert trusted.decode() == named


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost:1", "https://localhost:1/"),
        ("127.0.0.1", "https://127.0.0.1/"),
        ("10.0.0.1", "https://10.0.0.1/"),
        ("169.254.169.254", "https://169.254.169.254/latest/meta-data"),
        ("[::1]", "https://[::1]/"),
        ("[::ffff:127.0.0.1]", "https://[::ffff:127.0.0.1]/"),
        ("[fd00::1]", "https://[fd00::1]/"),
        ("93.184.215.14", "http://93.184.215.14/"),
        ("93.184.215.14", "https://93.184.215.14:8443/"),
        ("93.184.215.14", "https://x@93.184.215.14/"),
        ("93.184.215.14", "ftp://93.184.215.14/"),
        ("93.184.215.14", "https://93.184.215.14/\x01"),
        ("93.184.215.14", f"https://93.184.215.14/{'x' * 70_000}"),
    ],
)
async def test_a_host_that_ought_to_be_public_is_not_asked_in_this_network(host: str, url: str) -> None:
    async with fetching() as http:
        with pytest.raises(Forbidden):
            await Fetcher(http, [host]).get(url)


def test_what_is_missing_to_check_signatures_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)

    SmnService(SmnSettings())
    with pytest.raises(SettingsError, match=r"pip install '.\[smn\]'"):
        SmnService(SmnSettings(hosts=("smn.example",)))
    with pytest.raises(SettingsError, match="ca_file"):
        SmnService(SmnSettings(ca_file=str(tmp_path / "none.pem")))


async def test_what_moto_signs_is_believed_without_a_subject(tmp_path: Path) -> None:
    with moto_server() as url:
        asked = {"Authorization": "AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/sns/aws4_request"}

        async def sns(**parameters: str) -> httpx.Response:
            reply = await aws.post(url, data=parameters, headers=asked)
            return reply.raise_for_status()

        async def fetch(certificate: str) -> bytes:
            """Fetch a certificate from Moto instead of the host that the message names."""
            assert certificate.startswith("https://sns.us-east-1.amazonaws.com/")
            return (await aws.get(url + urlsplit(certificate).path, headers=asked)).content

        plugin = replace(smn, serve=partial(SmnService, fetch=fetch))
        async with (
            httpx.AsyncClient(trust_env=False, verify=False, timeout=60) as aws,
            house(tmp_path, [plugin]) as place,
            api_client(place) as api,
        ):
            await sns(Action="CreateTopic", Name="orders")
            trigger = await place.create("SMN", topic_urn=ARN)
            await until(lambda: place.state(trigger).state == "running")
            path = f"{str(api.base_url).rstrip('/')}{trigger.path}"
            await sns(Action="Subscribe", TopicArn=ARN, Protocol="http", Endpoint=path)
            for message in ("one", json.dumps({"two": "zwölf\n"})):
                await sns(Action="Publish", TopicArn=ARN, Message=message)
            await sns(Action="Publish", TopicArn=ARN, Message="three", Subject="moto does not sign this")
            events = await place.events()

        assert [event["record"][0]["smn"]["message"] for event in events] == ["one", '{"two": "zw\\u00f6lf\\n"}']
