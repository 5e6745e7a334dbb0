"""Choice of the network of functions when the setting leaves it open, and the words that tell of a change."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Literal

import structlog

from engine.errors import StoredDataUnreadable, Unavailable
from engine.protocols import Storage

log = structlog.get_logger("functiond")

STORE = "functiond.network"  #: no table of a plugin has this name
_TABLE, _KEY = "network", "told"
Choice = Literal["auto", "project", "host", "none"]


async def choose_network(setting: Choice, storage: Storage) -> Choice:
    """Return the setting; instead of ``auto``, return ``host`` if there are functions that ran on the host's network.

    They may use servers on the host's loopback, which the network of a project does not reach.
    """
    if setting != "auto" or await storage.store(STORE).get(_TABLE, _KEY):
        return setting
    try:
        functions, _ = await storage.catalog.load()
    except StoredDataUnreadable:  # there are functions; the load of all that is stored tells the problem
        return "host"
    if not functions:
        with suppress(Unavailable):  # the disk is full: then as for functions that exist
            await storage.store(STORE).write(_TABLE, {_KEY: b"new"})
        return setting
    log.warning(
        "functions of all projects share the host's network, as before in this data directory",
        advice='set executor.network = "project" (and executor.host_ports for servers on 127.0.0.1), or "host"',
    )
    return "host"


async def tell_network(walls: Mapping[str, str], storage: Storage) -> None:
    """Tell what functions reach, at the first start at which each project has a network of its own."""
    store = storage.store(STORE)
    if walls["network"] == "project" and await store.get(_TABLE, _KEY) != b"project":
        log.info(
            "each project has a network of its own: its functions reach other machines, the engine's API with "
            "FUNCTIOND_TOKEN, and ports of 127.0.0.1 that executor.host_ports lists, but no other program of this host"
        )
        with suppress(Unavailable):  # told again at the next start
            await store.write(_TABLE, {_KEY: b"project"})
