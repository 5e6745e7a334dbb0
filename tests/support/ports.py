"""Ports for servers that must be told theirs, or have it again: no other test run is given them, nor a connection."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

_LOWEST = 10_000
#: From here on the kernel gives ports to connections and to whoever asks for any.
_END = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
_chance = random.Random(os.urandom(8))


def free_port() -> int:
    """One that the next engine on a folder can have again."""
    while True:
        port = _chance.randrange(_LOWEST, max(_END, _LOWEST + 10_000))
        if _is_free(port) and _claim(port):
            return port


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("", port))
        except OSError:
            return False
    return True


def _claim(port: int) -> bool:
    """As long as this process lives; False if another one has it."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0functiond-test-port-{port}")
    except OSError:
        claim.close()
        return False
    claim.detach()
    return True
