"""Amazon services emulated by moto in a process of its own: S3 notifies SNS, which posts over HTTP."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from tests.support.ports import free_ports


@contextmanager
def moto_server() -> Iterator[str]:
    """Run the server until the block is left; yield its URL. All data is kept in memory."""
    program = shutil.which("moto_server", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("there is no moto to try: pip install moto flask flask-cors")
    [port] = free_ports(1)
    with subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        # The server logs every request and would block on an unread pipe.
        reader = Thread(target=deque, args=(process.stderr, 0))
        try:
            if not any("Running on" in line for line in process.stderr):
                raise AssertionError("moto did not start")
            reader.start()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            if reader.is_alive():
                reader.join()
