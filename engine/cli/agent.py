"""``functiond agent``: run functions on this machine for an engine elsewhere, until SIGTERM or SIGINT."""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from cyclopts import Parameter
from cyclopts.validators import Number

from engine.agent.link import Configuration
from engine.agent.supervisor import supervise
from engine.cli.options import Texts
from engine.cli.output import FAILED
from engine.deploy.fields import read_fields
from engine.errors import SettingsError, UsageError
from engine.errors.files import check_closed
from engine.isolation.folders import Folder, find_folders
from engine.isolation.machine import usable_memory
from engine.metrics.prometheus import configure_logging

_TOKEN = re.compile(r"(.+\.[0-9a-f]{64})\.([0-9a-f]{64})")
_POSITIVE = Parameter(validator=Number(gt=0))


def agent(
    *,
    join: str,
    token: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    data_dir: Path = Path("agent"),
    cpus: Annotated[float | None, _POSITIVE] = None,
    memory: Annotated[int | None, _POSITIVE] = None,
    cache: Annotated[int, _POSITIVE] = 10 << 30,
    folder: Texts = (),
    log_format: Literal["console", "json"] = "console",
) -> int:
    """Run functions on this machine for an engine elsewhere.

    The engine names its nodes in `executor.nodes.agents`, and writes a token file for each.

    Parameters
    ----------
    join
        Address of the engine's listener for nodes, such as https://10.0.0.1:8443.
    token
        Token file of this node, copied from the engine's data directory and readable by its owner only. With -, read
        the token from standard input, do not connect again after the end of the connection, and exit with 0 if
        certainly nothing that was started runs any more.
    data_dir
        Folder for code packages and temporary files.
    cpus
        Processors for functions. [default: those of this machine]
    memory
        Memory for functions in MB. [default: three quarters of that of this machine]
    cache
        Bytes of unpacked code packages to keep.
    folder
        Folder of this machine for functions that ask for it, as NAME=PATH, or NAME=PATH:ro without writing. Its name
        is one of `executor.folders`. Repeat for several.
    log_format
        Format of log lines on standard error.
    """
    host, port = _address(join)
    once, first = str(token) == "-", _read_token(token)
    configure_logging(log_format, "info")
    folders = {}
    for name, text in read_fields(folder, kind="folder").items():
        path = str(text).removesuffix(":ro")
        folders[name] = Folder(path=os.path.abspath(path), mode="rw" if path == str(text) else "ro")
    configuration = Configuration(
        host=host,
        port=port,
        data_dir=str(data_dir.absolute()),
        cpus=cpus or len(os.sched_getaffinity(0)),
        memory=memory or (usable_memory() >> 20) * 3 // 4,
        cache=cache,
        folders=find_folders(folders, (data_dir, token)),
        log_format=log_format,
    )
    certain = supervise(configuration, (lambda: first) if once else partial(_read_token, token), once)
    return FAILED if once and not certain else 0


def _address(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        if parts.scheme == "https" and parts.hostname and parts.port and parts.path in ("", "/"):
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise UsageError(f"--join {url} is no address of an engine: use https://HOST:PORT")


def _read_token(file: Path) -> tuple[str, str]:
    """Return the token, ``NAME.SECRET``, and the fingerprint of the engine's certificate."""
    try:
        if str(file) == "-":
            text = sys.stdin.readline()
        else:
            check_closed(file, file.stat(), f"{file} is a secret")
            text = file.read_text(errors="replace")
        parts = _TOKEN.fullmatch(text.strip())
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}; name the token file with --token") from None
    if parts is None:
        raise SettingsError(f"{file} is no token file: copy it again from the folder `nodes` of the engine's data")
    return parts[1], parts[2]
