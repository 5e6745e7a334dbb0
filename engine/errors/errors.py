"""Errors that the engine raises, as a tree of classes.

    FunctiondError
    ├── SettingsError                 the engine cannot start as configured
    ├── DataDirectoryLocked           another engine owns the data directory
    ├── DataDirectoryUnusable         files inaccessible, damaged, missing, not an engine's, or of a newer engine
    ├── InvalidRequest                the caller must change the request
    │   ├── InvalidField              one field has an unacceptable value
    │   │   ├── CodeMissing  BadLink  NoInterpreter
    │   │   ├── BadExtraVersion  BadWeight  SameVersion
    │   │   ├── TooManyVariables  VariablesTooLarge
    │   │   └── BadQuery  BadMetricQuery  BadEvent  BadDependency  TooManyReserved
    │   ├── NotJson                   the body is not the expected JSON
    │   ├── NothingToPublish
    │   └── PayloadTooLarge
    │       └── CodePackageTooLarge  InlineCodeTooLarge  FieldsTooLarge
    ├── NotFound
    │   ├── UnknownFunction  UnknownVersion  UnknownAlias
    │   ├── UnknownInvocation
    │   ├── UnknownEvent  UnknownDependency  NamelessConfig
    │   └── NoAsyncSettings
    ├── Conflict
    │   ├── FunctionExists  DependencyExists
    │   ├── VersionExists  AliasExists  VersionTaken
    │   └── IdempotencyConflict
    ├── Forbidden                     a limit, an object in use or missing permission prevents it
    │   ├── TooManyVersions  TooManyAliases  VersionInUse  AliasInUse
    │   ├── TooManyFunctions  TooManyEvents  TooManyDependencies
    │   ├── EventTooLarge  EventExists
    │   └── CodeQuotaExceeded
    ├── DependencyInUse               a dependency cannot be deleted while a function uses it
    ├── Unsupported                   this engine has no such feature
    ├── FunctionDisabled              maximum number of instances is 0
    ├── Overloaded                    retry after ``retry_after`` seconds
    │   ├── BacklogFull
    │   └── SynchronousCallsFull
    ├── Unavailable                   the engine cannot accept work now; retry later
    │   ├── ShuttingDown
    │   ├── DiskLow
    │   ├── NotStored                 the write failed and is certainly not on disk
    │   └── OutcomeUnknown            the write failed and may or may not be on disk
    └── CallTimedOut                  a synchronous call got no result in time; a started attempt continues

Those of access control, backups, data files, object stores and triggers are in modules of their own.

Failures of user code are never part of this tree: they are ``Outcome`` values.
Each class composes its message from its arguments. ``asgi/error_replies.py`` has the HTTP status of each class.
"""

from __future__ import annotations

from collections.abc import Sequence


class FunctiondError(Exception):
    """Base class of errors for expected failures. Others are bugs, except those of ``fatal_errors``."""


class SettingsError(FunctiondError):
    """Unusable settings: an unknown name, an invalid value, settings that exclude each other, or an unreadable file."""


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
    """Invalid request. The caller must change it: the same request fails again."""


class InvalidField(InvalidRequest):
    """Field of a request with an unacceptable value. ``allowed`` describes the accepted values."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        shown = "missing" if value is None else repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        super().__init__(f"{field} is {shown}: {allowed}")


class CodeMissing(InvalidField):
    def __init__(self, kind: str) -> None:
        super().__init__("func_code", "", f"code_type {kind} needs the code as base64 in func_code.file")


class NoInterpreter(InvalidField):
    """Supported runtime for which this machine has no interpreter. ``advice`` describes how to get one."""

    def __init__(self, runtime: str, advice: str) -> None:
        super().__init__("runtime", runtime, advice)


class TooManyVariables(InvalidField):
    def __init__(self, field: str, count: int, limit: int) -> None:
        super().__init__(field, f"{count} variables", f"at most {limit} are allowed")


class VariablesTooLarge(InvalidField):
    def __init__(self, field: str, size: int, limit: int) -> None:
        super().__init__(field, f"{size} characters", f"at most {limit} are allowed")


class BadQuery(InvalidField):
    """Invalid parameter in the query of a URL. A field of the body can have the same name and raises InvalidField."""


class BadEvent(InvalidField):
    """Invalid name or content of a test event, which is an example payload saved with a function."""


class BadDependency(InvalidField):
    """Invalid name, runtime or package of a dependency (a package that functions share)."""


class BadMetricQuery(InvalidField):
    """Invalid query for metrics of workflows. The API reports this error in another JSON format than all others."""


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
        super().__init__("additional_version", version, "must differ from the main version of the alias")


class NothingToPublish(InvalidRequest):
    def __init__(self, version: str) -> None:
        super().__init__(f"nothing has changed since version {version} was published")


class NotJson(InvalidRequest):
    def __init__(self, problem: str) -> None:
        super().__init__(f"the body must be JSON in UTF-8, sent as Content-Type: application/json ({problem})")


class PayloadTooLarge(InvalidRequest):
    form = "the body is larger than the {} bytes allowed here"

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(self.form.format(limit))


class CodePackageTooLarge(PayloadTooLarge):
    form = "the code package is larger than the {} bytes allowed here"


class InlineCodeTooLarge(PayloadTooLarge):
    form = "inline code is larger than the {} bytes allowed: send a zip package"


class FieldsTooLarge(PayloadTooLarge):
    form = "the fields beside the code are larger than the {} bytes allowed here"


class NotFound(FunctiondError):
    """Object of a request that does not exist, at least not in the project of the caller."""


class UnknownFunction(NotFound):
    def __init__(self, name: str, near: Sequence[str] = ()) -> None:
        self.name = name
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        super().__init__(f"Not found the function {name}{hint}")


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
        reasons = "its function was deleted, or it ended longer ago than the setting storage.retention"
        super().__init__(f"no invocation {request_id}: the id is wrong, {reasons}")


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
    """Request that an existing object prevents, for example one with the same name."""


class FunctionExists(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"The function has existed: {name}")


class DependencyExists(Conflict):
    def __init__(self, name: str, runtime: str, advice: str = "use that runtime, or another name") -> None:
        super().__init__(f"The dependency {name} has existed for {runtime}: {advice}")


class VersionExists(Conflict):
    def __init__(self, version: str) -> None:
        super().__init__(f"The version has existed: {version}")


class AliasExists(Conflict):
    def __init__(self, alias: str) -> None:
        super().__init__(f"The alias has existed: {alias}")


class VersionTaken(Conflict):
    def __init__(self, version: str, alias: str) -> None:
        super().__init__(f"version {version} already has the alias {alias}: a version can have only one alias")


class CodeChanged(Conflict):
    def __init__(self, digest: str) -> None:
        super().__init__(f"the code was changed meanwhile (its digest is {digest}): read it, and change it again")


class IdempotencyConflict(Conflict):
    def __init__(self, token: str) -> None:
        super().__init__(f"Idempotency-Key {token!r} was already used with another body")


class Forbidden(FunctiondError):
    """Valid request that is not allowed: by a limit, because an object is in use, or because access is denied."""


class TooManyFunctions(Forbidden):
    def __init__(self, limit: int) -> None:
        super().__init__(f"the project already has {limit} functions")


class TooManyEvents(Forbidden):
    def __init__(self, limit: int) -> None:
        super().__init__(f"the function already has {limit} test events")


class EventTooLarge(Forbidden):
    def __init__(self, limit: int) -> None:
        super().__init__(f"the test event is larger than the {limit} bytes allowed")


class EventExists(Forbidden):
    def __init__(self, name: str) -> None:
        super().__init__(f"The test event has existed: {name}")


class TooManyDependencies(Forbidden):
    def __init__(self, owner: str, limit: int) -> None:
        super().__init__(f"{owner} may have at most {limit} dependencies")


class CodeQuotaExceeded(Forbidden):
    """Upload that would exceed a project's code quota, in bytes. Equal packages of a project count as one."""

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


class FunctionDisabled(FunctiondError):
    retry_after = 60  #: seconds; the function must be enabled by a person or program first

    def __init__(self, name: str) -> None:
        super().__init__(f"Function Disabled: {name} has its maximum number of instances set to 0")


class Overloaded(FunctiondError):
    """Request rejected because a limit of load is reached. The client may retry after ``retry_after`` seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class BacklogFull(Overloaded):
    def __init__(self, scope: str, limit: int, unit: str) -> None:
        super().__init__(f"the backlog of {scope} has reached its limit of {limit} {unit}", retry_after=5)


class SynchronousCallsFull(Overloaded):
    def __init__(self, limit: int, unit: str) -> None:
        super().__init__(f"{limit} {unit} of synchronous calls are already waiting")


class Unavailable(FunctiondError):
    """Request that the engine cannot accept now. The client may retry after ``retry_after`` seconds."""

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
    """Write that failed and is certainly not on disk, so that the client can safely send the request again."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"not stored: {problem}", retry_after=5)


class OutcomeUnknown(Unavailable):
    """Write that failed but may be on disk. A client that sends the request again may cause a second invocation."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"outcome unknown: {problem}", retry_after=5)


class CallTimedOut(FunctiondError):
    def __init__(self, seconds: float, request_id: str = "", *, begun: bool = True) -> None:
        self.seconds, self.request_id, self.begun = seconds, request_id, begun
        advice = "the run continues. Invoke asynchronously to be able to query the result"
        if not begun:
            advice = "the call was not started and will not run. Call again, or invoke asynchronously to queue it"
        super().__init__(f"no result within {seconds:g} s; {advice}")
