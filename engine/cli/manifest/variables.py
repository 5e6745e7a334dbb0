"""``${NAME}`` in texts of a manifest: values of environment variables, so that the file holds no secrets."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from engine.cli.client import UsageError

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class Variables:
    """Replacement of references. ``secrets`` collects the texts that contain values of variables."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.secrets: set[str] = set()
        self._environ = environ

    def replaced(self, value: Any, path: str = "") -> Any:
        """Return a copy of TOML data in which references are replaced, at any depth.

        ``$${`` stands for the characters ``${``. Raises UsageError, with the path of the key, if a variable is not set.
        """
        if isinstance(value, dict):
            return {name: self.replaced(one, f"{path}.{name}" if path else name) for name, one in value.items()}
        if isinstance(value, list):
            return [self.replaced(one, f"{path}[{index}]") for index, one in enumerate(value)]
        if isinstance(value, str):
            return self._text(value, path)
        if not isinstance(value, bool | int | float) or not math.isfinite(value):
            raise UsageError(f"{path} is {value}, which JSON does not have: write it as text, in quotes")
        return value

    def _text(self, text: str, path: str) -> str:
        def value_of(found: re.Match[str]) -> str:
            name = found[1]
            if name is None:
                return "${"
            if not _NAME.fullmatch(name) or not found[0].endswith("}"):
                raise UsageError(
                    f"{path} has {found[0]}: write ${{NAME}} for a variable, or $${{ for the characters ${{"
                )
            if name not in self._environ:
                raise UsageError(f"{path} needs the environment variable {name}, which is not set")
            return self._environ[name]

        made = _REFERENCE.sub(value_of, text)
        if any(found[1] is not None for found in _REFERENCE.finditer(text)):
            self.secrets.add(made)
        return made


def escaped(text: str) -> str:
    """Return a text that stands for itself in a manifest."""
    return text.replace("${", "$${")
