"""Which runtimes there are by name, and what kind of program serves each (spec functiongraph_api 4.2).

A name that the platform knows but this engine cannot run has no family. Beyond the platform's names there are the
newer versions of Python and Node.js, and ``Lambda`` with AWS's own names for it.
"""

from __future__ import annotations

import re
from enum import StrEnum

from msgspec import Struct


class Family(StrEnum):
    """What serves a function; a worker program each, but for the last three, which share one."""

    PYTHON = "python"
    NODE = "node"
    CUSTOM = "custom"  #: a ``bootstrap`` that asks the platform's runtime API for events
    LAMBDA = "lambda"  #: a ``bootstrap`` that asks AWS's runtime API
    HTTP = "http"  #: a ``bootstrap`` that serves HTTP

    @property
    def interpreted(self) -> bool:
        """Whether an interpreter loads the handler as ``file.function``; the others start ``bootstrap``."""
        return self in (Family.PYTHON, Family.NODE)


class Runtime(Struct, frozen=True, kw_only=True):
    name: str
    family: Family | None = None  #: None: known, but not to be had from this engine
    version: tuple[int, int] = (0, 0)  #: asked for; of Python and Node.js only


#: The platform's names that nothing here runs. Packages for them may be kept all the same.
ELSEWHERE = frozenset(
    (
        *("Java8", "Java11", "Java17", "Go1.8", "Go1.x", "PHP7.3", "PHP8.3", "Cangjie1.0", "Custom Image"),
        *(f"C#(.NET Core {version})" for version in ("2.0", "2.1", "3.1", "6.0")),
    )
)
BY_BOOTSTRAP = {
    "Custom": Family.CUSTOM,
    "http": Family.HTTP,
    **dict.fromkeys(("Lambda", "provided.al2", "provided.al2023"), Family.LAMBDA),
}
#: What to say to someone whose runtime is none of these.
CHOICE = "this engine runs Python3.x, Node.js (such as Node.js18.15), Custom, http and Lambda"

_VERSIONED = re.compile(r"(Python|Node\.js)(\d{1,2})\.(\d{1,2})", re.ASCII)


def find_runtime(name: str) -> Runtime | None:
    """None if there is no runtime of that name; names are told apart by case, as the platform does."""
    if name in BY_BOOTSTRAP:
        return Runtime(name=name, family=BY_BOOTSTRAP[name])
    if name in ELSEWHERE:
        return Runtime(name=name)
    named = _VERSIONED.fullmatch(name)
    if named is None:
        return None
    version = int(named[2]), int(named[3])
    if named[1] == "Python" and version[0] != 3 and version != (2, 7):
        return None
    return Runtime(name=name, family=Family.PYTHON if named[1] == "Python" else Family.NODE, version=version)
