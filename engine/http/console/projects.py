"""Which projects a page may lead to."""

from __future__ import annotations

from collections.abc import Sequence

from engine.functions.catalog import Catalog
from engine.http.api.routing import Call

USUAL = "default"


def projects_for(call: Call, catalog: Catalog) -> Sequence[str]:
    """That of the credentials; without any all that have functions, ``default`` first, and the one that is shown."""
    if call.own:
        return [call.own]
    found = {function.project for function in catalog.all()} | ({call.project} if call.project else set())
    return sorted(found or {USUAL}, key=lambda project: (project != USUAL, project))
