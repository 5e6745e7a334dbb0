"""The context object and the logger that a Python function is given. Standard library only, Python 3.9 syntax."""

import time

from python_wire import LOGGER

LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50}
NAMES = {10: "DEBUG", 20: "INFO", 30: "WARN", 40: "ERROR", 50: "CRITICAL"}


class Logger:
    """Lines of the invocation log: UTC time, request id, level, text (spec triggers_runtime 4.1).

    One for the life of an instance: a line has the id of the request that runs, whenever the logger was asked for.
    """

    def __init__(self, wire):
        self.wire, self.level = wire, 0

    def setLevel(self, level):
        """A number, or a name of any case; an unknown one lets all through."""
        self.level = level if isinstance(level, int) else LEVELS.get(str(level).upper(), 0)

    def log(self, level, msg="", *args):
        if isinstance(level, int):
            name = NAMES.get(level, str(level))
        else:
            name = str(level).upper()
            level = LEVELS.get(name, 20)
        if level < self.level:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + ".%03dZ" % (now % 1 * 1000)
        line = "%s %s %s %s\n" % (stamp, self.wire.current().id, name, written(msg, args))
        self.wire.log(LOGGER, line.encode("utf-8", "backslashreplace"))

    def debug(self, msg="", *args):
        self.log("DEBUG", msg, *args)

    def info(self, msg="", *args):
        self.log("INFO", msg, *args)

    def warning(self, msg="", *args):
        self.log("WARN", msg, *args)

    warn = warning

    def error(self, msg="", *args):
        self.log("ERROR", msg, *args)

    def critical(self, msg="", *args):
        self.log("CRITICAL", msg, *args)

    def exception(self, msg="", *args):
        import traceback

        self.log("ERROR", "%s", written(msg, args) + "\n" + traceback.format_exc().rstrip())

    set_level = setLevel


def written(msg, args):
    """A log must not raise: what does not fit its pattern stands behind it."""
    try:
        return str(msg) % args if args else str(msg)
    except Exception:
        return " ".join([str(msg)] + [str(arg) for arg in args])


class Figure(int):
    """A number that may also be put together with text: the platform gives it as either (spec triggers_runtime 4.1)."""

    def __add__(self, other):
        return str(self) + other if isinstance(other, str) else int(self) + other

    def __radd__(self, other):
        return other + str(self) if isinstance(other, str) else other + int(self)

    def __eq__(self, other):
        return str(self) == other if isinstance(other, str) else int(self) == other

    def __ne__(self, other):
        return not self == other

    __hash__ = int.__hash__


class Context:
    """The documented context object. What has no source here answers with an empty string, never with an exception."""

    def __init__(self, setup, logger, request_id, alias, timeout=None):
        self._setup, self._logger, self._request_id, self._alias = setup, logger, request_id, alias
        self._timeout = setup["timeout"] if timeout is None else timeout  # seconds
        self._began, self._state = time.monotonic(), None
        self._instance_id = setup["instance"]

    # --- the request ---

    def getRequestID(self):
        return self._request_id

    def getAlias(self):
        return self._alias

    def getRemainingTimeInMilliSeconds(self):
        return max(0, int((self._timeout - (time.monotonic() - self._began)) * 1000))

    def getState(self):
        return self._state

    def setState(self, state):
        self._state = state

    # --- the function ---

    def getProjectID(self):
        return self._setup["project"]

    def getPackage(self):
        return self._setup["package"]

    def getFunctionName(self):
        return self._setup["name"]

    def getVersion(self):
        return self._setup["version"]

    def getRunningTimeInSeconds(self):
        return self._setup["timeout"]

    def getMemorySize(self):
        return Figure(self._setup["memory"])

    def getCPUNumber(self):
        return Figure(self._setup["cpu"])

    def getUserData(self, key=None, default=None):
        """The value of a variable; without a key all of them."""
        data = self._setup["user_data"]
        return dict(data) if key is None else data.get(key, default)

    def getLogger(self):
        return self._logger

    # --- the instance ---

    def getInstanceID(self):
        return self._instance_id

    def setInstanceID(self, instance_id):
        self._instance_id = instance_id

    # --- what there is none of here ---

    def getInvokeProperty(self, *unused):
        return ""

    def getStream(self, *unused):
        return None

    def _nothing(self, *unused):
        return ""

    getAccessKey = getSecretKey = getSecurityAccessKey = getSecuritySecretKey = getSecurityToken = _nothing
    getToken = getAuthToken = getWorkflowID = getWorkflowRunID = getWorkflowStateID = _nothing
    getTenantID = getSessionID = _nothing

    # --- other names of the same ---

    getTraceID = getInvokeID = get_trace_id = get_invoke_id = getRequestID
    get_state, set_state, get_instance_id, set_instance_id = getState, setState, getInstanceID, setInstanceID
    get_invoke_property, get_stream = getInvokeProperty, getStream
    get_session_id = get_tenant_id = _nothing
