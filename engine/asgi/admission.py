"""Admission of connections: limits in all and per client, and a record of the clients that were turned away.

A client is an IPv4 address or a /64 network of IPv6. Connections of a trusted proxy count for the client of the request
that they carry, which is known once its head is read; between two requests, they count for no client.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import lru_cache

import structlog
from msgspec import Struct, field

from engine.asgi.addresses import network_of
from engine.asgi.forwarded import TrustedProxies
from engine.asgi.peers import Address
from engine.asgi.responses import RETRY, Refusal
from engine.asgi.wire import App

CONNECTIONS = 8192
SHARE = 4  #: a client may have one connection out of so many, unless ``client_connections`` is set
EXTRA_SHARE = 4  #: connections above a limit that get a response: a quarter of it; more are closed at once
EXTRA = 512  #: the same for the limit of all connections, at most
EXTRA_LEAST = 8  #: the same for either limit, at least
EXTRA_OF_CLIENT = 32  #: the same for the limit of a client, at most
LOG_PAUSE = 10.0  #: seconds between two log lines about the same kind of refusal

#: Kinds of refusals, with the advice in the log.
ADVICE = {
    "connections": "too many connections; raise http.connections, and the limit of open files (LimitNOFILE)",
    "client_connections": "too many connections of one client; name proxies in http.trusted_proxies, or raise "
    "http.client_connections",
    "files": "too many open files; raise the limit of open files (LimitNOFILE)",
    "held_bytes": "unfinished requests of a client or project hold too many bytes in memory",
    "slow_bodies": "a body took too long to arrive; raise http.body_timeout for slow clients",
}

#: Returns the application for a connection, by the addresses of client and engine.
ChooseApp = Callable[[Address | None, Address | None], App]

log = structlog.get_logger("functiond")


class TurnedAway:
    """Number of clients turned away since the start, by kind, with at most one log line per kind in 10 s."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys(ADVICE, 0)
        self._logged: dict[str, tuple[float, int]] = defaultdict(lambda: (-LOG_PAUSE, 0))  # time and count then

    def note(self, kind: str, client: str = "") -> None:
        """Count a refusal of a client or project. Broken networks cause slow bodies, too: no reason to warn."""
        self.counts[kind] += 1
        now, (before, logged) = time.monotonic(), self._logged[kind]
        if now - before >= LOG_PAUSE:
            self._logged[kind] = now, self.counts[kind]
            new = self.counts[kind] - logged
            write = log.info if kind == "slow_bodies" else log.warning
            write("clients turned away", limit=kind, count=new, client=client, hint=ADVICE[kind])


class ClientRules(Struct, frozen=True, kw_only=True):
    """Rules of a listener about its clients."""

    connections: int = CONNECTIONS
    client_connections: int = 0  #: connections of one client; 0: a quarter of ``connections``
    body_timeout: float = 60.0  #: seconds for a body, in addition to one second for each 64 KiB of it
    files: int = 0  #: file descriptors from this number on stay free for the engine's own work; 0: no such limit
    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    turned_away: TurnedAway = field(default_factory=TurnedAway)
    choose: ChooseApp | None = None  #: None: all connections have the application of the listener

    @property
    def share(self) -> int:
        """Connections that one client may have."""
        return self.client_connections or max(1, self.connections // SHARE)


class Admission:
    """Part of one connection in the counts, until ``release``. ``refusal``, if any, is the only response on it."""

    def __init__(
        self, counts: ConnectionCounts | None = None, network: str = "", refusal: Refusal | None = None
    ) -> None:
        self._counts = counts  # None: not counted
        self.network = network  #: of the client; empty if it is not known
        self.refusal = refusal

    def assign(self, address: str) -> Refusal | None:
        """Count the connection of a proxy for the client at ``address``. Return a refusal if that has too many."""
        if self._counts is None:
            return None
        self.unassign()
        self.network, refusal = self._counts.assign(address)
        return refusal

    def unassign(self) -> None:
        """Count the connection of a proxy for no client."""
        if self._counts is not None and self.network:
            self._counts.remove(self.network)
            self.network = ""

    def release(self) -> None:
        """End the counting of the connection. Further calls do nothing."""
        if self._counts is not None:
            self.unassign()
            self._counts.total -= 1
            self._counts = None


class ConnectionCounts:
    """Open connections of a listener: all of them, and those of each client."""

    def __init__(self, rules: ClientRules) -> None:
        self._rules, self.total = rules, 0
        self._by_network = Counter[str]()
        self._network = lru_cache(4096)(network_of)
        self._extra = _extra(rules.connections, EXTRA)
        self._extra_of_client = _extra(rules.share, EXTRA_OF_CLIENT)

    def admit(self, address: str, descriptor: int) -> Admission | None:
        """Count a new connection. Return None if it must be closed at once.

        ``descriptor`` is its file descriptor. The system gives the lowest free number, so a high one shows that nearly
        all are in use, by connections or by anything else.
        """
        rules, refusal = self._rules, None
        network = "" if address in rules.proxies else self._network(address)
        excess, excess_of_client = self.total - rules.connections, self._by_network[network] - rules.share
        if rules.files and descriptor >= rules.files:
            rules.turned_away.note("files", address)
            return None
        if excess >= 0:
            rules.turned_away.note("connections", address)
            refusal = Refusal(503, b"too many connections; use fewer, or retry later", RETRY)
        elif network and excess_of_client >= 0:
            rules.turned_away.note("client_connections", address)
            refusal = _too_many()
        if excess >= self._extra or (network and excess_of_client >= self._extra_of_client):
            return None
        self.total += 1
        if network:
            self._by_network[network] += 1
        return Admission(self, network, refusal)

    def assign(self, address: str) -> tuple[str, Refusal | None]:
        """Count a connection of a proxy for a client. Return the client's network, and a refusal of its request."""
        network = self._network(address)
        self._by_network[network] += 1
        if address in self._rules.proxies or self._by_network[network] <= self._rules.share:
            return network, None
        self._rules.turned_away.note("client_connections", address)
        return network, _too_many()

    def remove(self, network: str) -> None:
        self._by_network[network] -= 1
        if self._by_network[network] <= 0:
            del self._by_network[network]


def _too_many() -> Refusal:
    return Refusal(429, b"too many connections of this client; use fewer, or retry later", RETRY)


def _extra(limit: int, most: int) -> int:
    return max(EXTRA_LEAST, min(limit // EXTRA_SHARE, most))
