"""Pages and actions of the console: their names, URL paths and roles; and the paths of functions."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from engine.auth.roles import Role
from engine.model import Function
from engine.model.urn import short_name
from engine.protocols import Operation

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
QUEUE = f"{QUEUES}/{{function}}"  #: below it are the actions on the queue of a function
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


def _operations(method: str, roles: tuple[Role, ...], paths: Mapping[str, str]) -> tuple[Operation, ...]:
    return tuple(Operation(name=name, method=method, path=path, roles=roles, own=True) for name, path in paths.items())


#: Pages that need credentials, with the roles that may open them.
PAGES = (
    *_operations(
        "GET",
        ("read",),
        {
            "ConsoleOverview": HOME,
            "ConsoleEvents": CHANGES,
            "ConsoleFunctions": f"{PROJECT}/functions",
            "ConsoleFunction": FUNCTION,
            "ConsoleTest": f"{FUNCTION}/test",
            "ConsoleMonitoring": f"{FUNCTION}/monitoring",
            "ConsoleFunctionInvocations": f"{FUNCTION}/invocations",
            "ConsoleFunctionLogs": f"{FUNCTION}/logs",
            "ConsoleFunctionLogStream": f"{FUNCTION}/logs/stream",
            "ConsoleBasics": CONFIGURATION,
            "ConsoleEnvironment": f"{CONFIGURATION}/environment",
            "ConsoleConcurrency": f"{CONFIGURATION}/concurrency",
            "ConsoleFunctionTriggers": f"{CONFIGURATION}/triggers",
            "ConsoleTrigger": f"{CONFIGURATION}/triggers/{{trigger_id}}",
            "ConsoleAsyncSettings": ASYNC_SETTINGS,
            "ConsoleStatusLog": f"{ASYNC_SETTINGS}/status-log",
            "ConsoleVersions": f"{CONFIGURATION}/versions",
            "ConsoleAlias": f"{CONFIGURATION}/aliases/{{alias}}",
            "ConsoleTags": f"{CONFIGURATION}/tags",
            "ConsoleReserved": f"{CONFIGURATION}/reserved",
            "ConsoleReservation": f"{CONFIGURATION}/reserved/{{qualifier}}",
            "ConsoleInvocations": f"{PROJECT}/invocations",
            "ConsoleInvocation": INVOCATION,
            "ConsoleEvent": f"{INVOCATION}/event",
            "ConsoleResult": f"{INVOCATION}/result",
            "ConsoleQueues": QUEUES,
            "ConsoleTriggers": f"{PROJECT}/triggers",
            "ConsoleGateway": GATEWAY,
            "ConsoleDeliveries": DELIVERIES,
        },
    ),
    *_operations(
        "GET",
        ("invoke", "read", "operator"),
        {
            "ConsoleDocs": DOCS,
            "ConsoleDocsPage": f"{DOCS}{{page}}",
            "ConsoleDocsIndex": DOCS.rstrip("/"),
            "ConsoleNoPage": f"{HOME}{{rest:path}}",
            "ConsoleSignInPage": SIGN_IN,
            "ConsoleStart": HOME.rstrip("/"),
            "Start": "/",
            **{f"ConsoleFile{number}": STATIC + name for number, name in enumerate(FILES)},
        },
    ),
    # For the role admin only, like the operations that they need.
    *_operations(
        "GET",
        (),
        {
            "ConsoleCreateFunction": CREATE_FUNCTION,
            "ConsoleFunctionPackage": f"{FUNCTION}/package",
            "ConsoleFunctionRemoval": f"{FUNCTION}/delete",
            "ConsoleNewTrigger": f"{CONFIGURATION}/triggers/new",
            "ConsoleNewAlias": f"{CONFIGURATION}/new-alias",
            "ConsoleNewReservation": f"{CONFIGURATION}/new-reservation",
            "ConsoleRunAgain": f"{INVOCATION}/again",
            "ConsoleCancelOfProject": MANY["cancel"],
            "ConsoleRedriveOfProject": MANY["redrive"],
            "ConsoleCancelMany": f"{FUNCTION}/invocations/cancel",
            "ConsoleRedriveMany": f"{FUNCTION}/invocations/redrive",
            "ConsolePurge": f"{QUEUE}/purge",
            "ConsoleNewTriggerFunction": f"{PROJECT}/triggers/new",
            "ConsoleEditGateway": f"{GATEWAY}/edit",
            "ConsoleRedriveAll": f"{DELIVERIES}/redrive",
            "ConsoleDiscardAll": f"{DELIVERIES}/discard",
        },
    ),
)
#: Paths to which forms are sent. A role that may open pages may send any form, because a refused one shows its page
#: again: the operation of the API that it uses checks the role.
ACTIONS = (
    *_operations("POST", ("invoke", "read", "operator"), {"ConsoleSignIn": SIGN_IN, "ConsoleSignOut": SIGN_OUT}),
    *_operations(
        "POST",
        ("read",),
        {
            "ConsoleAcceptClock": f"{HOME}clock/accept",
            "ConsoleMakeFunction": CREATE_FUNCTION,
            "ConsoleDeleteFunction": f"{FUNCTION}/delete",
            "ConsolePauseFunction": f"{FUNCTION}/pause",
            "ConsoleResumeFunction": f"{FUNCTION}/resume",
            "ConsoleSaveCode": f"{FUNCTION}/code",
            "ConsoleSaveFile": f"{FUNCTION}/code/file",
            "ConsoleUploadPackage": f"{FUNCTION}/package",
            "ConsoleChooseDependencies": f"{FUNCTION}/dependencies",
            "ConsoleTestFunction": f"{FUNCTION}/test",
            "ConsoleSaveEvent": f"{FUNCTION}/test/save",
            "ConsoleDeleteEvent": f"{FUNCTION}/test/delete",
            "ConsoleSaveBasics": CONFIGURATION,
            "ConsoleSaveEnvironment": f"{CONFIGURATION}/environment",
            "ConsoleSaveConcurrency": f"{CONFIGURATION}/concurrency",
            "ConsoleSaveControls": f"{CONFIGURATION}/concurrency/controls",
            "ConsolePauseWithReason": f"{CONFIGURATION}/concurrency/pause",
            "ConsoleEndPause": f"{CONFIGURATION}/concurrency/resume",
            "ConsoleCreateTrigger": f"{CONFIGURATION}/triggers/new",
            "ConsoleSaveTrigger": f"{CONFIGURATION}/triggers/{{trigger_id}}",
            "ConsoleEnableTrigger": f"{CONFIGURATION}/triggers/{{trigger_id}}/enable",
            "ConsoleDisableTrigger": f"{CONFIGURATION}/triggers/{{trigger_id}}/disable",
            "ConsoleDeleteTrigger": f"{CONFIGURATION}/triggers/{{trigger_id}}/delete",
            "ConsoleSaveAsyncSettings": ASYNC_SETTINGS,
            "ConsoleRemoveAsyncSettings": f"{ASYNC_SETTINGS}/remove",
            "ConsolePublishVersion": f"{CONFIGURATION}/versions",
            "ConsoleDeleteVersion": f"{CONFIGURATION}/versions/delete",
            "ConsoleCreateAlias": f"{CONFIGURATION}/new-alias",
            "ConsoleSaveAlias": f"{CONFIGURATION}/aliases/{{alias}}",
            "ConsoleDeleteAlias": f"{CONFIGURATION}/aliases/{{alias}}/delete",
            "ConsoleSaveTags": f"{CONFIGURATION}/tags",
            "ConsoleReserve": f"{CONFIGURATION}/new-reservation",
            "ConsoleSaveReservation": f"{CONFIGURATION}/reserved/{{qualifier}}",
            "ConsoleRemoveReservation": f"{CONFIGURATION}/reserved/{{qualifier}}/remove",
            "ConsoleCancelInvocation": f"{INVOCATION}/cancel",
            "ConsoleRedriveInvocation": f"{INVOCATION}/redrive",
            "ConsoleInvokeAgain": f"{INVOCATION}/again",
            "ConsoleDeliverAgain": f"{INVOCATION}/deliver",
            "ConsoleCancelInvocationsOfProject": MANY["cancel"],
            "ConsoleRedriveInvocationsOfProject": MANY["redrive"],
            "ConsoleCancelInvocations": f"{FUNCTION}/invocations/cancel",
            "ConsoleRedriveInvocations": f"{FUNCTION}/invocations/redrive",
            "ConsoleChooseTriggerFunction": f"{PROJECT}/triggers/new",
            "ConsoleSaveGateway": f"{GATEWAY}/edit",
            "ConsolePauseQueue": f"{QUEUE}/pause",
            "ConsoleResumeQueue": f"{QUEUE}/resume",
            "ConsolePurgeQueue": f"{QUEUE}/purge",
            "ConsoleSelectedDeliveries": DELIVERIES,
            "ConsoleRedriveDeliveries": f"{DELIVERIES}/redrive",
            "ConsoleDiscardDeliveries": f"{DELIVERIES}/discard",
        },
    ),
)
#: Operations of the console by their names.
BY_NAME = {one.name: one for one in (*PAGES, *ACTIONS)}


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
