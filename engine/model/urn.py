"""Function URNs: ``urn:fss:<region>:<project>:function:<package>:<name>[:<version> | :!<alias>]``.

Shorter forms, such as ``name`` or ``package:name``, are told apart by their number of fields (FunctionGraph API:
``function_urn``).
"""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct

from engine.errors import InvalidField

LATEST = "latest"
MAX_LENGTH = 269
NAME = re.compile(r"[A-Za-z][\w-]{0,59}", re.ASCII)
_FORMS = "a function name, package:name, project:package:name[:version] or a full URN"


class FunctionUrn(Struct, frozen=True, kw_only=True, cache_hash=True):
    region: str
    project: str
    package: str
    name: str
    qualifier: str = LATEST  #: ``latest``, a version, or ``!alias``
    qualified: bool = False  #: the text named a version or an alias

    @property
    def alias(self) -> str | None:
        return self.qualifier[1:] if self.qualifier.startswith("!") else None

    @property
    def function(self) -> str:
        """URN of the whole function, without version or alias."""
        return f"urn:fss:{self.region}:{self.project}:function:{self.package}:{self.name}"

    def __str__(self) -> str:
        return f"{self.function}:{self.qualifier}"


@lru_cache(1024)
def parse_urn(text: str, *, region: str, project: str) -> FunctionUrn:
    """Parse a full or short URN. ``region`` and ``project`` are used if the text names none.

    Raises InvalidField if the text is no URN. The text may name any project, so the caller must check that the client
    may use it.
    """
    fields = text.split(":")
    if not text or len(text) > MAX_LENGTH or not all(fields):
        raise InvalidField("function_urn", text, f"needs {_FORMS}, up to {MAX_LENGTH} characters")
    if fields[0] == "urn" and len(fields) in (7, 8) and (fields[1], fields[4]) == ("fss", "function"):
        region, project = fields[2], fields[3]
        fields = fields[3:4] + fields[5:]
    elif len(fields) > 4 or fields[0] == "urn":
        raise InvalidField("function_urn", text, f"needs {_FORMS}")
    elif len(fields) == 1:
        fields = [project, "default", *fields]
    elif len(fields) == 2:
        fields = [project, *fields]
    project, package, name, *rest = fields
    return FunctionUrn(
        region=region,
        project=project,
        package=package,
        name=name,
        qualifier=rest[0] if rest else LATEST,
        qualified=bool(rest),
    )


def short_name(urn: str) -> str:
    """Return the short display name of a full URN: ``name`` in the package ``default``, else ``package:name``.

    Other texts are returned unchanged.
    """
    fields = urn.split(":")
    if len(fields) < 7:
        return urn
    return fields[6] if fields[5] == "default" else ":".join(fields[5:7])
