"""How the process of an instance comes to be: forked from a template where that can be, else as a new program.

``Processes`` are the host's, with one template per interpreter. ``Sandboxes`` have one per function, inside its walls.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from engine.executors.forked import ForkedChild
from engine.executors.spawn import PATH, Channels, Order, Place, Spawned, spawn
from engine.executors.template import Template
from engine.isolation.bubblewrap import CODE, LAYERS, RUNTIME, TMP, Bubblewrap
from engine.isolation.limits import ENGINE_VARIABLE, INSTANCE_VARIABLE
from engine.runtimes.interpreters import WORKERS, own_interpreter

Home = tuple[int, str, int]  #: function, version and revision: what may share a sandbox

_WORKER = WORKERS / "python_worker.py"
TEMPLATE = WORKERS / "python_template.py"
_LINGER = 60.0  #: seconds that a sandbox stays when its last instance has gone
_PLACEHOLDER = "0" * 32  #: as long as the id of an instance, which is written over it
#: These count when a program starts, so that a fork comes too late for them.
_AT_START = ("LD_", "LC_", "LANG", "MALLOC_", "GLIBC_")
#: By these a program runs code of the user's as soon as it starts, before its worker waits for anything.
_RUNS_CODE = ("LD_", "GCONV_PATH", "OPENSSL_", "NODE_OPTIONS")


class Starter(Protocol):
    @property
    def name(self) -> str:
        """Of what separates functions from the host."""
        ...

    @property
    def own_network(self) -> bool:
        """Whether an instance can have a network of its own."""
        ...

    @property
    def tmp(self) -> int:
        """MB of memory that the files of an instance may take; 0 if they lie on a disk."""
        ...

    def seen(self, place: Place) -> Place:
        """As the function sees it."""
        ...

    def start(self, home: Home, place: Place, order: Order) -> Spawned:
        """``order`` has paths as seen by the function, but for its command. Raises OSError."""
        ...

    def ended(self, home: Home) -> None:
        """Once for each start, when the instance is gone."""
        ...

    async def close(self) -> None: ...


class Processes:
    """``forking`` is whether to have templates: a second start of an interpreter begins one."""

    name = "process"
    tmp = 0

    def __init__(self, marker: str, *, forking: bool, own_network: bool = False) -> None:
        self.own_network = own_network
        self._marker, self._forking = marker, forking
        self._templates: dict[str, Template | None] = {}  #: by interpreter; None: asked for once
        self._leaving: set[Template] = set()

    def seen(self, place: Place) -> Place:
        return place

    def prepare(self, python: str) -> None:
        """Begin the template of an interpreter. Raises OSError."""
        _leave(self._templates.get(python), self._leaving)
        command = [python, "-I", str(TEMPLATE), "{fd}", "full"]
        self._templates[python] = Template(command, template_environment(self._marker), self._leaving.discard)

    def start(self, home: Home, place: Place, order: Order) -> Spawned:
        if place.own_network:
            return self._start_apart(place, order, {"tmp": None, "network": True, "user": None})
        if any(name.startswith(_RUNS_CODE) for name in order.environment):
            return self._start_apart(place, order, None)
        # Other programs gain a low descriptor: Node.js keeps those above 16 from none of the programs that it starts.
        python, argv = (order.command[0], None) if _is_python(order) else (own_interpreter().path, order.command)
        if self._forking and (argv or _can_fork(order)):
            template = self._template(python)
            if template is not None and template.ready.is_set():
                try:
                    return spawn(order, place.tmp, partial(fork, template, argv, None))
                except OSError:
                    pass  # then by the engine itself
        return spawn(order, place.tmp)

    def _start_apart(self, place: Place, order: Order, fence: dict[str, Any] | None) -> Spawned:
        """A program of its own again, but started by a template: behind its fence, and once its limits hold."""
        python = own_interpreter().path
        template = self._templates.get(python)
        if template is None or not template.alive:
            self.prepare(python)
            template = self._templates[python]
            assert template is not None
        return spawn(order, place.tmp, partial(fork, template, order.command, fence))

    def ended(self, home: Home) -> None:
        """Templates stay as long as the engine."""

    async def close(self) -> None:
        await _close([*(template for template in self._templates.values() if template), *self._leaving])

    def _template(self, python: str) -> Template | None:
        if python not in self._templates:
            self._templates[python] = None
            return None
        template = self._templates[python]
        if template is None or not template.alive:
            try:
                self.prepare(python)
            except OSError:
                return None
        return self._templates[python]


class Sandboxes:
    name = "bubblewrap"

    def __init__(
        self,
        bubblewrap: Bubblewrap,
        marker: str,
        *,
        fence: dict[str, Any],
        own_network: bool = False,
        linger: float = _LINGER,
    ) -> None:
        self.own_network = own_network or fence["network"]
        self._bubblewrap, self._marker, self._linger = bubblewrap, marker, linger
        self._fence = {**fence, "user": bubblewrap.user}
        self.tmp: int = fence["tmp"]
        self._templates: dict[Home, Template] = {}
        self._counts: dict[Home, int] = {}
        self._timers: dict[Home, asyncio.TimerHandle] = {}
        self._leaving: set[Template] = set()

    def seen(self, place: Place) -> Place:
        layers = tuple(LAYERS / str(number) for number in range(len(place.layers)))
        return place._replace(code=CODE, tmp=TMP, layers=layers, runtime=RUNTIME)

    def start(self, home: Home, place: Place, order: Order) -> Spawned:
        template = self._template(home, place, order)
        if (timer := self._timers.pop(home, None)) is not None:
            timer.cancel()
        self._counts[home] = self._counts.get(home, 0) + 1
        argv = None if _is_python(order) and _can_fork(order) else [_inside(part) for part in order.command]
        fence = {**self._fence, "network": self._fence["network"] or place.own_network}
        try:
            return spawn(order, None, partial(fork, template, argv, fence))
        except BaseException:
            self.ended(home)
            raise

    def ended(self, home: Home) -> None:
        self._counts[home] -= 1
        if not self._counts[home]:
            del self._counts[home]
            self._timers[home] = asyncio.get_running_loop().call_later(self._linger, self._close_one, home)

    async def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        await _close([*self._templates.values(), *self._leaving])

    def _template(self, home: Home, place: Place, order: Order) -> Template:
        template = self._templates.get(home)
        if template is None or not template.alive:
            _leave(template, self._leaving)
            program = order.command[0]
            python = program if _is_python(order) else own_interpreter().path
            command = self._bubblewrap.command(python, place.code, place.layers, [program])
            environment = template_environment(self._marker)
            template = self._templates[home] = Template([*command, "{fd}"], environment, self._leaving.discard)
        return template

    def _close_one(self, home: Home) -> None:
        del self._timers[home]
        template = self._templates.pop(home)
        _leave(template, self._leaving)
        template.close()


def fork(
    template: Template, argv: list[str] | None, fence: dict[str, Any] | None, order: Order, channels: Channels
) -> ForkedChild:
    """A ``Launch`` that has a template fork. Without ``argv`` it becomes a Python worker."""
    request = {
        "argv": argv,
        "paths": [str(order.code), *map(str, order.layers)],
        "environment": order.environment,
        "fence": fence,
    }
    return template.fork(request, channels)


def template_environment(marker: str) -> dict[str, str]:
    """What marks it, and with it all that it forks, as an engine's."""
    return {"PATH": PATH, "LANG": "C.UTF-8", ENGINE_VARIABLE: marker, INSTANCE_VARIABLE: _PLACEHOLDER}


def _is_python(order: Order) -> bool:
    return order.command[-1] == str(_WORKER)


def _can_fork(order: Order) -> bool:
    return order.environment.get("LANG") == "C.UTF-8" and not any(
        name.startswith(_AT_START) for name in order.environment if name != "LANG"
    )


def _inside(part: str) -> str:
    path = Path(part)
    return str(RUNTIME / path.relative_to(WORKERS)) if path.is_relative_to(WORKERS) else part


def _leave(template: Template | None, leaving: set[Template]) -> None:
    """It is not used any more, and its end still has to be waited for."""
    if template is not None and not template.gone.is_set():
        leaving.add(template)


async def _close(templates: list[Template]) -> None:
    for template in templates:
        template.close()
    for template in templates:
        await template.gone.wait()
