"""Ports for servers that need a fixed port or the same port again.

Neither other test runs nor the kernel, for outgoing connections, take these ports.
"""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

_LOWEST = 10_000
#: First ephemeral port: from here on the kernel assigns ports to connections and to binds to port 0.
_END = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
_random = random.Random(os.urandom(8))


def free_port() -> int:
    """Return a free port, reserved for this test process, which can be bound again after a restart."""
    while True:
        port = _random.randrange(_LOWEST, max(_END, _LOWEST + 10_000))
        if _is_free(port) and _claim(port):
            return port


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("", port))
        except OSError:
            return False
    return True


def _claim(port: int) -> bool:
    """Reserve the port until this process exits; return False if another process has reserved it."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0functiond-test-port-{port}")
    except OSError:
        claim.close()
        return False
    claim.detach()
    return True
