"""How functions of one runtime family are written, so that one suite holds them all against the same promises."""

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
    """One function, told by its event what to do: ``{"do": <what>, "with": <value>}``.

    echo        give the value back                 text         give the text "straße ✓"
    nothing     give no result                      large        give a text of ``with`` bytes
    fail        fail with the message "no order"    bad          give what is no JSON
    hang        never end                           leave        end the process
    pid         give what no other process has      who          give the request id
    data        give the value of a variable        initialised  how often ``initializer`` has run
    say         write the line to stdout, and the line behind "! " to stderr
    meet        end once ``with`` requests are here together
    """

    runtime: str
    files: dict[str, str]  #: by path; those without a suffix are made executable
    packages: tuple[Path, ...] = ()  #: folders and files that are part of the code, as an installer leaves them
    handler: str = "index.handler"
    initializer: str = "index.initialise"
    lacks: frozenset[str] = frozenset()  #: what there is no way to do in this family
    event: Callable[[dict[str, Any]], Any] = lambda wish: wish  #: the wish as this family's event
    result: Callable[[bytes], bytes] = _as_it_is  #: the answer in what this family's function gives

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
        """The result of a success."""
        assert outcome.ok, outcome
        return self.result(outcome.result).decode()
