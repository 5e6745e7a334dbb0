"""Class ``Engine``, which needs the package ``engine`` of the same installation. Loaded when a program names it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.embedded import Engine


def load_engine() -> type[Engine]:
    """Return the class ``Engine``. Raises ImportError if another module has the name ``engine``."""
    try:
        from engine.embedded import Engine
    except ModuleNotFoundError as error:
        if error.name == "engine.embedded":
            other = sys.modules["engine"]
            place = getattr(other, "__file__", None) or next(iter(getattr(other, "__path__", [])), "another module")
            raise ImportError(f"{place} has the name of functiond's package `engine`: rename yours") from None
        raise
    return Engine
