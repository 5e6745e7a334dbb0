"""User ids and network namespaces, by which the sandboxes of different projects are kept apart."""

from __future__ import annotations

import asyncio
import errno
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import structlog
from anyio import move_on_after, to_thread

from engine.executors.local.child import OwnChild
from engine.executors.local.template import Template
from engine.isolation.bubblewrap import Bubblewrap
from engine.isolation.network import Network, open_network

log = structlog.get_logger("functiond")

_LINGER = 600.0  #: seconds that a tenant stays after its last sandbox
_EXIT_TIMEOUT = 5.0  #: seconds from the end of a network to the exit of pasta

Ports = Callable[[str], Iterable[str]]  #: from a project to the ports that ``open_network`` takes


class Tenant:
    """User id and network of one project, and the sandboxes that have them."""

    def __init__(self, user: int | None, network: Network | None) -> None:
        self.user = user  #: None: that of the engine
        self.network = network  #: None: that of the host
        self.sandboxes: set[Template] = set()
        self.timer: asyncio.TimerHandle | None = None


class Tenants:
    """Tenants of this machine, by project. Each is made when its project first runs a function.

    Projects get different user ids of ``bubblewrap.users``, of which pasta has the first, unless there is one for all.
    Without ``ports``, all use the host's network. ``environment`` is that of pasta.
    """

    def __init__(self, bubblewrap: Bubblewrap, ports: Ports | None, environment: Mapping[str, str]) -> None:
        self.linger = _LINGER
        self.problem = ""  #: why projects have no networks of their own, although the settings want them
        self._bubblewrap, self._ports, self._environment = bubblewrap, ports, environment
        self._tenants: dict[str, Tenant] = {}
        self._opening: dict[str, asyncio.Task[Tenant]] = {}
        self._users_taken: set[int] = set()
        self._networks: dict[OwnChild, asyncio.Event] = {}  #: set at the exit of this pasta

    @property
    def own_networks(self) -> bool:
        return self._ports is not None

    async def open(self, project: str) -> Tenant:
        """Return the tenant of a project, which stays for at least ``linger`` seconds from now.

        Raises OSError if its network cannot be made.
        """
        tenant = self._tenants.get(project)
        if tenant is None:
            if project not in self._opening:
                self._opening[project] = asyncio.create_task(self._open(project))
            tenant = await asyncio.shield(self._opening[project])  # that others wait for, too
        self._set_timer(project, tenant)
        return tenant

    def enter(self, project: str, start: Callable[[Tenant], Template]) -> Template:
        """Start a sandbox of an open tenant. Call ``leave`` when it has closed.

        Raises OSError if the tenant has lost its network.
        """
        tenant = self._tenants.get(project)
        if tenant is None:
            raise OSError(errno.EAGAIN, f"the network of project {project} has ended")
        sandbox = start(tenant)
        tenant.sandboxes.add(sandbox)
        self._set_timer(project, tenant)
        return sandbox

    def leave(self, project: str, sandbox: Template) -> None:
        tenant = self._tenants.get(project)
        if tenant is not None and sandbox in tenant.sandboxes:
            tenant.sandboxes.discard(sandbox)
            self._set_timer(project, tenant)

    async def close(self) -> None:
        """End all tenants. Call when all sandboxes are closed."""
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        for project, tenant in list(self._tenants.items()):
            self._end(project, tenant)
        with move_on_after(_EXIT_TIMEOUT):
            for ended in list(self._networks.values()):
                await ended.wait()
        for pasta, ended in list(self._networks.items()):  # it was stopped, or hangs
            pasta.kill()
            await ended.wait()

    async def _open(self, project: str) -> Tenant:
        user = self._take_user(project)
        try:
            tenant = Tenant(user, await to_thread.run_sync(self._prepare, project, user))
        except BaseException:
            self._users_taken.discard(user or 0)
            raise
        finally:
            del self._opening[project]
        if tenant.network is not None:
            pasta = OwnChild(tenant.network.process, asyncio.get_running_loop())
            self._networks[pasta] = asyncio.Event()
            pasta.watch(partial(self._on_exit, project, tenant, pasta))
        self._tenants[project] = tenant
        self._set_timer(project, tenant)  # the caller may have been cancelled
        return tenant

    def _prepare(self, project: str, user: int | None) -> Network | None:
        if user is not None:
            self._bubblewrap.name(user)
        if self._ports is None:
            return None
        users = self._bubblewrap.users
        return open_network(self._ports(project), users[0] if users else None, self._environment)

    def _take_user(self, project: str) -> int | None:
        users = self._bubblewrap.users
        if users is None or len(users) == 1:
            return users[0] if users else None
        first, most = zlib.crc32(project.encode()), len(users) - 1  # the same after a restart: it owns files
        order = (users[1 + (first + number) % most] for number in range(most))
        user = next((user for user in order if user not in self._users_taken), None)
        if user is None:
            raise OSError(errno.EAGAIN, "other projects have all user ids; widen executor.user_ids")
        self._users_taken.add(user)
        return user

    def _set_timer(self, project: str, tenant: Tenant) -> None:
        if self._tenants.get(project) is not tenant:  # it has ended
            return
        if tenant.timer is not None:
            tenant.timer.cancel()
            tenant.timer = None
        if not tenant.sandboxes:
            tenant.timer = asyncio.get_running_loop().call_later(self.linger, self._end, project, tenant)

    def _end(self, project: str, tenant: Tenant) -> None:
        if tenant.timer is not None:
            tenant.timer.cancel()
        del self._tenants[project]
        self._users_taken.discard(tenant.user or 0)
        if tenant.network is not None:
            tenant.network.close()

    def _on_exit(self, project: str, tenant: Tenant, pasta: OwnChild) -> None:
        """Reap pasta. If it has not been asked to exit, end the sandboxes that have lost their network."""
        status = pasta.reap()
        self._networks.pop(pasta).set()
        if self._tenants.get(project) is tenant:
            log.error("the network of a project has ended, and its instances with it", project=project, status=status)
            for sandbox in tenant.sandboxes:
                sandbox.kill()
            self._end(project, tenant)
