"""Applications of the pages about web frameworks, deployed by their commands, in a browser."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uv
from playwright.sync_api import Page, expect

from tests.acceptance.engine_process import PROJECT, EngineProcess, engine_on
from tests.support.distributions import add_installed
from tests.support.documents import DOCS, blocks, packages
from tests.support.engine_process import CLEAN
from tests.support.ports import free_port

#: A PNG file as far as its size goes, of 5 MB.
PICTURE = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 640, 480) + os.urandom(5_000_000)
SERVERS = {
    "fastapi": ("-m", "uvicorn", "main:app", "--port"),
    "flask": ("-m", "flask", "--app", "main", "run", "--port"),
    "django": ("main.py", "runserver", "--noreload"),
}
GATEWAY = free_port()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    settings = {"FUNCTIOND_PLUGINS__APIG__PORT": str(GATEWAY), "FUNCTIOND_EXECUTOR__ISOLATION": "auto"}
    with engine_on(tmp_path / "data", **settings) as engine:
        yield engine


@pytest.mark.parametrize("name", ["fastapi", *(pytest.param(n, marks=pytest.mark.long) for n in ("flask", "django"))])
def test_an_application_works_behind_the_gateway_and_under_its_own_server(
    engine: EngineProcess, page: Page, tmp_path: Path, name: str
) -> None:
    document, index, folder = DOCS / f"{name}.md", tmp_path / "index", tmp_path / "project"
    index.mkdir()
    folder.mkdir()
    add_installed(index, *packages(document))
    (folder / "main.py").write_text(blocks(document, "python")[0].text)
    programs = f"{Path(sys.executable).parent}:{Path(uv.find_uv_bin()).parent}:{os.environ['PATH']}"
    environ = {**CLEAN, "FUNCTIOND_URL": engine.url, "FUNCTIOND_PROJECT": PROJECT, "PATH": programs}
    environ |= {"UV_OFFLINE": "1", "UV_FIND_LINKS": str(index), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    script = "".join(part.text for part in blocks(document, "sh")).replace("127.0.0.1:8090", f"127.0.0.1:{GATEWAY}")
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, cwd=folder, env=environ, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Your last picture: none" in done.stdout

    use(page, f"http://127.0.0.1:{GATEWAY}/pictures/", engine)
    page.context.clear_cookies()  # they are those of a host, whatever the port
    with served(SERVERS[name], folder, environ) as address:
        use(page, address, engine)


def use(page: Page, address: str, engine: EngineProcess) -> None:
    """Upload a picture, and wait for the result of the call about it, which is held back until its state is shown."""
    text, controls = page.locator("p"), f"/v2/{PROJECT}/fgs/functions/measure/controls"
    assert engine.ask("PATCH", controls, {"paused": True}).status == 200
    page.goto(address)
    expect(text).to_have_text("Your last picture: none")
    page.get_by_label("Picture").set_input_files({"name": "cat.png", "mimeType": "image/png", "buffer": PICTURE})
    page.get_by_role("button", name="Upload").click()
    expect(text).to_have_text("WAIT")
    assert page.url.startswith(f"{address}calls/")

    assert engine.ask("PATCH", controls, {"paused": False}).status == 200
    expect(text).to_have_text(f"cat.png: 640x480 pixels, {len(PICTURE):,} bytes")
    page.get_by_role("link").click()
    expect(text).to_have_text("Your last picture: cat.png")
    assert page.url == address


@contextmanager
def served(command: tuple[str, ...], folder: Path, environ: dict[str, str]) -> Iterator[str]:
    """Run a web server, and yield its address."""
    address = f"http://127.0.0.1:{(port := free_port())}/"
    process = subprocess.Popen([sys.executable, *command, str(port)], cwd=folder, env=environ)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=9)) as client:  # with pauses that grow
            client.get(address)
        yield address
    finally:
        process.terminate()
        process.wait()
