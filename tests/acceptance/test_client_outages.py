"""Client for Python programs while the engine refuses, dies, or requires credentials."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from functiond import AsyncClient, BadResult, Client, Forbidden, Overloaded, Unauthorized, Unreachable

from tests.acceptance.engine_process import ECHO, HELD, PROJECT, EngineProcess, engine_on, held_event, rows, until
from tests.support.cli import functiond_here
from tests.support.credentials import credentials_file, key, token
from tests.support.ports import free_port

SECRET = "the-secret-of-a-key"
CREDENTIALS = (
    key("AK", SECRET, PROJECT),
    key("TEMP", SECRET, PROJECT, token="security-token-of-temp"),
    token("token-of-a-reader-0123456789", PROJECT, role="read"),
)


@pytest.mark.long
def test_events_are_sent_again_until_there_is_room(tmp_path: Path) -> None:
    event = held_event(tmp_path)
    settings = {"FUNCTIOND_QUEUE__FUNCTION_ROWS": "1"}
    with engine_on(tmp_path / "data", **settings) as engine, ThreadPoolExecutor(1) as threads:
        engine.create("held", HELD)
        with Client(engine.url, project=PROJECT, retries=0) as hasty:
            first = hasty.enqueue("held", event)
            with pytest.raises(Overloaded) as refused:
                hasty.enqueue("held", event)
        assert refused.value.retry_after is not None
        assert refused.value.retry_after >= 1

        with Client(engine.url, project=PROJECT, retries=50) as client:
            before = engine.metric("functiond_refused")
            others = threads.submit(client.enqueue_many, "held", [event, event])
            until(lambda: engine.metric("functiond_refused") != before)
            Path(event["gate"]).touch()
            handles = [client.handle("held", first.request_id), *others.result(60)]
            assert [handle.result(60) for handle in handles] == ["ended"] * 3
        assert rows(tmp_path / "data", "SELECT count(*) FROM invocation") == [(3,)]


def test_without_an_engine_the_error_names_the_url() -> None:
    port = free_port()
    with Client(f"127.0.0.1:{port}", retries=1) as client, pytest.raises(Unreachable, match=f":{port}") as caught:
        client.call("echo")

    assert not caught.value.sent


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    folder = tmp_path_factory.mktemp("guarded")
    with engine_on(folder / "data", **credentials_file(folder, *CREDENTIALS)) as engine:
        (folder / "echo.py").write_text(ECHO)
        environ = {"FUNCTIOND_PROJECT": PROJECT, "FUNCTIOND_ACCESS_KEY": "AK", "FUNCTIOND_SECRET_KEY": SECRET}
        deployed = functiond_here("deploy", folder / "echo.py", url=engine.url, environ=environ)
        assert deployed.returncode == 0, deployed.stderr
        yield engine


def test_requests_are_signed(guarded: EngineProcess) -> None:
    temporary: Any = {"access_key": "TEMP", "secret_key": SECRET, "token": "security-token-of-temp"}
    for credentials in ({"access_key": "AK", "secret_key": SECRET}, temporary):
        with Client(guarded.url, project=PROJECT, **credentials) as client:
            handle = client.enqueue("echo", {"ü": 1}, key="a key", delay=0.0, priority=3, ordering_key="o")
            assert handle.result(30) == {"ü": 1}
            assert list(handle.logs(follow=True)) == []
            handle = client.enqueue("echo", delay=60)
            handle.cancel()


async def test_credentials_come_from_the_environment(guarded: EngineProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNCTIOND_URL", guarded.url)
    monkeypatch.setenv("FUNCTIOND_PROJECT", PROJECT)
    monkeypatch.setenv("FUNCTIOND_TOKEN", "token-of-a-reader-0123456789")
    async with AsyncClient() as reader:
        with pytest.raises(Forbidden):
            await reader.enqueue("echo", [1])
        monkeypatch.setenv("FUNCTIOND_ACCESS_KEY", "AK")
        monkeypatch.setenv("FUNCTIOND_SECRET_KEY", SECRET)
        async with AsyncClient() as client:
            handle = await client.enqueue("echo", [1])
            assert await handle.result(30) == [1]
        seen = reader.handle("echo", handle.request_id)
        assert await seen.status() == "SUCCESS"
        with pytest.raises(BadResult, match="may not see"):
            await seen.result(30)


def test_wrong_credentials_are_refused(guarded: EngineProcess) -> None:
    wrong: list[Any] = [{}, {"token": "wrong"}, {"access_key": "AK", "secret_key": "wrong"}]
    for credentials in wrong:
        with Client(guarded.url, project=PROJECT, **credentials) as client, pytest.raises(Unauthorized) as caught:
            client.enqueue("echo")
        assert caught.value.status == 401
        assert SECRET not in repr(client.configuration) + repr(client)
