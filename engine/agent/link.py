"""Messages between the supervisor and its agent, on a socket that no other process has: one packet each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from engine.isolation.folders import HostFolder

LARGEST = 64 << 10  #: bytes of a packet


class Configuration(Struct, frozen=True, kw_only=True):
    """First packet to the agent: all that it needs. Command line and environment are visible to others."""

    host: str
    port: int
    token: str = ""  #: ``NAME.SECRET``
    fingerprint: str = ""  #: SHA-256 of the engine's certificate, in hexadecimal digits
    data_dir: str
    marker: str = ""  #: of all processes that the agent starts
    cpus: float  #: processors for instances
    memory: int  #: MiB for instances
    cache: int  #: bytes of unpacked packages
    folders: dict[str, HostFolder] = {}  #: of this machine, for functions
    kills: str = ""  #: means by which the supervisor ends everything
    previous: str = ""  #: session of which nothing runs any more
    log_format: Literal["console", "json"] = "console"

    @property
    def folder(self) -> Path:
        return Path(self.data_dir)

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Packet from the agent. The first is empty, and sent by the process whose end is the end of all others."""

    session: str = ""  #: the engine welcomed the agent, which may start instances from now on
    deadline: float = 0.0  #: seconds by ``now``: nothing may run any more then; sent first after the welcome
    refused: bool = False  #: nothing can run here before the operator mends something
    left: bool = False  #: the engine does not want the agent any more


encode = msgspec.json.Encoder().encode
decode_configuration = msgspec.json.Decoder(Configuration).decode
decode_report = msgspec.json.Decoder(Report).decode


def now() -> float:
    """Return the seconds since the machine's start, also those for which it was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
