"""Names of functions on pages, and paths of their pages."""

from __future__ import annotations

from urllib.parse import quote

from engine.http.console.paths import FUNCTION
from engine.model import Function
from engine.model.urn import short_name


def name_of(function: Function) -> str:
    """Return the short name of a function: with its package, unless that is ``default``."""
    return short_name(function.urn("").function)


def path_of(function: Function, rest: str = "") -> str:
    """Return the percent-encoded path of a function's page, with ``rest`` after it."""
    return path_of_name(function.project, name_of(function)) + rest


def path_of_name(project: str, name: str) -> str:
    """Return the percent-encoded path of the page of the function with a short name."""
    return FUNCTION.format(project_id=project, function=quote(name, safe=""))
