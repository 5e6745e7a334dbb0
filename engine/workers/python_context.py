"""The context object and the logger that a Python function is given. Standard library only, Python 3.9 syntax."""

import time

LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50}


class Logger:
    """Lines of the invocation log: UTC time, request id, level, text. ``write`` takes each with its newline."""

    def __init__(self, write):
        self.write, self.request_id, self.level = write, "", 0

    def setLevel(self, level):
        self.level = level if isinstance(level, int) else LEVELS.get(str(level).upper(), 0)

    def log(self, level, msg, *args):
        if isinstance(level, int):
            name = next((n for n, v in LEVELS.items() if v == level), str(level))
        else:
            name, level = str(level).upper(), LEVELS.get(str(level).upper(), 20)
        if level < self.level:
            return
        try:
            text = str(msg) % args if args else str(msg)
        except (TypeError, ValueError):
            text = " ".join([str(msg)] + [str(a) for a in args])
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + ".%03dZ" % (now % 1 * 1000)
        self.write("%s %s %s %s\n" % (stamp, self.request_id, name, text))

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

        self.log("ERROR", "%s\n%s" % (msg % args if args else msg, traceback.format_exc().rstrip()))


class Context:
    """The documented context object. What has no source here answers with an empty string, never with an exception."""

    def __init__(self, setup, logger, request_id, alias):
        self._setup, self._logger, self._request_id, self._alias = setup, logger, request_id, alias
        self._began, self._state = time.monotonic(), None
        self._instance_id = setup["instance"]

    def getRequestID(self):
        return self._request_id

    def getRemainingTimeInMilliSeconds(self):
        return max(0, int((self._setup["timeout"] - (time.monotonic() - self._began)) * 1000))

    def getRunningTimeInSeconds(self):
        return self._setup["timeout"]

    def getUserData(self, key=None, default=None):
        data = self._setup["user_data"]
        return dict(data) if key is None else data.get(key, default)

    def getLogger(self):
        return self._logger

    def getFunctionName(self):
        return self._setup["name"]

    def getVersion(self):
        return self._setup["version"]

    def getAlias(self):
        return self._alias

    def getPackage(self):
        return self._setup["package"]

    def getProjectID(self):
        return self._setup["project"]

    def getMemorySize(self):
        return self._setup["memory"]

    def getCPUNumber(self):
        return self._setup["cpu"]

    def getState(self):
        return self._state

    def setState(self, state):
        self._state = state

    def getInstanceID(self):
        return self._instance_id

    def setInstanceID(self, instance_id):
        self._instance_id = instance_id

    def getInvokeProperty(self, *unused):
        return ""

    def getStream(self, *unused):
        return None

    def _request(self, *unused):
        return self._request_id

    def _nothing(self, *unused):
        return ""

    getTraceID = getInvokeID = get_trace_id = get_invoke_id = _request
    get_state, set_state, get_instance_id, set_instance_id = getState, setState, getInstanceID, setInstanceID
    get_invoke_property, get_stream = getInvokeProperty, getStream
    getAccessKey = getSecretKey = getSecurityAccessKey = getSecuritySecretKey = getSecurityToken = _nothing
    getToken = getAuthToken = getWorkflowID = getWorkflowRunID = getWorkflowStateID = _nothing
    getTenantID = getSessionID = get_session_id = get_tenant_id = _nothing
