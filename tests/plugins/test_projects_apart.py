"""Projects apart: parts of the settings that one project may not use, and addresses that its options may not reach."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine import Undeliverable
from engine.auth.credentials import Token
from engine.code.store import CodeSource
from engine.config.plugin_registry import load_plugins
from engine.errors import NotForProject, ObjectMissing
from engine.model import AsyncSettings, DestinationSpec
from plugins.smn.destination import SmnDestination, SmnParam
from plugins.webhook.destination import WebhookDestination, WebhookParam
from tests.plugins import delivering
from tests.support.http_app import PROJECT
from tests.support.kafka_script import METADATA, scripted_broker
from tests.support.ports import free_port
from tests.support.triggering import House, house, until
from tests.support.webhooks import webhook_receiver

OTHER = "other"
TOKENS: list[dict[str, Any]] = [
    {"token": f"token-of-{project}-123456", "project": project} for project in (PROJECT, OTHER)
]
NOWHERE = "127.0.0.1:9"
RECORD = json.dumps(
    {
        "request_context": {
            "request_id": "r",
            "function_urn": f"urn:fss:local-1:{PROJECT}:function:default:hello:latest",
            "condition": "Success",
            "approximate_invoke_count": 1,
        }
    }
).encode()
KAFKA = {"topic_ids": ["t"], "batch_size": 1}
DDS = {"instance_id": "main", "db_name": "d", "collection_name": "c", "db_password": "p", "batch_size": 1}
RABBIT = {"instance_id": "main", "exchange_name": "e", "access_password": "p", "batch_size": 1}
DIS = {"stream_name": "s", "sharditerator_type": "LATEST"}
ENDPOINT = {"endpoint": f"http://{NOWHERE}"}
#: Part of the settings, table, its content without ``projects``, and the trigger or destination that uses it.
TRIGGERS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("instances.main", "KAFKA", {"address": NOWHERE}, {"instance_id": "main", **KAFKA}),
    (f"instances.{NOWHERE}", "OPENSOURCEKAFKA", {"address": NOWHERE}, {"kafka_connect_address": NOWHERE, **KAFKA}),
    ("instances.main", "RABBITMQ", {"address": NOWHERE}, RABBIT),
    ("instances.main", "DDS", {"address": NOWHERE}, DDS),
    ("instances.main", "GAUSSMONGO", {"address": NOWHERE}, DDS),
    ("buckets.in", "OBS", {}, {"bucket": "in", "events": ["ObjectCreated"]}),
    ("", "DIS", ENDPOINT, DIS),
]
DESTINATIONS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("instances.main", "KAFKA", {"address": NOWHERE}, {"instance_id": "main", "topic": "t"}),
    ("buckets.out", "OBS", {}, {"bucket": "out"}),
    ("secrets.main", "WEBHOOK", {"secret": "a-secret-of-the-other"}, {"url": "http://x.example/", "secret": "main"}),
    ("", "SMN", ENDPOINT, {"topic_urn": f"urn:smn:local-1:{PROJECT}:t"}),
    ("", "DIS", ENDPOINT, {"stream_name": "s"}),
]


def table_of(part: str, content: dict[str, Any], projects: Sequence[str]) -> dict[str, Any]:
    """Return a table of a plugin in the settings, with the content and the projects of one part."""
    content = {**content, "projects": projects} if projects else content
    group, _, name = part.partition(".")
    return {group: {name: content}} if group else content


@asynccontextmanager
async def tenants(folder: Path, **settings: Any) -> AsyncIterator[House]:
    async with house(folder, load_plugins(), auth__tokens=TOKENS, **settings) as place:
        yield place


async def use(place: House, kind: str, data: dict[str, Any], *, destination: bool) -> None:
    if destination:
        spec = DestinationSpec(destination=kind, param=json.dumps(data))
        await place.engine.catalog.put_settings(place.urn, AsyncSettings(on_success=spec))
    else:
        await place.create(kind, **data)


@pytest.mark.parametrize("projects", [[], [OTHER]], ids=["of no project", "of another"])
@pytest.mark.parametrize(
    ("part", "kind", "content", "data", "destination"),
    [*((*row, False) for row in TRIGGERS), *((*row, True) for row in DESTINATIONS)],
)
async def test_a_part_of_the_settings_is_for_its_projects_only(
    tmp_path: Path,
    part: str,
    kind: str,
    content: dict[str, Any],
    data: dict[str, Any],
    destination: bool,
    projects: list[str],
) -> None:
    name = f"plugins__{kind.lower()}"
    async with tenants(tmp_path, **{name: table_of(part, content, projects)}) as place:
        full = ".".join(filter(None, ("plugins", kind.lower(), part)))
        expected = f"{full} is not for project {PROJECT}: the operator lists {PROJECT} in its projects"
        with pytest.raises(NotForProject) as refusal:
            await use(place, kind, data, destination=destination)
        assert str(refusal.value) == expected
    for allowed in ([OTHER, PROJECT], ["*"]):
        async with tenants(tmp_path, **{name: table_of(part, content, allowed)}) as place:
            await use(place, kind, data, destination=destination)
            for trigger in place.engine.resources.triggers.all():
                await place.delete(trigger)


async def test_a_trigger_stops_when_its_project_may_no_longer_use_what_it_reads(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    (folder / "in").mkdir(parents=True)
    settings: dict[str, Any] = {"plugins__obs__folder": str(folder), "retry__longest": 0.01}
    async with house(tmp_path / "data", load_plugins(), auth__tokens=TOKENS[:1], **settings) as place:
        trigger = await place.create("OBS", bucket="in", events=["ObjectCreated"])
        await until(lambda: place.state(trigger).state == "running")

        assert place.engine.authenticator is not None
        place.engine.authenticator.replace((), [Token(**token) for token in TOKENS])
        await until(lambda: "plugins.obs.buckets.in is not for project" in place.state(trigger).problem)
        (folder / "in" / "theirs").touch()
        assert place.state(trigger).state != "running"
    async with tenants(tmp_path / "data", **settings) as place:
        await until(lambda: "plugins.obs.buckets.in is not for project" in place.state(trigger).problem)
        assert await place.events() == []
    async with tenants(tmp_path / "data", **settings, plugins__obs__buckets={"in": {"projects": [PROJECT]}}) as place:
        await until(lambda: place.state(trigger).accepted == 1)


async def test_no_code_is_read_from_a_bucket_of_another_project(tmp_path: Path) -> None:
    (tmp_path / "objects" / "theirs").mkdir(parents=True)
    (tmp_path / "objects" / "theirs" / "code.zip").write_bytes(b"their code")
    buckets = {"theirs": {"projects": [OTHER]}, "*": {"projects": [PROJECT]}}
    async with tenants(
        tmp_path / "data", plugins__obs__folder=str(tmp_path / "objects"), plugins__obs__buckets=buckets
    ) as place:

        async def read(link: str) -> None:
            source = CodeSource(kind="obs", url=link)
            await place.engine.codes.add(source, PROJECT, handler="index.handler", runtime="Python3.9")

        for link in ("obs://theirs/code.zip", "https://theirs.obs.region.host/code.zip"):
            with pytest.raises(NotForProject, match=r"buckets\.theirs is not for project"):
                await read(link)
        with pytest.raises(ObjectMissing):
            await read("obs://mine/code.zip")


async def test_no_outcome_is_published_to_a_remote_topic_of_another_project(tmp_path: Path) -> None:
    smn = {**ENDPOINT, "projects": [PROJECT]}
    destination = SmnDestination(SmnParam(topic_urn=f"urn:smn:local-1:{OTHER}:orders"))
    async with tenants(tmp_path, plugins__smn=smn) as place:
        with pytest.raises(Undeliverable, match=f"belongs to another project than {PROJECT}"):
            await delivering.deliver(place, "SMN", destination, RECORD)


# --- addresses ----------------------------------------------------------------------------------------------

FORMS = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "2130706433", "0x7f.1", "0.0.0.0"]


@asynccontextmanager
async def listening(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[tuple[int, list[Any]]]:
    """Listen, and yield the port and the connections that have arrived."""
    arrived: list[Any] = []

    def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(writer.get_extra_info("sockname"))
        writer.close()

    server = await asyncio.start_server(note, host, port)
    async with server:
        yield server.sockets[0].getsockname()[1], arrived


async def post(place: House, url: str) -> None:
    await delivering.deliver(place, "WEBHOOK", WebhookDestination(WebhookParam(url=url)), RECORD)


async def test_no_webhook_of_a_tenant_reaches_a_private_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, {"private.example": ["127.0.0.1"]})
    async with tenants(tmp_path) as place, listening() as (port, arrived):
        for host in (*FORMS, "private.example", "169.254.169.254", "[fd00:ec2::254]", "10.0.0.1", "[64:ff9b::7f00:1]"):
            with pytest.raises(httpx.ConnectError) as failure:
                await post(place, f"http://{host}:{port}/")
            assert "is no public address" in causes(failure.value), host
        assert arrived == []
    async with house(tmp_path, load_plugins()) as place, listening() as (port, arrived):
        with pytest.raises(httpx.TransportError):
            await post(place, f"http://127.0.0.1:{port}/")
        assert len(arrived) == 1


async def test_a_listed_address_is_reached_and_its_redirect_is_not_followed(tmp_path: Path) -> None:
    async with tenants(tmp_path, egress__allow=["localhost"]) as place, listening() as (port, arrived):
        with webhook_receiver(302, location=f"http://127.0.0.1:{port}/") as hook:
            with pytest.raises(ConnectionError, match="answered 302"):
                await post(place, hook.url)
            await post(place, hook.url)
        assert (len(hook.requests), arrived) == (2, [])


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("KAFKA", {"instance_id": "mine", "kafka_connect_address": "{address}", **KAFKA}),
        ("OPENSOURCEKAFKA", {"kafka_connect_address": "{address}", **KAFKA}),
        ("RABBITMQ", {**RABBIT, "connect_address": "{address}"}),
        ("DDS", {**DDS, "instance_addrs": ["{address}"]}),
        ("GAUSSMONGO", {**DDS, "instance_addrs": ["{address}"]}),
    ],
)
async def test_no_trigger_reaches_a_private_address_in_its_options(
    tmp_path: Path, kind: str, data: dict[str, Any]
) -> None:
    settings = {"plugins__dds__timeout": 0.5, "plugins__gaussmongo__timeout": 0.5}
    async with tenants(tmp_path, **settings) as place, listening() as (port, arrived):
        text = json.dumps(data).replace("{address}", f"localhost:{port}")
        trigger = await place.create(kind, **json.loads(text))
        if not trigger.stored.active:
            await place.update(trigger, status="ACTIVE")
        await until(lambda: "is no public address" in place.state(trigger).problem)
        assert arrived == []


async def test_a_broker_of_a_tenant_names_no_private_broker(tmp_path: Path) -> None:
    """The first broker is at an allowed address. Its metadata name another one, to which the client then connects."""
    async with scripted_broker() as broker, listening("127.0.0.2") as (port, arrived):
        broker.leader = "127.0.0.2", port
        async with tenants(tmp_path, egress__allow=["127.0.0.1"]) as place:
            trigger = await place.create("OPENSOURCEKAFKA", kafka_connect_address=broker.address, **KAFKA)
            await place.update(trigger, status="ACTIVE")
            await until(lambda: "127.0.0.2 is no public address" in place.state(trigger).problem)
        assert broker.asked[METADATA]
        assert arrived == []


def resolve(monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[str]]) -> None:
    """Resolve names to addresses, to the next one at each call until the last is left."""
    real = socket.getaddrinfo

    def answer(host: Any, *rest: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if (addresses := answers.get(name)) is not None:
            host = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


async def test_a_name_that_changes_its_address_reaches_what_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    async with listening("127.0.0.2", port) as (_, allowed), listening("127.0.0.1", port) as (_, private):
        async with tenants(tmp_path, egress__allow=["127.0.0.2"]) as place:
            with place.engine.plugins.context_for("KAFKA").limited_egress():
                resolve(monkeypatch, {"rebinding.example": ["127.0.0.2", "127.0.0.1"]})
                _, writer = await asyncio.open_connection("rebinding.example", port)
                writer.close()
                with pytest.raises(PermissionError):
                    await asyncio.open_connection("rebinding.example", port)
            resolve(monkeypatch, {"other.example": ["127.0.0.2", "127.0.0.1"]})
            for _ in range(3):
                with pytest.raises(httpx.TransportError):
                    await post(place, f"http://other.example:{port}/")
        assert ({name for name, _ in allowed}, private) == ({"127.0.0.2"}, [])


def causes(error: BaseException | None) -> str:
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return " ".join(texts)
