"""Users of the programs at the other ends of TCP connections on this machine, as the kernel knows them."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import closing, suppress
from itertools import cycle

Address = tuple[str, int]  #: host and port

_SOCK_DIAG = 4  #: protocol of netlink
_BY_FAMILY, _REQUEST = 20, 1
#: Header of a message with its number, and a question for one socket: family, protocol, states, both ports, both
#: addresses, interface and cookie, of which none is asked for.
_QUESTION = struct.Struct("=IHHII BBxxI 2s2s16s16sIQ")
#: Answer: kind and number of the message, state of the socket, its user id and its inode.
_ANSWER = struct.Struct("=4xH2xI4x x B 62x II")
_LISTENING = 10  #: state of a socket that only listens at the address


class PeerUsers:
    """Connection to the kernel. Call ``close`` at the end. The constructor raises OSError if no descriptor is free."""

    def __init__(self) -> None:
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)
        self._numbers = cycle(range(1 << 32))
        self.close = self._netlink.close

    def uid_of(self, end: Address, other: Address) -> int | None:
        """Return the user id of the socket that has the first address and is connected to the second.

        Return None if no program has such a socket, or the kernel does not tell. Raises OSError if it fails.
        """
        number, family = next(self._numbers), socket.AF_INET6 if ":" in end[0] else socket.AF_INET
        ports = (port.to_bytes(2, "big") for port in (end[1], other[1]))
        hosts = (socket.inet_pton(family, host) for host in (end[0], other[0]))
        header = (_QUESTION.size, _BY_FAMILY, _REQUEST, number, 0)
        question = _QUESTION.pack(*header, family, socket.IPPROTO_TCP, 0xFFFFFFFF, *ports, *hosts, 0, 2**64 - 1)
        self._netlink.send(question)
        answered = kind = state = uid = inode = -1
        while answered != number:  # an earlier call may have failed before its answer
            answer = self._netlink.recv(4096, socket.MSG_DONTWAIT).ljust(_ANSWER.size, b"\0")
            kind, answered, state, uid, inode = _ANSWER.unpack_from(answer)
        # A closed socket has the inode 0, and the user id 0.
        return uid if kind == _BY_FAMILY and inode and state != _LISTENING else None


def tells_uids() -> bool:
    """Return whether the kernel tells whose sockets are at the other ends of connections."""
    with suppress(OSError), closing(PeerUsers()) as users, socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
        return users.uid_of(client.getsockname(), client.getpeername()) == os.geteuid()
    return False
