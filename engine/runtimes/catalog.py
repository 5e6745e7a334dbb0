"""Names of runtimes, and the kind of program that serves the functions of each runtime.

The names are those of FunctionGraph, and further ones for newer versions of Python and Node.js. Runtimes of the family
``Lambda`` also have the names that AWS uses. A runtime that FunctionGraph offers but this engine cannot run has no
family.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache

from msgspec import Struct


class Family(StrEnum):
    """Kind of program that serves a function. Each family has a worker program; the last three families share one."""

    PYTHON = "python"
    NODE = "node"
    CUSTOM = "custom"  #: a ``bootstrap`` that polls FunctionGraph's runtime API for events
    LAMBDA = "lambda"  #: a ``bootstrap`` that polls AWS's runtime API for events
    HTTP = "http"  #: a ``bootstrap`` that serves HTTP

    @property
    def interpreted(self) -> bool:
        """True if an interpreter loads the handler, named ``file.function``.

        Other families start the user's ``bootstrap``.
        """
        return self in (Family.PYTHON, Family.NODE)


class Runtime(Struct, frozen=True, kw_only=True):
    name: str
    family: Family | None = None  #: None: this engine cannot run it
    version: tuple[int, int] = (0, 0)  #: requested version; Python and Node.js only


IMAGE = "Custom Image"
#: Names of the platform that this engine cannot run. Their packages can be stored nevertheless.
ELSEWHERE = frozenset(
    (
        *("Java8", "Java11", "Java17", "Go1.8", "Go1.x", "PHP7.3", "PHP8.3", "Cangjie1.0", IMAGE),
        *(f"C#(.NET Core {version})" for version in ("2.0", "2.1", "3.1", "6.0")),
    )
)
BY_BOOTSTRAP = {
    "Custom": Family.CUSTOM,
    "http": Family.HTTP,
    **dict.fromkeys(("Lambda", "provided.al2", "provided.al2023"), Family.LAMBDA),
}
#: Runtimes that lists show, with their names for people. Functions may have other versions of Python and Node.js, too.
OFFERED = {
    **{f"Python{version}": f"Python {version}" for version in ("2.7", "3.6", "3.9", "3.10", "3.12")},
    **{
        f"Node.js{version}": f"Node.js {version}"
        for version in ("6.10", "8.10", "10.16", "12.13", "14.18", "16.17", "18.15", "20.15")
    },
    "Custom": "Custom runtime",
    "http": "HTTP function",
    "Lambda": "Lambda",
}
#: Part of the error message for any other runtime.
CHOICE = "this engine runs Python3.x (and Python2.7 on it), Node.js (such as Node.js18.15), Custom, http and Lambda"

_VERSIONED = re.compile(r"(Python|Node\.js)(\d{1,2})\.(\d{1,2})", re.ASCII)


def find_runtime(name: str) -> Runtime | None:
    """Return the runtime with this name, or None if there is none. Names are case-sensitive, as on FunctionGraph."""
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


@lru_cache(256)
def family_of(name: str) -> Family | None:
    """Return the family of the runtime with this name. None: there is none, or this engine cannot run it."""
    runtime = find_runtime(name)
    return runtime.family if runtime is not None else None


def runtime_name(family: Family, version: tuple[int, int]) -> str:
    """Return the name of the runtime of a version of Python or Node.js."""
    return f"{'Python' if family is Family.PYTHON else 'Node.js'}{version[0]}.{version[1]}"


def refusal_of(name: str) -> str:
    """Return the reason why no function can have this runtime, and what to use instead, for an error message."""
    if name not in ELSEWHERE:
        return CHOICE
    reason = "this engine runs no images" if name == IMAGE else "this engine cannot run it"
    instead = "use the runtime http for a server, Custom for any other program, with a bootstrap that starts it"
    clients = {"Java": "aws-lambda-java-runtime-interface-client", "Go1.": "aws-lambda-go"}
    if client := clients.get(name[:4]):
        instead += f", or provided.al2 with AWS's {client} (see /console/docs/go-and-java)"
    return f"{reason}: {instead}; {CHOICE}"


def warning_of(name: str) -> str:
    """Return a text for users if another version of the language, with another syntax, runs functions of this runtime.

    Return an empty text for all other runtimes.
    """
    runtime = find_runtime(name)
    if runtime is None or runtime.family is not Family.PYTHON or runtime.version[0] != 2:
        return ""
    return f"this engine has no Python 2: Python 3 runs functions of {name}, and fails at syntax of Python 2"
