"""Every error the engine raises, as one tree.

    FunctiondError
    ├── SettingsError                 the engine cannot start as configured
    ├── DataDirectoryLocked           another engine owns the data directory
    ├── DataDirectoryUnusable         its files are damaged, missing or foreign, or from a newer engine
    ├── InvalidRequest                the caller must change something
    │   ├── InvalidField              ... in one named field
    │   │   ├── CodeMissing  BadLink  NoInterpreter
    │   │   ├── BadExtraVersion  BadWeight  SameVersion
    │   │   ├── TooManyVariables  VariablesTooLarge
    │   │   └── BadQuery  BadMetricQuery  BadEvent  BadDependency  TooManyReserved
    │   ├── NotJson                   ... the body is not the JSON we need
    │   ├── NothingToPublish
    │   └── PayloadTooLarge
    │       └── CodePackageTooLarge  InlineCodeTooLarge
    ├── NotFound
    │   ├── UnknownFunction  UnknownVersion  UnknownAlias
    │   ├── UnknownInvocation
    │   ├── UnknownEvent  UnknownDependency  NamelessConfig
    │   └── NoAsyncSettings
    ├── Conflict
    │   ├── FunctionExists  DependencyExists
    │   ├── VersionExists  AliasExists  VersionTaken
    │   └── IdempotencyConflict
    ├── Forbidden                     known, but not allowed
    │   ├── TooManyVersions  TooManyAliases  VersionInUse  AliasInUse
    │   ├── TooManyFunctions  TooManyEvents  TooManyDependencies
    │   ├── EventTooLarge  EventExists
    │   └── CodeQuotaExceeded
    ├── DependencyInUse               something else must be changed first
    ├── Unsupported                   this machine has no such feature
    ├── Unauthorized                  who asks has not shown who it is
    ├── FunctionDisabled              its concurrency is set to 0
    ├── Overloaded                    try again after ``retry_after`` seconds
    │   ├── BacklogFull
    │   ├── TooManyFailures
    │   └── SynchronousCallsFull
    ├── Unavailable                   the engine cannot promise anything now; retry later
    │   ├── ShuttingDown
    │   ├── DiskLow
    │   ├── NotStored                 certainly not on disk
    │   └── OutcomeUnknown            may or may not be on disk
    └── CallTimedOut                  a synchronous caller stopped waiting; a run that has begun goes on

What *user code* does wrong is never one of these: it is an ``Outcome``.
An error carries its data as attributes and writes its own message; HTTP maps class to status in one table.
"""

from __future__ import annotations


class FunctiondError(Exception):
    """Root of everything the engine raises on purpose."""


class SettingsError(FunctiondError):
    """A setting is unknown, out of range, or does not fit another."""


class DataDirectoryLocked(FunctiondError):
    def __init__(self, path: str, pid: int | None) -> None:
        self.path, self.pid = path, pid
        owner = f"process {pid}" if pid else "another process"
        super().__init__(f"{path} is in use by {owner}: stop that engine, or choose another --data-dir")


class DataDirectoryUnusable(FunctiondError):
    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"{path}: {problem}")


class InvalidRequest(FunctiondError):
    """The request cannot be accepted as it is; sending it again unchanged will not help."""


class InvalidField(InvalidRequest):
    """``field`` holds ``value``; ``allowed`` says what would do."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        shown = "missing" if value is None else repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        super().__init__(f"{field} is {shown}: {allowed}")


class CodeMissing(InvalidField):
    def __init__(self, kind: str) -> None:
        super().__init__("func_code", "", f"code_type {kind} needs the code as base64 in func_code.file")


class NoInterpreter(InvalidField):
    """The runtime is a good one, but this machine has nothing that runs it."""

    def __init__(self, runtime: str, advice: str) -> None:
        super().__init__("runtime", runtime, advice)


class TooManyVariables(InvalidField):
    def __init__(self, field: str, count: int, limit: int) -> None:
        super().__init__(field, f"{count} variables", f"at most {limit} are allowed")


class VariablesTooLarge(InvalidField):
    def __init__(self, field: str, size: int, limit: int) -> None:
        super().__init__(field, f"{size} characters", f"at most {limit} are allowed")


class BadQuery(InvalidField):
    """A parameter of a query, not a field of a body that may have the same name."""


class BadEvent(InvalidField):
    """A saved test event has a wrong name or content."""


class BadDependency(InvalidField):
    """A dependency has a wrong name, runtime or package."""


class BadMetricQuery(InvalidField):
    """A query for workflow metrics; these answer in a shape of their own."""


class TooManyReserved(InvalidField):
    def __init__(self, count: int, allowed: str) -> None:
        super().__init__("count", count, allowed)


class BadExtraVersion(InvalidField):
    def __init__(self, version: str) -> None:
        super().__init__("additional_version", version, "must be a version of the function")


class BadWeight(InvalidField):
    def __init__(self, version: str, weight: int, allowed: str) -> None:
        super().__init__(f"additional_version_weights.{version}", weight, allowed)


class SameVersion(InvalidField):
    def __init__(self, version: str) -> None:
        super().__init__("additional_version", version, "must be another than the alias's main version")


class NothingToPublish(InvalidRequest):
    def __init__(self, version: str) -> None:
        super().__init__(f"nothing has changed since version {version} was published")


class NotJson(InvalidRequest):
    def __init__(self, problem: str) -> None:
        super().__init__(f"the body must be JSON in UTF-8, sent as Content-Type: application/json ({problem})")


class PayloadTooLarge(InvalidRequest):
    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(self.explain(limit))

    def explain(self, limit: int) -> str:
        return f"the body is larger than the {limit} bytes allowed here"


class CodePackageTooLarge(PayloadTooLarge):
    def explain(self, limit: int) -> str:
        return f"the code package is larger than the {limit} bytes allowed here"


class InlineCodeTooLarge(PayloadTooLarge):
    def explain(self, limit: int) -> str:
        return f"inline code may have {limit} bytes: send a zip package"


class NotFound(FunctiondError):
    """What the request names does not exist (here, or not for this project)."""


class UnknownFunction(NotFound):
    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"Not found the function {name}")


class UnknownVersion(NotFound):
    def __init__(self, version: str) -> None:
        self.version = version
        super().__init__(f"Not found the version {version}")


class UnknownAlias(NotFound):
    def __init__(self, alias: str) -> None:
        self.alias = alias
        super().__init__(f"Not found the alias {alias}")


class UnknownInvocation(NotFound):
    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        super().__init__(f"no invocation {request_id} (finished ones are kept for the retention period only)")


class UnknownEvent(NotFound):
    def __init__(self, id: str) -> None:
        super().__init__(f"Not found the test event {id}")


class UnknownDependency(NotFound):
    def __init__(self, id: str) -> None:
        super().__init__(f"Not found the dependency {id}")


class NamelessConfig(NotFound):
    def __init__(self, file: str) -> None:
        super().__init__(f"the .yaml file in {file} has no func_name")


class NoAsyncSettings(NotFound):
    def __init__(self, urn: str) -> None:
        super().__init__(f"{urn} has no asynchronous settings")


class Conflict(FunctiondError):
    """The request contradicts what is already there."""


class FunctionExists(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"The function has existed: {name}")


class DependencyExists(Conflict):
    def __init__(self, name: str, runtime: str) -> None:
        super().__init__(f"The dependency {name} has existed for {runtime}: use that runtime, or another name")


class VersionExists(Conflict):
    def __init__(self, version: str) -> None:
        super().__init__(f"The version has existed: {version}")


class AliasExists(Conflict):
    def __init__(self, alias: str) -> None:
        super().__init__(f"The alias has existed: {alias}")


class VersionTaken(Conflict):
    def __init__(self, version: str, alias: str) -> None:
        super().__init__(f"alias {alias} already stands for version {version}: a version has one alias at most")


class IdempotencyConflict(Conflict):
    def __init__(self, token: str) -> None:
        super().__init__(f"Idempotency-Key {token!r} was already used with another body")


class Forbidden(FunctiondError):
    """Understood, but not allowed to this caller."""


class TooManyFunctions(Forbidden):
    def __init__(self, limit: int) -> None:
        super().__init__(f"the project already has {limit} functions")


class TooManyEvents(Forbidden):
    def __init__(self, limit: int) -> None:
        super().__init__(f"the function already has {limit} test events")


class EventTooLarge(Forbidden):
    def __init__(self, limit: int) -> None:
        super().__init__(f"a test event may have {limit} bytes")


class EventExists(Forbidden):
    def __init__(self, name: str) -> None:
        super().__init__(f"The test event has existed: {name}")


class TooManyDependencies(Forbidden):
    def __init__(self, owner: str, limit: int) -> None:
        super().__init__(f"{owner} may have {limit} dependencies")


class CodeQuotaExceeded(Forbidden):
    """Sizes are bytes of packages as they were uploaded, each counted once."""

    def __init__(self, used: int, size: int, limit: int) -> None:
        super().__init__(
            f"the project has {used} bytes of code, and {size} more would exceed its quota of {limit} "
            "(storage.code_quota): delete functions, versions or dependencies"
        )


class DependencyInUse(FunctiondError):
    def __init__(self, name: str, user: str) -> None:
        super().__init__(f"the dependency {name} is used by {user}: detach it there first")


class Unsupported(FunctiondError):
    def __init__(self, feature: str) -> None:
        super().__init__(f"this engine has no {feature}")


class TooManyVersions(Forbidden):
    def __init__(self, limit: int) -> None:
        super().__init__(f"the function already has {limit} published versions: delete one that no alias uses")


class TooManyAliases(Forbidden):
    def __init__(self, limit: int) -> None:
        super().__init__(f"the function already has {limit} aliases")


class VersionInUse(Forbidden):
    def __init__(self, version: str, alias: str) -> None:
        super().__init__(f"alias {alias} sends requests to version {version}: change the alias first")


class AliasInUse(Forbidden):
    def __init__(self, alias: str) -> None:
        super().__init__(f"alias {alias} has triggers: delete them first")


class Unauthorized(FunctiondError):
    """Credentials are missing or wrong; the message says which part of them, and never what they hold."""


class FunctionDisabled(FunctiondError):
    retry_after = 60  #: seconds: somebody has to switch it on

    def __init__(self, name: str) -> None:
        super().__init__(f"Function Disabled: {name} has its maximum number of instances set to 0")


class Overloaded(FunctiondError):
    """Refused to protect what was accepted before; ``retry_after`` is in seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class BacklogFull(Overloaded):
    def __init__(self, scope: str, limit: int, unit: str) -> None:
        super().__init__(f"the backlog of {scope} has reached its limit of {limit} {unit}", retry_after=5)


class TooManyFailures(Overloaded):
    def __init__(self, retry_after: int) -> None:
        super().__init__("too many failed attempts to authenticate from this address", retry_after)


class SynchronousCallsFull(Overloaded):
    def __init__(self, limit: int, unit: str) -> None:
        super().__init__(f"{limit} {unit} of synchronous calls are already waiting")


class Unavailable(FunctiondError):
    """The engine cannot take this on now; ``retry_after`` is in seconds."""

    def __init__(self, message: str, retry_after: int = 2) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class ShuttingDown(Unavailable):
    def __init__(self) -> None:
        super().__init__("the engine is shutting down")


class DiskLow(Unavailable):
    def __init__(self, free: int, needed: int) -> None:
        self.free, self.needed = free, needed
        super().__init__(f"the disk has {free >> 20} MiB free, new work needs {needed >> 20} MiB", retry_after=10)


class NotStored(Unavailable):
    """The write failed and is certainly not on disk: sending it again is safe."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"not stored: {problem}", retry_after=5)


class OutcomeUnknown(Unavailable):
    """The write failed in a way that may still have reached the disk (a retry may run it twice)."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"outcome unknown: {problem}", retry_after=5)


class CallTimedOut(FunctiondError):
    def __init__(self, seconds: float, request_id: str = "", *, begun: bool = True) -> None:
        self.seconds, self.request_id, self.begun = seconds, request_id, begun
        advice = "the run goes on. Invoke asynchronously to learn its end"
        if not begun:
            advice = "its turn did not come, and it will not run. Call again, or invoke asynchronously to let it wait"
        super().__init__(f"no result within {seconds:g} s; {advice}")
