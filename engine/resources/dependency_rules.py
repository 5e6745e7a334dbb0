"""What a dependency may look like."""

from __future__ import annotations

import re

from engine.errors import BadDependency

MAX_PER_PROJECT = 400  #: versions of all dependencies together
MAX_PER_FUNCTION = 20
DESCRIPTION = 512
#: The platform's runtimes: a client may keep packages here also for those that this engine does not run.
RUNTIMES = frozenset(
    (
        *("Java8", "Java11", "Java17", "Python2.7", "Go1.8", "Go1.x", "PHP7.3", "PHP8.3", "Cangjie1.0"),
        *("Custom", "Custom Image", "http"),
        *(f"Node.js{version}" for version in ("6.10", "8.10", "10.16", "12.13", "14.18", "16.17", "18.15")),
        *(f"C#(.NET Core {version})" for version in ("2.0", "2.1", "3.1", "6.0")),
    )
)

_NAME = re.compile(r"[A-Za-z]([\w.-]{0,94}[A-Za-z0-9])?", re.ASCII)
_PYTHON = re.compile(r"Python3\.\d{1,2}", re.ASCII)


def check_dependency(name: str, runtime: str, description: str) -> None:
    if not _NAME.fullmatch(name):
        allowed = "needs a letter, then up to 95 letters, digits, -, _ and ., the last a letter or digit"
        raise BadDependency("name", name, allowed)
    if runtime not in RUNTIMES and not _PYTHON.fullmatch(runtime):
        raise BadDependency("runtime", runtime, "must be a runtime of functions, such as Python3.10")
    if len(description) > DESCRIPTION:
        raise BadDependency("description", description, f"may have {DESCRIPTION} characters")
