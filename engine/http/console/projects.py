"""Projects among which the reader of a console page can choose."""

from __future__ import annotations

from collections.abc import Sequence

from engine.functions.catalog import Catalog
from engine.http.api.routing import Call

DEFAULT = "default"


def projects_for(call: Call, catalog: Catalog) -> Sequence[str]:
    """Return the project of the request's credentials as the only one.

    If no credentials are needed, return all projects with functions, and the project of the requested page. The project
    named ``default`` is sorted first. It is the only result if no other project is found.
    """
    if call.principal is not None:
        return [call.principal.project]
    found = {function.project for function in catalog.all()} | ({call.project} if call.project else set())
    return sorted(found or {DEFAULT}, key=lambda project: (project != DEFAULT, project))
