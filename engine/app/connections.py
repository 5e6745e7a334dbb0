"""Limits of connections, from the settings and the limit of open files of this process."""

from __future__ import annotations

import resource

import structlog
from msgspec import Struct
from msgspec.structs import replace

from engine.asgi.admission import ClientRules, TurnedAway
from engine.asgi.forwarded import TrustedProxies
from engine.config.settings import Settings

#: Open file descriptors that the engine requests.
FILE_LIMIT = 65_536
FILES = 128  #: descriptors of the engine's own work: database, logs, code, brokers, and standard streams
FILES_OF_SLOT = 8  #: descriptors for one invocation: pipes and sockets of its instance, and its log

log = structlog.get_logger("functiond")


class ConnectionRules(Struct, frozen=True, kw_only=True):
    """Rules of the API's listener, and of each gateway of a plugin. Both count refusals in the same place."""

    api: ClientRules
    gateway: ClientRules


def set_file_limit() -> None:
    """Set the soft limit of open files to FILE_LIMIT, or to the hard limit if that is lower.

    Connections, instances and database readers need many files.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = FILE_LIMIT if hard == resource.RLIM_INFINITY else min(hard, FILE_LIMIT)
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def connection_rules(settings: Settings) -> ConnectionRules:
    """Return the limits of connections.

    The engine's own work keeps a reserve of descriptors, at most half of all. Of the others, the API may use half, and
    each of two gateways a quarter, connections that are being refused included. The settings can only lower these
    limits.
    """
    http, (files, _) = settings.http, resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        files = FILE_LIMIT
    reserve = min(files // 2, FILES + FILES_OF_SLOT * settings.executor.slots)
    unit = (files - reserve) // 5  # 2 for the API and 1 for each gateway, and a quarter more that is being refused
    rules = ClientRules(
        connections=min(http.connections, 2 * unit),
        client_connections=http.client_connections,
        body_timeout=http.body_timeout,
        files=files - reserve // 2,
        proxies=TrustedProxies(http.trusted_proxies),
        turned_away=TurnedAway(),
    )
    return ConnectionRules(api=rules, gateway=replace(rules, connections=min(http.connections, unit)))


def warn_of_low_limit(rules: ConnectionRules, wanted: int) -> None:
    """Log a warning if the limit of open files allows fewer than ``wanted`` connections."""
    if rules.gateway.connections < wanted:
        log.warning(
            "few open files allowed",
            limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            connections=rules.api.connections,
            of_each_gateway=rules.gateway.connections,
            hint="raise the limit of open files (ulimit -n, LimitNOFILE), or lower http.connections",
        )
