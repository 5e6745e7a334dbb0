"""Users of the programs at the other ends of TCP connections on this machine, as the kernel knows them."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress

Address = tuple[str, int]  #: host and port

_SOCK_DIAG = 4  #: protocol of netlink
_BY_FAMILY, _REQUEST = 20, 1
#: Header of a message, and a question for one socket: family, protocol, states, both ports, both addresses, interface
#: and cookie, of which none is asked for.
_QUESTION = struct.Struct("=IHHII BBxxI 2s2s16s16sIQ")
#: Answer: kind of the message, state of the socket, its user id and its inode.
_ANSWER = struct.Struct("=4xH10x x B 62x II")
_LISTENING = 10  #: state of a socket that only listens at the address


def uid_of(end: Address, other: Address) -> int | None:
    """Return the user id of the socket that has the first address and is connected to the second.

    Return None if no program has such a socket, or the kernel does not tell. Raises OSError if no descriptor is free.
    """
    family = socket.AF_INET6 if ":" in end[0] else socket.AF_INET
    ports = (port.to_bytes(2, "big") for port in (end[1], other[1]))
    hosts = (socket.inet_pton(family, host) for host in (end[0], other[0]))
    header = (_QUESTION.size, _BY_FAMILY, _REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as netlink:
        netlink.send(_QUESTION.pack(*header, family, socket.IPPROTO_TCP, 0xFFFFFFFF, *ports, *hosts, 0, 2**64 - 1))
        answer = netlink.recv(4096, socket.MSG_DONTWAIT)
    kind, state, uid, inode = _ANSWER.unpack_from(answer.ljust(_ANSWER.size, b"\0"))
    # A closed socket has the inode 0, and the user id 0.
    return uid if kind == _BY_FAMILY and inode and state != _LISTENING else None


def tells_uids() -> bool:
    """Return whether the kernel tells whose sockets are at the other ends of connections."""
    with suppress(OSError), socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())
        return uid_of(client.getsockname(), client.getpeername()) == os.geteuid()
    return False
