"""URL paths of the console: of its pages, its static files, and functions."""

from __future__ import annotations

from urllib.parse import quote

from engine.model import Function
from engine.model.urn import short_name

HOME = "/console/"
PROJECT = f"{HOME}projects/{{project_id}}"
FUNCTION = f"{PROJECT}/functions/{{function}}"  #: page of a function: its short name
CREATE_FUNCTION = f"{PROJECT}/create-function"  #: not below ``functions``, as a function may have any name
CONFIGURATION = f"{FUNCTION}/configuration"
ASYNC_SETTINGS = f"{CONFIGURATION}/asynchronous"
#: Actions on many invocations of a project. Not below ``invocations``, whose next part is a request id.
MANY = {"cancel": f"{PROJECT}/cancel-invocations", "redrive": f"{PROJECT}/redrive-invocations"}
DELIVERIES = f"{PROJECT}/deliveries"
QUEUES = f"{PROJECT}/queues"
NODES = f"{PROJECT}/nodes"
INVOCATION = f"{PROJECT}/invocations/{{request_id}}"
GATEWAY = f"{PROJECT}/gateways/{{gateway_id}}"  #: page of a gateway's API
DOCS = f"{HOME}docs/"
STATIC = f"{HOME}static/"
SIGN_IN = f"{HOME}sign-in"
SIGN_OUT = f"{HOME}sign-out"
CHANGES = f"{HOME}events"  #: stream of events, which tell that something has changed
#: Static files and their content types.
STYLES = (  #: in the order in which pages name them
    "console.css",
    "forms.css",
    "charts.css",
    "sign_in.css",
    "configuration.css",
    "code.css",
    "queues.css",
    "logs.css",
    "asynchronous.css",
    "invocations.css",
    "triggers.css",
)
MODULES = (
    "times.js",
    "morph.js",
    "console.js",
    "rows.js",
    "code.js",
    "steps.js",
    "log_rows.js",
    "logs.js",
    "trial.js",
    "rules.js",
    "copy.js",
    "search.js",
    "drafts.js",
)
#: The first two run before the page is shown, so that no form is sent unasked, nor with rows unselected; modules run
#: when the page is complete.
SCRIPTS = ("forms.js", "selection.js", *MODULES)
FILES = {
    **dict.fromkeys(STYLES, b"text/css; charset=utf-8"),
    **dict.fromkeys(SCRIPTS, b"text/javascript; charset=utf-8"),
    "icon.svg": b"image/svg+xml",
}
#: Paths that a browser requests before somebody has signed in; their replies reveal nothing about this engine.
OPEN = ("/", "/console", SIGN_IN, SIGN_OUT, *(STATIC + name for name in FILES))


def is_page(path: str) -> bool:
    return path.startswith(HOME)


def name_of(function: Function) -> str:
    """Return the short name of a function: with its package, unless that is ``default``."""
    return short_name(function.urn("").function)


def path_of(function: Function, rest: str = "") -> str:
    """Return the percent-encoded path of a function's page, with ``rest`` after it."""
    return path_of_name(function.project, name_of(function)) + rest


def path_of_name(project: str, name: str) -> str:
    """Return the percent-encoded path of the page of the function with a short name."""
    return FUNCTION.format(project_id=project, function=quote(name, safe=""))
