"""FastAPI application as a web function, beside the same one under uvicorn as an HTTP function, by one gateway.

Requests are sent one at a time, to both in turns; then many at once, and one after a kill -9 of the instance.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing
from itertools import count
from pathlib import Path
from signal import SIGKILL

import fastapi

from bench.agents import free_port
from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.kills import ENVIRONMENT
from bench.server import PROJECT, Engine, ServerFailed, engine, until

REQUESTS, AT_ONCE, CALLS, TURN = 1_000, 200, 200, 25
APPLICATION = (
    f"import sys\nsys.path.insert(1, {str(Path(fastapi.__file__).parents[1])!r})"
    + """
import asyncio, os
from fastapi import FastAPI

app, waiting = FastAPI(root_path=os.environ.get("ROOT_PATH", "")), []

@app.get("/items/{number}")
async def read(number: int, q: str = "") -> dict[str, int | str]:
    return {"number": number, "q": q, "pid": os.getpid()}

@app.get("/together/{count}")
async def together(count: int) -> int:
    waiting.append(asyncio.Event())
    if len(waiting) == count:
        while waiting:
            waiting.pop().set()
    else:
        await waiting[-1].wait()
    return os.getpid()

app.post("/later")(lambda: None)
"""
)
BOOTSTRAP = f"#!/bin/sh\nexec {sys.executable} -m uvicorn main:app --port 8000 --no-access-log\n"
COMMANDS = (
    "deploy main:app --name web --http /web --no-install",
    "deploy ../bare --http /bare --runtime http --memory 256 --timeout 60 --concurrency 200 --env ROOT_PATH=/bare",
    "http web /later --method POST --async",
)
QUANTILES = {"p50": 0.5, "p95": 0.95}
NAMES = ("web", "bare")  #: functions; the second one has a bootstrap


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    gateway = free_port()
    environment = {**ENVIRONMENT, "FUNCTIOND_PLUGINS__APIG__PORT": str(gateway), "FUNCTIOND_EXECUTOR__SLOTS": "400"}
    with scratch(options) as folder, engine(folder / "data", **environment) as server:
        for number in count(1):
            progress("web: deploying")
            deploy(server, folder, number)
            figures = {f"cold start, {name}": first(gateway, name)[0] for name in NAMES}
            progress("web: one request at a time")
            figures |= one_at_a_time(gateway, options.scaled(REQUESTS))
            progress(f"web: {AT_ONCE} at once, then kills")
            figures |= {"answered at once": len(pids := asyncio.run(at_once(gateway))), "processes": len({*pids})}
            os.kill(first(gateway, "web")[1], SIGKILL)
            figures["after kill -9"] = first(gateway, "web")[0]
            yield figures | {"calls that ran": accepted(server, gateway, options.scaled(CALLS))}


def deploy(server: Engine, folder: Path, number: int) -> None:
    """Deploy and publish code that differs from that of another number. Packages are those of the benchmark."""
    for name in NAMES:
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "main.py").write_text(f"{APPLICATION}# {number}\n")
    (folder / "bare" / "bootstrap").write_text(BOOTSTRAP)
    (folder / "bare" / "bootstrap").chmod(0o755)
    url = f"http://127.0.0.1:{server.port}"
    environ = {**os.environ, "PYTHONPATH": os.getcwd(), "FUNCTIOND_URL": url, "FUNCTIOND_PROJECT": PROJECT}
    for command in COMMANDS:
        program = [sys.executable, "-m", "engine", *command.split()]
        done = subprocess.run(program, capture_output=True, text=True, cwd=folder / "web", env=environ)
        if done.returncode:
            raise ServerFailed(f"functiond {command}: {done.stderr}")


def ask(connection: http.client.HTTPConnection, path: str, method: str = "GET", status: int = 200) -> bytes:
    connection.request(method, path)
    body = (reply := connection.getresponse()).read()
    if reply.status != status:
        raise ServerFailed(f"{method} {path} returned {reply.status}: {body[:500]!r}")
    return body


def first(port: int, name: str) -> tuple[float, int]:
    """Return the milliseconds of a request, and the process that served it."""
    began = time.perf_counter()
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        pid = json.loads(ask(connection, f"/{name}/items/1"))["pid"]
    return (time.perf_counter() - began) * 1e3, pid


def one_at_a_time(port: int, requests: int) -> Round:
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        for turn in range(max(2, 2 * requests // TURN)):
            name = NAMES[turn % 2]
            for number in range(TURN + 2):  # of a turn, the first two do not count
                began = time.perf_counter()
                ask(connection, f"/{name}/items/{number}?q=text")
                if number > 1:
                    times[name].append(time.perf_counter() - began)
    figures: Round = {}
    for quantile, share in QUANTILES.items():
        web, bare = (sorted(times[name])[int(len(times[name]) * share)] * 1e3 for name in NAMES)
        figures |= {f"web, {quantile}": web, f"bare, {quantile}": bare, f"web / bare, {quantile}": web / bare}
    return figures


async def at_once(port: int) -> list[int]:
    """Return the process of each answer to requests of which none is answered before all are there."""

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /web/together/{AT_ONCE} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(body) if b" 200 " in head[:13] else 0

    return [*filter(None, await asyncio.gather(*(one() for _ in range(AT_ONCE))))]


def accepted(server: Engine, port: int, calls: int) -> float:
    """Queue calls, kill the instance in their midst, and return the share of them that has run."""
    before = server.ended(path := f"/v2/{PROJECT}/fgs/functions/web")
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        for number in range(calls):
            ask(connection, "/later", "POST", 202)
            if number == calls // 2:
                os.kill(first(port, "web")[1], SIGKILL)
    until(lambda: not server.call("GET", f"{path}/active-async-invocations")["invocations"], "calls had not ended")
    return (server.ended(path) - before) / calls


SCENARIO = Scenario(
    name="web",
    title="a FastAPI application as a web function, and under uvicorn as an HTTP function (bare)",
    figures=(
        *(Figure(name=f"web / bare, {q}", unit="ratio, warm, one request at a time", at_most=1.3) for q in QUANTILES),
        *(Figure(name=f"{name}, {quantile}", unit="ms") for name in NAMES for quantile in QUANTILES),
        Figure(name="answered at once", unit=f"of {AT_ONCE} requests", at_least=AT_ONCE, required=True),
        Figure(name="processes", unit="that served these", at_most=1, required=True),
        *(Figure(name=f"cold start, {name}", unit="ms, code that has changed") for name in NAMES),
        Figure(name="after kill -9", unit="ms of the next request, at once"),
        Figure(name="calls that ran", unit="of those accepted, over a kill -9", at_least=1, required=True),
    ),
    rounds=rounds,
    note="ratios are of one round, in which turns of both functions alternate",
)
