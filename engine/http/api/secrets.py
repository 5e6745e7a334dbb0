"""What must not be shown again, known by its name: in traces, and in messages about what was wrong with it."""

from __future__ import annotations

import re
from typing import Any

from engine.model.text import MASK

TEXT = 1024  #: characters of a text that are kept

_SECRET = re.compile(r"passw|secret|token|credential|private|_sk$|_ak$|access_key|user_data", re.IGNORECASE)


def is_secret(name: str) -> bool:
    return bool(_SECRET.search(name))


def without_secrets(value: Any) -> Any:
    """A copy in which what is named like a secret is masked, and code and long texts are cut."""
    if isinstance(value, dict):
        return {name: MASK if is_secret(name) else without_secrets(one) for name, one in value.items()}
    if isinstance(value, list):
        return [without_secrets(one) for one in value]
    return f"{value[:TEXT]}..." if isinstance(value, str) and len(value) > TEXT else value
