"""Web applications as functions, with a real engine: what applications get of requests, and clients of responses."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from functiond import Client

from tests.acceptance.engine_process import until
from tests.support.cli import functiond_here
from tests.support.engine_process import EngineProcess, engine_process

ASGI = """
import asyncio, os, signal
from json import dumps
from urllib.parse import parse_qs
from functiond import App, InvocationFailed, ResultTimeout, get_context

queue = App(name="site")
waiting, full = [], asyncio.Event()

@queue.function(retries=0)
def halve(number: int) -> set[float]:
    return {number / (2 if number % 2 == 0 else 0)}

async def reply(send, status, *pieces, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})

async def result_of(request_id):
    handle = await halve.handle_async(request_id)
    try:
        return [*await handle.result(timeout=0), await handle.status()]
    except (ResultTimeout, InvocationFailed) as error:
        return [type(error).__name__, await handle.status()]

class Site:
    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            if "REFUSES" in os.environ:
                return await send({"type": "lifespan.startup.failed", "message": "no database"})
            scope["state"]["started"] = 1
            await send({"type": "lifespan.startup.complete"})
            await receive()
            print("stopped")
            return await send({"type": "lifespan.shutdown.complete"})
        path = scope["path"].removeprefix(scope["root_path"])
        if path == "/scope":
            shown = {name: scope[name] for name in ("root_path", "path", "client", "scheme", "state", "method")}
            shown |= {"raw": scope["raw_path"].decode(), "request": get_context().getRequestID(), "pid": os.getpid()}
            shown |= {"headers": [[name.decode(), value.decode()] for name, value in scope["headers"]]}
            await reply(send, 200, dumps(shown).encode(), headers=[(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])
        elif path == "/body":
            size, more = 0, True
            while more:
                message = await receive()
                size, more = size + len(message["body"]), message["more_body"]
            await reply(send, 200, *[b"x" * 100_000] * (size // 100_000))
        elif path == "/large":
            await reply(send, 200, *[b"x" * 100_000] * 200)
        elif path == "/together":
            waiting.append(1)
            if len(waiting) == 200:
                full.set()
            await full.wait()
            await reply(send, 200, str(os.getpid()).encode())
        elif path == "/queue":
            handle = await halve.enqueue_async(int(scope["query_string"]))
            await reply(send, 303, headers=[(b"location", f"{scope['root_path']}/result?{handle.request_id}".encode())])
        elif path == "/result":
            await reply(send, 200, dumps(await result_of(scope["query_string"].decode())).encode())
        elif path == "/wait":
            print("waiting")
            message = await receive()
            while message["type"] != "http.disconnect":
                message = await receive()
            print("disconnected")
        elif path == "/cut":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
            raise ValueError("cut")
        elif path == "/die":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise LookupError(path)

site = Site()
"""
WSGI = """
import functools, threading, time
from functiond import App
queue, lock = App(name="pages"), threading.Barrier(20)

@queue.function()
def double(number: int) -> set[int]:
    return {2 * number}

def answer(name, environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        print("hangs")
        time.sleep(600)
    elif environ["PATH_INFO"] == "/together":
        lock.wait(30)
        body = threading.current_thread().name
    elif environ["REQUEST_METHOD"] == "POST":
        handle = double.enqueue(len(environ["wsgi.input"].read()))
        while handle.status() != "SUCCESS":
            time.sleep(0.1)
        body = f"{handle.result(timeout=0)} {handle.request_id}"
    else:
        handle = double.handle(environ["QUERY_STRING"]) if environ["QUERY_STRING"] else None
        body = f"{handle.status()} {handle.result(timeout=0)}" if handle else environ["SCRIPT_NAME"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]

pages = functools.partial(answer, "pages")
"""

SETTINGS = {"FUNCTIOND_PLUGINS__APIG__PORT": "0", "FUNCTIOND_EXECUTOR__SLOTS": "250"}
SERVERS = ("uvicorn", "click", "h11", "a2wsgi")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_process(tmp_path_factory.mktemp("web"), environ=SETTINGS) as running:
        yield running


def deploy(engine: EngineProcess, target: str, *options: str, code: int = 0) -> str:
    """Deploy from the current folder, with copies of installed packages, so that no index is needed."""
    for package in SERVERS:
        found = find_spec(package)
        assert found is not None
        assert found.origin is not None
        shutil.copytree(Path(found.origin).parent, package, dirs_exist_ok=True)
    done = functiond_here("deploy", target, "--no-install", *options, url=engine.url)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def address(engine: EngineProcess, name: str) -> str:
    """Return the address of a function, when its gateway has chosen a port."""

    def shown() -> str | Literal[False]:
        (path,) = json.loads(functiond_here("http", name, "--json", url=engine.url).stdout)
        url: str = path["event_data"]["invoke_url"]
        return url if url.startswith("http") else False

    return until(shown)


def hang(engine: EngineProcess, has_begun: Callable[[Any], bool]) -> None:
    """Queue a request of a view that does not end, and cancel it when it has begun."""
    handle = Client(engine.url).enqueue("pages", {"httpMethod": "GET", "path": "/hang"})
    until(lambda: has_begun(handle))
    handle.cancel()
    until(lambda: handle.status() == "FAIL")


@pytest.fixture
def site(engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    (tmp_path / "site").mkdir()
    monkeypatch.chdir(tmp_path / "site")
    Path("shop.py").write_text(ASGI)
    deploy(engine, "shop:site", "--http", "/a%20b/{x}")
    with httpx.Client(base_url=address(engine, "site").replace("{x}", "c"), trust_env=False, timeout=60) as client:
        yield client


def test_an_application_gets_requests_as_clients_send_them(site: httpx.Client, engine: EngineProcess) -> None:
    headers = [("X-A", "1"), ("X-A", "2"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Prefix", "/no")]
    replied = site.get("/scope", headers=headers)
    scope = replied.json()
    assert replied.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert scope["request"] == replied.headers["x-cff-request-id"]
    assert (scope["root_path"], scope["path"], scope["raw"]) == ("/a b/c", "/a b/c/scope", "/a%20b/c/scope")
    assert (scope["client"][0], scope["scheme"], scope["state"]) == ("127.0.0.1", "http", {"started": 1})
    assert [value for name, value in scope["headers"] if name == "x-a"] == ["1", "2"]
    assert {"x-cff-request-id", "x-cff-attempt", "x-apig-api-id"} <= {name for name, _ in scope["headers"]}
    assert (site.head("/scope").content, len(site.post("/body", content=b"x" * 4_000_000).content)) == (b"", 4_000_000)
    assert [site.get(path).status_code for path in ("/none", "/cut")] == [500, 500]
    assert [site.get(path).json()["error_code"] for path in ("/cut", "/large")] == ["FSS.1202", "FSS.1202"]
    logs = functiond_here("logs", "site", url=engine.url).stdout
    assert "LookupError: /none" in logs
    assert "ValueError: cut" in logs
    assert "failed with 4004" in logs


def test_views_queue_calls_and_show_their_results(site: httpx.Client) -> None:
    pages = [site.get(f"/queue?{number}", follow_redirects=True).url for number in (8, 9)]

    def ended() -> Any:
        states = [site.get(page).json() for page in pages]
        return all(state[0] != "ResultTimeout" for state in states) and states

    assert until(ended) == [[4.0, "SUCCESS"], ["InvocationFailed", "FAIL"]]


def test_an_instance_serves_many_and_another_comes_after_its_death(site: httpx.Client, engine: EngineProcess) -> None:
    async def together() -> set[str]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=site.base_url, limits=limits, trust_env=False, timeout=60) as client:
            return {reply.text for reply in await asyncio.gather(*[client.get("/together") for _ in range(200)])}

    (pid,) = asyncio.run(together())
    assert site.get("/die").status_code == 500
    assert site.get("/scope").json()["pid"] != int(pid)

    handle = Client(engine.url).enqueue("site", {"httpMethod": "GET", "path": "/wait"})
    until(lambda: any(line.text == "waiting" for line in handle.logs()))
    handle.cancel()
    until(lambda: "disconnected" in functiond_here("logs", "site", url=engine.url).stdout)


def test_the_lifespan_ends_with_the_instance_and_a_failed_start_is_an_error(
    site: httpx.Client, engine: EngineProcess
) -> None:
    assert site.get("/scope").status_code == 200
    deploy(engine, "shop:site", "--env", "REFUSES=1", "--concurrency", "1")
    assert site.get("/scope").json()["error_msg"] == "the function failed (code 4009)"
    logs = functiond_here("logs", "site", url=engine.url).stdout
    assert "the application shop:site has failed to start" in logs
    until(lambda: "stopped" in functiond_here("logs", "site", url=engine.url).stdout)


def test_a_wsgi_application_runs_in_threads(
    engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pages.py").write_text(WSGI)
    deploy(engine, "pages:pages", "--http", "/pages")
    with httpx.Client(base_url=address(engine, "pages"), trust_env=False, timeout=60) as client:
        assert client.get("/").text == "/pages"

        async def together() -> set[str]:
            async with httpx.AsyncClient(base_url=client.base_url, trust_env=False, timeout=60) as many:
                return {reply.text for reply in await asyncio.gather(*[many.get("/together") for _ in range(20)])}

        assert len(asyncio.run(together())) == 20
        result, request_id = client.post("/", content=b"x" * 21).text.split()
        assert (result, client.get(f"/?{request_id}").text) == ("{42}", "SUCCESS {42}")

        functiond_here("http", "pages", "/{tenant}", url=engine.url)
        paths = ("/a/", "/%2Fother.host/", "/%5Cother.host/")
        tenants = [client.get(client.base_url.join(path)).text for path in paths]
        assert tenants == ["/a", "", ""]  # links below //other.host would lead to this host

        deploy(engine, "pages:pages", "--concurrency", "2")
        for _ in range(2):  # cancelled requests keep their threads
            hang(engine, lambda handle: any(line.text == "hangs" for line in handle.logs()))

        def served() -> bool:
            hang(engine, lambda handle: handle.status() == "RUNNING")  # without a thread: the instance ends
            with suppress(httpx.TimeoutException):  # the cancellation may have come before the request
                return client.get("/", timeout=5).text == "/pages"
            return False

        until(served)


def test_what_cannot_be_deployed_is_refused(
    engine: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.py").write_text(WSGI + "other = App()\n")
    assert "two has the apps queue, other: leave one of them there" in deploy(engine, "two:pages", code=2)
    assert "no ASGI or WSGI application: write lock = App()" in deploy(engine, "two:lock", code=2)
    Path("two.py").write_text(WSGI)
    assert "a function double: choose another name for the web" in deploy(
        engine, "two:pages", "--name", "double", code=2
    )
    options = ("--handler", "two.pages")
    assert "an app takes --runtime and --env only" in deploy(engine, "two:pages", *options, code=2)
