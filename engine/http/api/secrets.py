"""Masking of secrets in audit traces and error messages.

A value counts as secret if the name of its field says so, such as ``password`` or ``token``.
"""

from __future__ import annotations

import re
from typing import Any

from engine.model.text import MASK

TEXT = 1024  #: characters after which a text is cut

_SECRET = re.compile(r"passw|secret|token|credential|private|_sk$|_ak$|access_key|kafka_key|user_data", re.IGNORECASE)


def is_secret(name: str) -> bool:
    return bool(_SECRET.search(name))


def without_secrets(value: Any) -> Any:
    """Return a copy of a JSON value without secrets.

    Values of fields with secret names are masked, and other texts are cut after ``TEXT`` characters.
    """
    if isinstance(value, dict):
        return {name: MASK if is_secret(name) else without_secrets(one) for name, one in value.items()}
    if isinstance(value, list):
        return [without_secrets(one) for one in value]
    return f"{value[:TEXT]}..." if isinstance(value, str) and len(value) > TEXT else value
