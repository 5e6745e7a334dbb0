"""Work of ``functiond dev`` between its start and its end: one event after the other, from several threads."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from queue import Queue

from engine.cli.dev.deployables import Deployable
from engine.cli.dev.following import Item, follow
from engine.cli.dev.keyboard import Keyboard, has_keys
from engine.cli.dev.screen import Screen, menu_of
from engine.cli.dev.watching import watching
from engine.cli.output import FAILED, write
from engine.cli.target import Target
from engine.deploy.client import Client, path_of
from engine.errors import FunctiondError

_FIRST = ("APIG", "TIMER")  #: trigger types with the first keys
_SAMPLE_KEYS = "123456789abcdghijklmopstuvwxyz"  #: without those of other actions
_WAITING = 1000  #: events that may wait; threads wait to add more


class Session:
    """Deployment of code, its log, and events that keys send."""

    def __init__(self, deployable: Deployable) -> None:
        self._deployable, self._screen = deployable, Screen()
        self._events: Queue[Callable[[], object]] = Queue(_WAITING)
        self._state: object = None  #: of the code when it was deployed
        self._functions: list[str] = []
        self._receiver = 0  #: index of the function that gets events
        self._followed: set[str] = set()
        self._samples: dict[str, tuple[str, bytes]] = {}  #: trigger types and their events, by key
        self._last: tuple[str, bytes] | None = None  #: event that was sent last, and where it is from
        self._code: int | None = None

    # --- for other threads ----------------------------------------------------------------------------------

    def warn(self, text: str) -> None:
        """Show a warning of the engine that this command has started."""
        self._post(self._screen.note, f"engine: {text}", "yellow")

    def end(self) -> None:
        """End the session, because the engine that this command has started has ended."""
        self._post(self._fail, "the engine has ended")

    def _post(self, act: Callable[..., object], *arguments: object) -> None:
        self._events.put(partial(act, *arguments))

    # --- in the main thread ---------------------------------------------------------------------------------

    def run(self, target: Target) -> int:
        """Deploy the code whenever it changes, until a key or an error ends the session. Return the exit code."""
        self._target, self._client = target, target.client()
        self._deploy()
        keyboard = Keyboard(lambda key: self._post(self._press, keyboard, key)) if has_keys() else None
        with ExitStack() as stack:
            if keyboard is None:
                self._screen.note("Press Ctrl-C to end.")
            else:
                self._samples = _samples(self._client)
                stack.enter_context(keyboard.keys())
                stack.enter_context(self._screen.shown(menu_of(self._keys())))
            changed = partial(self._post, self._check)
            failed = partial(self._post, self._screen.note)
            stack.enter_context(
                watching(self._deployable.watched, recursive=self._deployable.is_tree, changed=changed, failed=failed)
            )
            while self._code is None:
                self._events.get()()
        return self._code

    def _check(self) -> None:
        if self._deployable.state() != self._state:
            self._deploy()

    def _deploy(self) -> None:
        self._state = self._deployable.state()
        with self._screen.without_menu():
            try:
                self._deployable.read()
                self._state = self._deployable.state()
                self._functions = self._deployable.deploy(self._target)
            except FunctiondError as error:
                write(f"functiond: {error}", errors=True)
                serving = "The version before goes on serving." if self._functions else "Nothing was deployed."
                self._screen.note(f"{serving} Waiting for a change.", "yellow")
        for name in self._functions:
            if name not in self._followed:
                self._followed.add(name)
                follow(self._client, name, partial(self._post, self._show))
        self._screen.set_menu(menu_of(self._keys()))

    def _show(self, function: str, item: Item) -> None:
        self._screen.show(function if len(self._functions) > 1 else "", item)

    def _fail(self, reason: str) -> None:
        self._screen.note(reason, "red")
        self._code = FAILED

    # --- keys -----------------------------------------------------------------------------------------------

    def _keys(self) -> dict[str, str]:
        """Return the keys with their meanings for the menu."""
        keys = {key: kind for key, (kind, _) in self._samples.items()}
        keys |= {"e": "last event", "f": "event from file", "r": "redeploy", "q": "quit"}
        if len(self._functions) > 1:
            keys["n"] = f"next function (now {self._function})"
        return keys

    @property
    def _function(self) -> str:
        """Function that gets events."""
        return self._functions[self._receiver % len(self._functions)]

    def _press(self, keyboard: Keyboard, key: str) -> None:
        match key:
            case "q" | "":
                self._code = 0
            case "r":
                self._deploy()
            case "n":
                self._receiver += 1
                self._screen.set_menu(menu_of(self._keys()))
            case "f":
                self._send_file(keyboard)
            case "e":
                self._send_again()
            case _ if key in self._samples:
                self._send(*self._samples[key])
        keyboard.handled()

    def _send_file(self, keyboard: Keyboard) -> None:
        with self._screen.without_menu(), keyboard.lines():
            try:
                name = input("File with the event: ").strip()
            except EOFError:
                name = ""
        if not name:
            return
        try:
            self._send(name, Path(name).expanduser().read_bytes())
        except OSError as error:
            self._screen.note(f"cannot read {name}: {error.strerror}", "yellow")

    def _send_again(self) -> None:
        if self._last is None:
            self._screen.note("No event was sent yet.")
        else:
            self._send(*self._last)

    def _send(self, origin: str, event: bytes) -> None:
        self._last = origin, event
        if not self._functions:
            self._screen.note("Nothing is deployed that could get the event.", "yellow")
            return
        path = path_of(self._function, "/invocations-async")
        try:
            request_id = self._client.send("POST", path, event).json["request_id"]
        except FunctiondError as error:
            self._screen.note(str(error), "red")
            return
        self._screen.sent(origin, request_id)


def _samples(client: Client) -> dict[str, tuple[str, bytes]]:
    """Return the engine's sample events by key. Types with the same event, as those of the gateways, share a key."""
    given = {sample["trigger_type_code"]: sample["event"] for sample in client.of_project.find("/sample-events") or []}
    kinds: dict[bytes, str] = {}
    for kind in [*(kind for kind in _FIRST if kind in given), *given]:
        kinds.setdefault(json.dumps(given[kind]).encode(), kind)
    return {key: (kind, event) for key, (event, kind) in zip(_SAMPLE_KEYS, kinds.items(), strict=False)}
