"""Validation of dependencies: name, runtime, description, and limits."""

from __future__ import annotations

import re

from engine.errors import BadDependency, InvalidField
from engine.model.limits import DESCRIPTION
from engine.runtimes.catalog import find_runtime

MAX_PER_PROJECT = 400  #: versions of all dependencies in total
MAX_PER_FUNCTION = 20

NAME = re.compile(r"[A-Za-z]([\w.-]{0,94}[A-Za-z0-9])?", re.ASCII)
NAME_RULE = "needs a letter, then up to 95 letters, digits, -, _ and ., the last a letter or digit"

_RUNTIMES = "must be a runtime of functions, such as Python3.10"


def check_dependency(name: str, runtime: str, description: str) -> None:
    if not NAME.fullmatch(name):
        raise BadDependency("name", name, NAME_RULE)
    if find_runtime(runtime) is None:  # packages for runtimes that this engine does not run are allowed
        raise BadDependency("runtime", runtime, _RUNTIMES)
    if len(description) > DESCRIPTION:
        raise BadDependency("description", description, f"may have {DESCRIPTION} characters")


def check_runtime_filter(runtime: str) -> None:
    """Raise InvalidField, with the code of invalid runtimes, unless ``runtime`` is empty or the name of a runtime."""
    if runtime and find_runtime(runtime) is None:
        raise InvalidField("runtime", runtime, f"Invalid runtime. It {_RUNTIMES}")
