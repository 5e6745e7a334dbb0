"""Listening addresses of the gateways, opened for the first API, and the triggers that add APIs to the gateways."""

from __future__ import annotations

import asyncio

import anyio
import structlog
from anyio.abc import TaskStatus

from engine import PluginContext, SettingsError, TriggerContext
from plugins.apig.access import Access
from plugins.apig.gateway import Gateway
from plugins.apig.options import ApigOptions, ApigSettings, ListenerSettings
from plugins.apig.routing import Route, collision

DEDICATED = "DEDICATEDGATEWAY"
ADVICE = "; choose another --port"  #: for the engine's own listener; gateways have a setting instead

log = structlog.get_logger("functiond.apig")


class Listener:
    """Listening address, and the gateway that answers requests to it."""

    def __init__(self, name: str, settings: ListenerSettings, gateway: Gateway) -> None:
        self._name, self._settings, self.gateway = name, settings, gateway
        self._wanted = asyncio.Event()
        self._ended = asyncio.Event()  #: set when the next attempt to open the address has ended
        self._problem = ""  #: reason why the last attempt has failed, empty if it has not
        self.port = 0  #: port while it listens, otherwise 0

    def address(self, *, tls: bool) -> str:
        """Return the URL of the gateway; empty if its port is not known yet."""
        return self._settings.address(self.port, tls=tls)

    async def opened(self) -> None:
        """Wait until the address is open.

        Raises SettingsError if it cannot be opened, for example because the port is in use.
        """
        if not self.port:
            ended = self._ended
            self._wanted.set()
            await ended.wait()
            if self._problem:
                raise SettingsError(self._problem)

    async def run(self, context: PluginContext) -> None:
        """Open the address when a trigger waits in ``opened``. If that fails, try again when the next trigger waits."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                async with context.routes.listen(self.gateway, self._settings.host, self._settings.port) as self.port:
                    log.info("gateway serves", gateway=self._name, host=self._settings.host, port=self.port)
                    self._end_attempt("")
                    await anyio.sleep_forever()
            except SettingsError as error:
                self._end_attempt(f"{str(error).removesuffix(ADVICE)}; choose another {self._name}.port")
            finally:
                self.port = 0

    def _end_attempt(self, problem: str) -> None:
        """Resume all triggers that wait in ``opened``."""
        self._problem = problem
        self._ended.set()
        self._ended = asyncio.Event()


class ApigService:
    """Part of APIG that runs once for all its triggers."""

    def __init__(self, settings: ApigSettings) -> None:
        access = Access(settings.apps)
        self._shared = Listener("plugins.apig", settings, Gateway(settings, access))
        self._dedicated = Listener("plugins.apig.dedicated", settings.dedicated, Gateway(settings, access))

    def listener(self, kind: str) -> Listener:
        return self._dedicated if kind == DEDICATED else self._shared

    def address(self, kind: str, options: ApigOptions, tls: bool) -> str:
        """Return the URL of an API, or only its path if the system chooses the gateway's port and has not yet."""
        return _with_domain(self.listener(kind).address(tls=tls), options.sl_domain) + options.path

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._shared.run, context)
            tasks.start_soon(self._dedicated.run, context)
            task_status.started()


class ApigTrigger:
    def __init__(self, options: ApigOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        service: ApigService = context.plugin.service
        listener = service.listener(context.kind)
        with listener.gateway.routes.added(Route(options=self._options, context=context)):
            await listener.opened()
            task_status.started()
            await anyio.sleep_forever()


def taken(kind: str, mine: ApigOptions, other_kind: str, other: ApigOptions) -> str:
    """Return why an API would take requests of one of another project; empty if it takes none."""
    return "" if (kind == DEDICATED) != (other_kind == DEDICATED) else collision(mine, other)


def _with_domain(base: str, domain: str) -> str:
    """Return the gateway's URL with the API's domain, if any, as host.

    The port is kept. Such an API is found under its domain only.
    """
    if not domain or not base:
        return base
    scheme, _, host = base.partition("://")
    _, colon, port = host.rpartition("]")[2].partition(":")
    return f"{scheme}://{domain}{colon}{port}"
