"""Context object and logger of a Python function. Standard library only, Python 3.9 syntax."""

import os
import time

from python_wire import LOGGER, Wire
from worker_frames import NO_FACTS, Run, accepted_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from typing import Any

    from worker_types import Setup

LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50}
REPORTS = 10  # reports of progress sent in a second; also the number sent at once
LONGEST_NOTE = 200  # characters
NAMES = {10: "DEBUG", 20: "INFO", 30: "WARN", 40: "ERROR", 50: "CRITICAL"}


class Logger:
    """Logger that writes to the invocation log. A line has UTC time, request id, level and text, as on FunctionGraph.

    All requests of an instance share the logger; each line has the id of the request whose code writes it.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire, self.level = wire, 0

    def setLevel(self, level: object) -> None:
        """Set the lowest level to be logged: a number, or a name in any case. An unknown name enables all levels."""
        self.level = level if isinstance(level, int) else LEVELS.get(str(level).upper(), 0)

    def log(self, level: object, msg: object = "", *args: object) -> None:
        if isinstance(level, int):
            name = NAMES.get(level, str(level))
        else:
            name = str(level).upper()
            level = LEVELS.get(name, 20)
        if level < self.level:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = f"{stamp} {self.wire.current().id} {name} {format_message(msg, args)}\n"
        self.wire.log(LOGGER, line.encode("utf-8", "backslashreplace"))

    def debug(self, msg: object = "", *args: object) -> None:
        self.log("DEBUG", msg, *args)

    def info(self, msg: object = "", *args: object) -> None:
        self.log("INFO", msg, *args)

    def warning(self, msg: object = "", *args: object) -> None:
        self.log("WARN", msg, *args)

    warn = warning

    def error(self, msg: object = "", *args: object) -> None:
        self.log("ERROR", msg, *args)

    def critical(self, msg: object = "", *args: object) -> None:
        self.log("CRITICAL", msg, *args)

    def exception(self, msg: object = "", *args: object) -> None:
        import traceback

        self.log("ERROR", "%s", format_message(msg, args) + "\n" + traceback.format_exc().rstrip())

    set_level = setLevel


def format_message(msg: object, args: "tuple[object, ...]") -> str:
    """Return the message with its arguments inserted.

    Raise nothing: arguments that do not fit the pattern are appended.
    """
    try:
        return str(msg) % args if args else str(msg)
    except Exception:
        return " ".join([str(part) for part in (msg, *args)])


def utc(seconds: float) -> "datetime":
    from datetime import datetime, timezone  # slow to load

    return datetime.fromtimestamp(seconds, timezone.utc)


class Number(int):
    """Number that can also be concatenated with text, because FunctionGraph documents both uses of these values."""

    def __add__(self, other: "Any") -> "Any":
        return str(self) + other if isinstance(other, str) else int(self) + other

    def __radd__(self, other: "Any") -> "Any":
        return other + str(self) if isinstance(other, str) else other + int(self)

    def __eq__(self, other: object) -> bool:
        return str(self) == other if isinstance(other, str) else int(self) == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__


class Context(Run):
    """Context object as FunctionGraph documents it. Values for which this engine has no source are empty."""

    traceparent = ""  # trace context of the request: value of the header; empty: none
    _ticket = 0  # of the request
    _facts = NO_FACTS  # read when they are asked for
    _deadline = 0.0
    _state: object = None
    _reason, _heeds, _soft = "", False, False
    _callbacks: "tuple[tuple[bool, Callable[..., object]], ...]" = ()  # first: of the soft timeout
    _report: "tuple[float, str] | None" = None  # progress to be sent
    _reports, _reported_at = 0.0, 0.0  # reports that may be sent, and the time of the last

    def __init__(
        self, setup: "Setup", logger: Logger, request_id: str, alias: str, timeout: "int | None" = None
    ) -> None:
        self._setup, self._logger, self._request_id, self._alias = setup, logger, request_id, alias
        self._timeout = setup["timeout"] if timeout is None else timeout  # seconds
        self._began = time.monotonic()
        self._instance_id = setup["instance"]

    # --- the request ---

    def getRequestID(self) -> str:
        return self._request_id

    def getAlias(self) -> str:
        return self._alias

    def getRemainingTimeInMilliSeconds(self) -> int:
        return max(0, int((self._timeout - (time.monotonic() - self._began)) * 1000))

    def getState(self) -> object:
        return self._state

    def setState(self, state: object) -> None:
        self._state = state

    # --- facts about the run, not on FunctionGraph ---

    attempt = property(lambda self: int(self._facts.split(" ")[0]))  # from 1; 0 in an initializer
    max_attempts = property(lambda self: int(self._facts.split(" ")[1]))  # the last one that the settings allow
    trigger = property(lambda self: self._facts.split(" ")[2])  # source, such as ``TIMER``, ``API`` or ``CALL``
    #: Request id of the run that queued this one, or whose outcome is its event, or which it repeats; empty: none.
    parent = property(lambda self: self._facts.split(" ")[3])

    @property
    def accepted_at(self) -> "datetime | None":
        """Time, in UTC, at which the engine accepted the request. None in an initializer."""
        return utc(accepted_at(self._request_id) / 1000) if self._request_id else None

    @property
    def deadline(self) -> "datetime":
        """Time, in UTC, at which the timeout is over."""
        self._deadline = self._deadline or time.time() + self._timeout - (time.monotonic() - self._began)
        return utc(self._deadline)

    # --- calls of functions, not on FunctionGraph ---

    def enqueue(self, function: str, event: object = None, **options: object) -> str:
        """Queue a call of a function of this project, and return its request id.

        Options are ``key``, ``delay``, ``priority``, ``ordering_key`` and the others of ``functiond``.
        """
        client = __import__("functiond_client")
        return str(client.queue_many([client.Call(function, event, options)], self)[0].request_id)

    async def enqueue_async(self, function: str, event: object = None, **options: object) -> str:
        """Queue a call like ``enqueue``, without blocking the event loop."""
        return str(await __import__("functiond_client").later(self.enqueue, function, event, **options))

    # --- progress, not on FunctionGraph ---

    def report_progress(self, fraction: float, note: str = "") -> None:
        """Show how far the request has got: a fraction from 0 to 1, and a note of at most 200 characters.

        Reports that come faster than ``REPORTS`` a second are left out, except the last of the request. Raises
        ValueError if the fraction is not from 0 to 1.
        """
        value = float(fraction)
        if not 0 <= value <= 1:
            raise ValueError(f"the progress is a fraction from 0 to 1, not {fraction!r}")
        self._report = value, str(note)[:LONGEST_NOTE]
        now = time.monotonic()
        self._reports = min(float(REPORTS), self._reports + (now - self._reported_at) * REPORTS)
        self._reported_at = now
        if self._reports >= 1:
            self._reports -= 1
            self._send_report()

    def _send_report(self) -> None:
        """Send the progress that was reported last, if it was not sent."""
        report, self._report = self._report, None
        if report is not None:
            self._logger.wire.progress(self._ticket, *report)

    # --- the end of the request, not on FunctionGraph ---

    @property
    def cancelled(self) -> bool:
        """True if the handler must end, because the invocation was cancelled or has run too long.

        A handler that reads this value, or sets a callback, is not interrupted by an exception.
        """
        self._heeds = True
        return bool(self._reason)

    @property
    def cancel_reason(self) -> str:
        """Reason why the handler must end: ``cancelled`` or ``timeout``. Empty if it need not end."""
        return self._reason

    @property
    def soft_timed_out(self) -> bool:
        """True if the function's soft timeout is over."""
        return self._soft

    def on_cancel(self, callback: "Callable[[str], object]") -> "Callable[[str], object]":
        """Have the callback called with the reason when the handler must end. Return it, for use as a decorator."""
        self._heeds = True
        self._callbacks += ((False, callback),)
        if self._reason:
            callback(self._reason)
        return callback

    def on_soft_timeout(self, callback: "Callable[[], object]") -> "Callable[[], object]":
        """Have the callback called when the soft timeout is over. Return it, for use as a decorator."""
        self._callbacks += ((True, callback),)
        if self._soft:
            callback()
        return callback

    def _note(self, reason: str) -> None:
        if reason == "soft_timeout":
            self._soft = True
        else:
            self._reason = reason

    def _tell(self, reason: str) -> None:
        self._note(reason)
        soft = reason == "soft_timeout"
        for for_soft, callback in self._callbacks:
            if for_soft == soft:
                callback(*(() if soft else (reason,)))

    # --- the function ---

    def getProjectID(self) -> str:
        return self._setup["project"]

    def getPackage(self) -> str:
        return self._setup["package"]

    def getFunctionName(self) -> str:
        return self._setup["name"]

    def getVersion(self) -> str:
        return self._setup["version"]

    def getRunningTimeInSeconds(self) -> int:
        return self._setup["timeout"]

    def getMemorySize(self) -> Number:
        return Number(self._setup["memory"])

    def getCPUNumber(self) -> Number:
        return Number(self._setup["cpu"])

    def getUserData(self, key: "str | None" = None, default: object = None) -> object:
        """Return the value of a user's variable, or ``default`` if there is none.

        Without a key, return a copy of all variables.
        """
        data = self._setup["user_data"]
        return dict(data) if key is None else data.get(key, default)

    def getLogger(self) -> Logger:
        return self._logger

    # --- the instance ---

    def getInstanceID(self) -> str:
        return self._instance_id

    def setInstanceID(self, instance_id: str) -> None:
        self._instance_id = instance_id

    # --- not available here ---

    def getInvokeProperty(self, *unused: object) -> str:
        return ""

    def getStream(self, *unused: object) -> None:
        return None

    def _empty(self, *unused: object) -> str:
        return ""

    def getToken(self, *unused: object) -> str:
        return os.environ.get("FUNCTIOND_TOKEN", "")

    getAccessKey = getSecurityAccessKey = lambda self, *unused: self._setup.get("keys", {}).get("access_key", "")
    getSecretKey = getSecuritySecretKey = lambda self, *unused: self._setup.get("keys", {}).get("secret_key", "")

    def getSecurityToken(self, *unused: object) -> str:
        return self._setup.get("keys", {}).get("security_token", "")

    getWorkflowID = getWorkflowRunID = getWorkflowStateID = _empty
    getTenantID = getSessionID = _empty
    getAuthToken = getToken

    # --- names of AWS Lambda ---

    function_name = property(getFunctionName)
    function_version = property(getVersion)
    aws_request_id = property(getRequestID)
    get_remaining_time_in_millis = getRemainingTimeInMilliSeconds
    memory_limit_in_mb = property(getMemorySize)
    log_group_name = property(lambda self: f"/aws/lambda/{self.getFunctionName()}")
    log_stream_name = property(lambda self: f"[{self.getVersion()}]{self._instance_id}")
    client_context = identity = None

    @property
    def invoked_function_arn(self) -> str:
        owner = f"{os.environ.get('RUNTIME_REGION', '')}:{self.getProjectID()}"
        return f"arn:aws:lambda:{owner}:function:{self.getFunctionName()}:{self._alias or self.getVersion()}"

    # --- aliases ---

    getTraceID = getInvokeID = get_trace_id = get_invoke_id = getRequestID
    get_state, set_state, get_instance_id, set_instance_id = getState, setState, getInstanceID, setInstanceID
    get_invoke_property, get_stream = getInvokeProperty, getStream
    get_session_id = get_tenant_id = _empty
