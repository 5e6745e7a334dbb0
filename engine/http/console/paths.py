"""URL paths of the console."""

from __future__ import annotations

from engine.http.console.configuration.paths import CREATIONS, SAVES, SETTINGS
from engine.http.console.function_paths import ACTIONS as FUNCTION_ACTIONS
from engine.http.console.function_paths import ADMIN, READ
from engine.protocols import Operation

HOME = "/console/"
PROJECT = f"{HOME}projects/{{project_id}}"
FUNCTION = f"{PROJECT}/functions/{{function}}"  #: page of a function: its short name
CREATE_FUNCTION = f"{PROJECT}/create-function"  #: not below ``functions``, as a function may have any name
#: Actions on many invocations of a project. Not below ``invocations``, whose next part is a request id.
MANY = {"cancel": f"{PROJECT}/cancel-invocations", "redrive": f"{PROJECT}/redrive-invocations"}
ASYNC_SETTINGS = f"{FUNCTION}/configuration/asynchronous"
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
#: Pages that need credentials, with the roles that may open them.
PAGES = tuple(
    Operation(name=name, method="GET", path=path, roles=("read",), own=True)
    for name, path in (
        ("ConsoleOverview", HOME),
        ("ConsoleEvents", CHANGES),
        ("ConsoleFunctions", f"{PROJECT}/functions"),
        ("ConsoleFunction", FUNCTION),
        ("ConsoleMonitoring", f"{FUNCTION}/monitoring"),
        *((name, FUNCTION + rest) for name, rest in SETTINGS),
        *((name, FUNCTION + rest) for name, rest in READ),
        ("ConsoleAsyncSettings", ASYNC_SETTINGS),
        ("ConsoleStatusLog", f"{ASYNC_SETTINGS}/status-log"),
        ("ConsoleInvocations", f"{PROJECT}/invocations"),
        ("ConsoleFunctionLogs", f"{FUNCTION}/logs"),
        ("ConsoleFunctionLogStream", f"{FUNCTION}/logs/stream"),
        ("ConsoleQueues", QUEUES),
        ("ConsoleInvocation", INVOCATION),
        ("ConsoleEvent", f"{INVOCATION}/event"),
        ("ConsoleResult", f"{INVOCATION}/result"),
        ("ConsoleFunctionInvocations", f"{FUNCTION}/invocations"),
        ("ConsoleTriggers", f"{PROJECT}/triggers"),
        ("ConsoleFunctionTriggers", f"{FUNCTION}/configuration/triggers"),
        ("ConsoleTrigger", f"{FUNCTION}/configuration/triggers/{{trigger_id}}"),
        ("ConsoleGateway", GATEWAY),
        ("ConsoleDeliveries", DELIVERIES),
    )
) + tuple(
    Operation(name=name, method="GET", path=path, roles=("invoke", "read", "operator"), own=True)
    for name, path in (
        ("ConsoleDocs", DOCS),
        ("ConsoleDocsPage", f"{DOCS}{{page}}"),
        ("ConsoleDocsIndex", DOCS.rstrip("/")),
        ("ConsoleNoPage", f"{HOME}{{rest:path}}"),
        ("ConsoleSignInPage", SIGN_IN),
        ("ConsoleStart", HOME.rstrip("/")),
        ("Start", "/"),
        *((f"ConsoleFile{number}", STATIC + name) for number, name in enumerate(FILES)),
    )
)
#: Pages for the role admin only, like the operations that they need.
PAGES += tuple(
    Operation(name=name, method="GET", path=path, own=True)
    for name, path in (
        ("ConsoleCreateFunction", CREATE_FUNCTION),
        ("ConsoleRunAgain", f"{INVOCATION}/again"),
        ("ConsoleCancelOfProject", MANY["cancel"]),
        ("ConsoleRedriveOfProject", MANY["redrive"]),
        ("ConsoleCancelMany", f"{FUNCTION}/invocations/cancel"),
        ("ConsoleRedriveMany", f"{FUNCTION}/invocations/redrive"),
        ("ConsolePurge", f"{QUEUE}/purge"),
        ("ConsoleNewTriggerFunction", f"{PROJECT}/triggers/new"),
        ("ConsoleNewTrigger", f"{FUNCTION}/configuration/triggers/new"),
        ("ConsoleEditGateway", f"{GATEWAY}/edit"),
        ("ConsoleRedriveAll", f"{DELIVERIES}/redrive"),
        ("ConsoleDiscardAll", f"{DELIVERIES}/discard"),
        *((name, FUNCTION + rest) for name, rest in (*CREATIONS, *ADMIN)),
    )
)
#: Paths to which forms are sent. A role that may open pages may send any form, because a refused one shows its page
#: again: the operation of the API that it uses checks the role.
ACTIONS = tuple(
    Operation(name=name, method="POST", path=path, roles=("invoke", "read", "operator"), own=True)
    for name, path in (("ConsoleSignIn", SIGN_IN), ("ConsoleSignOut", SIGN_OUT))
) + tuple(
    Operation(name=name, method="POST", path=path, roles=("read",), own=True)
    for name, path in (
        ("ConsoleAcceptClock", f"{HOME}clock/accept"),
        ("ConsolePauseFunction", f"{FUNCTION}/pause"),
        ("ConsoleResumeFunction", f"{FUNCTION}/resume"),
        *((name, FUNCTION + rest) for name, rest in SAVES),
        ("ConsoleMakeFunction", CREATE_FUNCTION),
        *((name, FUNCTION + rest) for name, rest in FUNCTION_ACTIONS),
        ("ConsoleSaveAsyncSettings", ASYNC_SETTINGS),
        ("ConsoleSelectedDeliveries", DELIVERIES),
        ("ConsoleRedriveDeliveries", f"{DELIVERIES}/redrive"),
        ("ConsoleDiscardDeliveries", f"{DELIVERIES}/discard"),
        ("ConsoleRemoveAsyncSettings", f"{ASYNC_SETTINGS}/remove"),
        ("ConsoleCancelInvocation", f"{INVOCATION}/cancel"),
        ("ConsoleRedriveInvocation", f"{INVOCATION}/redrive"),
        ("ConsoleInvokeAgain", f"{INVOCATION}/again"),
        ("ConsoleDeliverAgain", f"{INVOCATION}/deliver"),
        ("ConsoleCancelInvocationsOfProject", MANY["cancel"]),
        ("ConsoleRedriveInvocationsOfProject", MANY["redrive"]),
        ("ConsoleCancelInvocations", f"{FUNCTION}/invocations/cancel"),
        ("ConsoleRedriveInvocations", f"{FUNCTION}/invocations/redrive"),
        ("ConsoleChooseTriggerFunction", f"{PROJECT}/triggers/new"),
        ("ConsoleCreateTrigger", f"{FUNCTION}/configuration/triggers/new"),
        ("ConsoleSaveTrigger", f"{FUNCTION}/configuration/triggers/{{trigger_id}}"),
        ("ConsoleEnableTrigger", f"{FUNCTION}/configuration/triggers/{{trigger_id}}/enable"),
        ("ConsoleDisableTrigger", f"{FUNCTION}/configuration/triggers/{{trigger_id}}/disable"),
        ("ConsoleDeleteTrigger", f"{FUNCTION}/configuration/triggers/{{trigger_id}}/delete"),
        ("ConsoleSaveGateway", f"{GATEWAY}/edit"),
        ("ConsolePauseQueue", f"{QUEUE}/pause"),
        ("ConsoleResumeQueue", f"{QUEUE}/resume"),
        ("ConsolePurgeQueue", f"{QUEUE}/purge"),
    )
)


def is_page(path: str) -> bool:
    return path.startswith(HOME)
