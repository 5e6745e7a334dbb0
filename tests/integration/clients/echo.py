"""Listener for foreign clients, the bodies that they send, and the lines that they print.

Each program gets the URL of the listener and the names of the files to send. After each exchange the program prints
one line: a label, the body of the answer and its status.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from random import Random

from anyio.from_thread import start_blocking_portal

from engine.asgi.listener import listen
from engine.asgi.wire import Receive, Reply, Scope, Send, respond

SIZES = (0, 1, 64 << 10, 1 << 20, 6 << 20)
BODIES = {size: Random(size).randbytes(size) for size in SIZES}
DIGESTS = {size: sha256(body).hexdigest() for size, body in BODIES.items()}
REFUSED = "/refused/"  #: the status follows
TEXT = b"text/plain"
MAX_WAIT = 120.0  #: seconds after which a program has failed


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with method, framing, size and hash of the body. Refuse paths below ``REFUSED`` without reading it."""
    if scope["path"].startswith(REFUSED):
        status = int(scope["path"].removeprefix(REFUSED))
        await respond(scope, send, Reply(status=status, body=b"refused", content_type=TEXT))
        return
    digest, size, more = sha256(), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        digest.update(message["body"])
        size, more = size + len(message["body"]), message["more_body"]
    answer = f"{scope['method']} {_framing(scope)} {size} {digest.hexdigest()}"
    await respond(scope, send, Reply(body=answer.encode(), content_type=TEXT))


def _framing(scope: Scope) -> str:
    names = {name for name, _ in scope["headers"]}
    if b"transfer-encoding" in names:
        return "chunked"
    return "length" if b"content-length" in names else "none"


@contextmanager
def echo_server() -> Iterator[str]:
    """Run the listener in a thread, on the loop of an engine; yield its URL."""
    with (
        start_blocking_portal(backend_options={"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(listen(echo, "127.0.0.1", 0)) as port,
    ):
        yield f"http://127.0.0.1:{port}"


def write_bodies(folder: Path) -> list[Path]:
    """Write each body to a file named by its size; return the files from the smallest to the largest."""
    files = [folder / str(size) for size in SIZES]
    for file in files:
        file.write_bytes(BODIES[int(file.name)])
    return files


def answered(label: str, size: int, framing: str = "length", method: str = "POST") -> str:
    """Return the line of an exchange in which the listener received the whole body."""
    return f"{label} {method} {framing} {size} {DIGESTS[size]} 200"


def printed(command: Sequence[str | Path], *, cwd: Path | None = None) -> list[str]:
    """Run a program to its end and return the lines of its output."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_WAIT, cwd=cwd, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.stderr[-2000:]}{done.stdout[-2000:]}"
    return done.stdout.splitlines()
