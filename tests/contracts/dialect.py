"""Test functions of one runtime family, so that one contract suite covers every family."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.model import Function, Invocation, Outcome
from tests.support.executing import function, invocation


def _as_it_is(result: bytes) -> bytes:
    return result


class Dialect(Struct, frozen=True, kw_only=True):
    """Function whose event selects its action: ``{"do": <action>, "with": <value>}``.

    echo        return the value                    text         return the text "straße ✓"
    nothing     return no result                    large        return a text of ``with`` bytes
    fail        fail with the message "no order"    bad          return invalid JSON
    ask         fail with an error that has the attributes in ``with``
    hang        never return                        leave        exit the process
    pid         return a value unique per process   who          return the request id
    data        return the value of a variable      initialised  return how often ``initializer`` has run
    say         write the line to stdout; after a "! ", to stderr
    meet        return when ``with`` requests run together
    """

    runtime: str
    files: dict[str, str]  #: contents by path; files without a suffix are made executable
    packages: tuple[Path, ...] = ()  #: folders and files copied into the code, as an installer lays them out
    handler: str = "index.handler"
    initializer: str = "index.initialise"
    lacks: frozenset[str] = frozenset()  #: actions that this family cannot do
    event: Callable[[dict[str, Any]], Any] = lambda wish: wish  #: converts the action to this family's event
    result: Callable[[bytes], bytes] = _as_it_is  #: extracts the JSON result from this family's answer

    def write(self, folder: Path) -> None:
        for path, text in self.files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o644 if file.suffix else 0o755)
        for package in self.packages:
            copy = shutil.copytree if package.is_dir() else shutil.copy
            copy(package, folder / package.name)

    def function(self, **fields: Any) -> Function:
        return function(self.handler, runtime=self.runtime, **fields)

    def wish(self, do: str, value: Any = None) -> Invocation:
        return invocation(json.dumps(self.event({"do": do, "with": value})))

    def given(self, outcome: Outcome) -> str:
        """Return the result of a successful outcome."""
        assert outcome.ok, outcome
        return self.result(outcome.result).decode()
