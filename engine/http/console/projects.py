"""Projects that a page links to."""

from __future__ import annotations

from collections.abc import Sequence

from engine.functions.catalog import Catalog
from engine.http.api.routing import Call

DEFAULT = "default"


def projects_for(call: Call, catalog: Catalog) -> Sequence[str]:
    """Return the project of the credentials; without credentials, all projects with functions and that of the page.

    ``default`` is the first if included, and the only one if no project was found.
    """
    if call.own_project:
        return [call.own_project]
    found = {function.project for function in catalog.all()} | ({call.project} if call.project else set())
    return sorted(found or {DEFAULT}, key=lambda project: (project != DEFAULT, project))
