"""Users of the other ends of connections."""

from __future__ import annotations

import os
import socket
from contextlib import closing

import pytest

from engine.asgi.peers import PeerUsers, tells_uids


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_has_the_user_of_its_client_until_that_closes_it(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    users = PeerUsers()
    with closing(users), socket.create_server((host, 0), family=family) as server, socket.socket(family) as client:
        if not tells_uids():
            pytest.skip("the kernel has no tcp_diag")
        client.connect(server.getsockname())
        accepted, address = server.accept()
        with accepted:
            ends = (address[0], address[1]), (host, int(server.getsockname()[1]))
            assert users.uid_of(*ends) == os.geteuid()
            client.close()  # the kernel would call it root's
            assert users.uid_of(*ends) is None
        assert users.uid_of((host, 1), ends[1]) is None
