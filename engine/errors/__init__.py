"""Errors that the engine raises, as a tree of classes.

    FunctiondError
    ├── SettingsError                   the engine cannot start as configured
    ├── UsageError                      options of a command that cannot be used
    ├── DataDirectoryLocked             another engine owns the data directory
    ├── DataDirectoryUnusable           files inaccessible, damaged, missing, not an engine's, or of a newer engine
    │   └── DiskFailing                 a later start may succeed: the disk is full, or a read or write failed
    ├── StoredDataUnreadable            stored data that no start can read
    ├── BackupUnusable                  a backup that is missing, incomplete, damaged or of a newer engine
    ├── InvalidRequest                  the caller must change the request
    │   ├── InvalidField                one field has an unacceptable value
    │   │   ├── UnknownField  CodeMissing  BadLink  NoInterpreter
    │   │   ├── BadExtraVersion  BadWeight  SameVersion
    │   │   ├── TooManyVariables  VariablesTooLarge
    │   │   ├── BadQuery  BadMetricQuery  BadEvent  BadDependency  TooManyReserved
    │   │   ├── BadDestination          the path for a backup is not absolute, or overlaps the data directory
    │   │   ├── UnknownTriggerType      a trigger to create has a kind that no plugin provides
    │   │   └── InvalidTrigger
    │   │       ├── StatusFixed         triggers of this kind cannot be disabled
    │   │       └── InvocationModeFixed triggers of this kind always invoke asynchronously
    │   ├── NotJson                     the body is not the expected JSON
    │   ├── NothingToPublish
    │   └── PayloadTooLarge
    │       └── CodePackageTooLarge  InlineCodeTooLarge  FieldsTooLarge
    ├── Unauthorized                    credentials are wrong; the refusal may have to be delayed
    │   └── MissingCredentials
    ├── NotFound
    │   ├── UnknownFunction  UnknownVersion  UnknownAlias  NoAsyncSettings
    │   ├── UnknownInvocation  UnknownGroup
    │   ├── UnknownEvent  UnknownDependency  NamelessConfig
    │   ├── ObjectMissing               an object store has no such object or bucket
    │   ├── NoTriggerType               the URL path has a kind that no plugin provides
    │   └── UnknownTrigger
    ├── Conflict
    │   ├── FunctionExists  DependencyExists  FunctionPaused
    │   ├── FunctionOfApp               the function belongs to another app than the request's
    │   ├── VersionExists  AliasExists  VersionTaken  CodeChanged
    │   ├── IdempotencyConflict
    │   ├── GroupConflict               a group has ended, or has other members
    │   ├── ParentEnded                 the request that queues does not run in this instance
    │   ├── DestinationExists           the destination of a backup or restore holds something
    │   ├── BackupRuns                  another backup of this engine has not ended yet
    │   ├── CursorMoved                 another source moved the cursors, or the trigger was changed
    │   ├── SourceReplaced              a stream or folder was deleted and made anew: its source starts again
    │   ├── TriggerExists               the function version already has an equal trigger
    │   └── TriggerClash                another trigger uses a resource, such as a path, that this one needs
    ├── Forbidden                       a limit, an object in use or missing permission prevents it
    │   ├── AccessDenied                credentials of another project or role, or a foreign web page
    │   ├── VersionInUse  AliasInUse
    │   ├── QuotaReached                a setting of the section ``limits``
    │   │   ├── TooManyFunctions  TooManyVersions  TooManyAliases
    │   │   ├── TooManyEvents  TooManyTriggers
    │   │   └── TooManyDependencies  TooManyUsed
    │   ├── EventTooLarge  EventExists
    │   ├── CodeQuotaExceeded
    │   └── StoreRefused                an object store denied access
    ├── DependencyInUse                 a dependency cannot be deleted while a function uses it
    ├── Unsupported                     this engine has no such feature
    ├── FunctionDisabled                maximum number of instances is 0
    ├── Overloaded                      retry after ``retry_after`` seconds
    │   ├── BacklogFull
    │   ├── SynchronousCallsFull
    │   └── TooManyFailures             too many refusals of wrong credentials are delayed already
    ├── Unavailable                     the engine cannot accept work now; retry later
    │   ├── ShuttingDown
    │   ├── DiskLow
    │   ├── PageDamaged                 a page of the journal is damaged
    │   ├── NotStored                   the write failed and is certainly not on disk
    │   ├── OutcomeUnknown              the write failed and may or may not be on disk
    │   ├── TooManyUnproven             bodies that are not authenticated yet fill the space for them
    │   ├── StoreUnavailable            an object store cannot be reached, or gave no usable answer in time
    │   └── BackupFailed                the destination cannot be written, or the journal has no readable functions
    └── CallTimedOut                    a synchronous call got no result in time; a started attempt continues
    Exception
    ├── JournalBroken                   stored and lost rows cannot be distinguished before a restart
    └── MembershipLost                  another engine may do the work of this one

Failures of user code are never part of this tree: they are ``Outcome`` values. A kind is the type of a trigger, such as
TIMER. Each class composes its message from its arguments. ``asgi/error_replies.py`` has the HTTP status of each class.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

#: Advice if stored data are missing or damaged.
RESTORE = "restore a backup with `functiond restore`, or recover what can be read with `functiond recover`"
_LONGEST = 80  #: characters of a name or value that a message shows


def recover(folder: Path | str = "DIR") -> str:
    """Return the advice if pages of the journal in a folder are damaged."""
    return f"run `functiond recover {folder}`"


def shortened(text: str) -> str:
    """Return ``text`` as a message shows it."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


class FunctiondError(Exception):
    """Base class of errors for expected failures. Others are bugs, except the two that end a running engine."""


class SettingsError(FunctiondError):
    """Unusable settings: an unknown name, an invalid value, settings that exclude each other, or an unreadable file."""


class UsageError(FunctiondError):
    """Options or arguments of a command that cannot be used. The command exits with code USAGE."""


class DataDirectoryLocked(FunctiondError):
    def __init__(self, path: str, pid: int | None) -> None:
        self.path, self.pid = path, pid
        owner = f"process {pid}" if pid else "another process"
        super().__init__(f"{path} is in use by {owner}: stop that process, or choose another --data-dir")


class DataDirectoryUnusable(FunctiondError):
    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"{path}: {problem}")


class DiskFailing(DataDirectoryUnusable):
    """Disk that is full or fails. The engine exits with the code that asks a supervisor for a new start."""


class StoredDataUnreadable(FunctiondError):
    """Stored data that are not as an engine wrote them. ``place`` names the table, and the row if it is known."""

    def __init__(self, place: str, problem: str) -> None:
        self.place, self.problem = place, problem
        super().__init__(f"{place} cannot be read: {problem}; {RESTORE}")


class BackupUnusable(FunctiondError):
    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


class InvalidRequest(FunctiondError):
    """Invalid request. The caller must change it: the same request fails again."""


class InvalidField(InvalidRequest):
    """Field of a request with an unacceptable value. ``allowed`` describes the accepted values."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        shown = "missing" if value is None else shortened(repr(value))
        super().__init__(f"{field} is {shown}: {allowed}")


class UnknownField(InvalidField):
    """Field that the body of one of functiond's own operations has not. ``hint`` names known fields."""

    def __init__(self, field: str, value: object, hint: str) -> None:
        super().__init__(field, value, hint)
        self.args = (f"unknown field `{shortened(field)}`; {hint}",)


class CodeMissing(InvalidField):
    def __init__(self, kind: str, kind_field: str = "code_type", file_field: str = "func_code.file") -> None:
        super().__init__("func_code", "", f"{kind_field} {kind} needs the code as base64 in {file_field}")


class BadLink(InvalidField):
    """Link to a code package that is malformed or names no object of an object store."""

    def __init__(self, link: str, allowed: str, field: str = "code_url") -> None:
        self.link = link
        super().__init__(field, link, allowed)


class NoInterpreter(InvalidField):
    """Supported runtime for which this machine has no interpreter. ``advice`` describes how to get one."""

    def __init__(self, runtime: str, advice: str) -> None:
        super().__init__("runtime", runtime, advice)


class BadExtraVersion(InvalidField):
    def __init__(self, version: str) -> None:
        super().__init__("additional_version", version, "must be a version of the function")


class BadWeight(InvalidField):
    def __init__(self, version: str, weight: int, allowed: str) -> None:
        super().__init__(f"additional_version_weights.{version}", weight, allowed)


class SameVersion(InvalidField):
    def __init__(self, version: str) -> None:
        super().__init__("additional_version", version, "must differ from the main version of the alias")


class TooManyVariables(InvalidField):
    def __init__(self, field: str, count: int, limit: int) -> None:
        super().__init__(field, f"{count} variables", f"at most {limit} are allowed (limits.variables)")


class VariablesTooLarge(InvalidField):
    def __init__(self, field: str, size: int, limit: int) -> None:
        super().__init__(field, f"{size} characters", f"at most {limit} are allowed (limits.variables_size)")


class BadQuery(InvalidField):
    """Invalid parameter in the query of a URL. A field of the body can have the same name and raises InvalidField."""


class BadMetricQuery(InvalidField):
    """Invalid query for metrics of workflows. The API reports this error in another JSON format than all others."""


class BadEvent(InvalidField):
    """Invalid name or content of a test event, which is an example payload saved with a function."""


class BadDependency(InvalidField):
    """Invalid name, runtime or package of a dependency (a package that functions share)."""


class TooManyReserved(InvalidField):
    def __init__(self, count: int, allowed: str) -> None:
        super().__init__("count", count, allowed)


class BadDestination(InvalidField):
    def __init__(self, path: str, allowed: str) -> None:
        super().__init__("path", path, allowed)


class UnknownTriggerType(InvalidField):
    def __init__(self, kind: str, registered: Sequence[str]) -> None:
        near = difflib.get_close_matches(kind.upper(), registered, n=1)
        hint = f"did you mean {near[0]}?" if near else f"must be one of {', '.join(registered)}"
        super().__init__("trigger_type_code", kind, hint)


class InvalidTrigger(InvalidField):
    def __init__(self, kind: str, field: str, value: object, allowed: str) -> None:
        self.kind = kind
        super().__init__(field, value, f"{allowed} (trigger type {kind})")


class StatusFixed(InvalidTrigger):
    def __init__(self, kind: str, status: str) -> None:
        super().__init__(kind, "trigger_status", status, "a trigger of this kind cannot be disabled: delete it instead")


class InvocationModeFixed(InvalidTrigger):
    def __init__(self, kind: str, field: str, value: object, hint: str = "") -> None:
        allowed = f"this kind invokes its function asynchronously; the invocation mode cannot be changed{hint}"
        super().__init__(kind, field, value, allowed)


class NotJson(InvalidRequest):
    def __init__(self, problem: str) -> None:
        super().__init__(f"the body must be JSON in UTF-8, sent as Content-Type: application/json ({problem})")


class NothingToPublish(InvalidRequest):
    def __init__(self, version: str) -> None:
        super().__init__(f"nothing has changed since version {version} was published")


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


class Unauthorized(FunctiondError):
    """Missing or wrong credentials. The message names the wrong part and never contains its value."""

    delay: float = 0.0  #: seconds by which the reply must be delayed, after many failures of this client


class MissingCredentials(Unauthorized):
    """No credentials in a request that needs them. No failed attempt, because no secret was guessed."""


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


class NoAsyncSettings(NotFound):
    def __init__(self, urn: str) -> None:
        super().__init__(f"{urn} has no asynchronous settings")


class UnknownInvocation(NotFound):
    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        reasons = "its function was deleted, or it ended longer ago than the setting storage.retention"
        super().__init__(f"no invocation {request_id}: the id is wrong, {reasons}")


class UnknownGroup(NotFound):
    def __init__(self, group_id: str) -> None:
        super().__init__(f"no group {group_id}: the id is wrong, or it ended longer ago than storage.retention")


class UnknownEvent(NotFound):
    def __init__(self, id: str) -> None:
        super().__init__(f"Not found the test event {id}")


class UnknownDependency(NotFound):
    def __init__(self, id: str) -> None:
        super().__init__(f"Not found the dependency {id}")


class NamelessConfig(NotFound):
    def __init__(self, file: str) -> None:
        super().__init__(f"the .yaml file in {file} has no func_name")


class ObjectMissing(NotFound):
    def __init__(self, bucket: str, key: str, missing: str = "object") -> None:
        location = f"bucket {bucket}, key {key}" if key else f"bucket {bucket}"
        super().__init__(f"the object store has no such {missing}: {location}")


class NoTriggerType(NotFound):
    def __init__(self, kind: str) -> None:
        super().__init__(f"Not found the trigger type {kind}")


class UnknownTrigger(NotFound):
    def __init__(self, kind: str, trigger_id: str) -> None:
        self.kind, self.trigger_id = kind, trigger_id
        super().__init__(f"Not found the {kind} trigger {trigger_id}")


class Conflict(FunctiondError):
    """Request that an existing object prevents, for example one with the same name."""


class FunctionExists(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"The function has existed: {name}")


class FunctionOfApp(Conflict):
    def __init__(self, name: str, app: str) -> None:
        super().__init__(
            f"the function {name} belongs to the app {app}: use another name, or take it over with "
            "functiond deploy --take-over (in the API take_over=true)"
        )


class DependencyExists(Conflict):
    def __init__(self, name: str, runtime: str, advice: str = "use that runtime, or another name") -> None:
        super().__init__(f"The dependency {name} has existed for {runtime}: {advice}")


class FunctionPaused(Conflict):
    """Synchronous request to a paused function. Asynchronous requests are accepted and wait."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        why = f" ({reason})" if reason else ""
        super().__init__(
            f"the function {name} is paused{why}; resume it, or invoke it asynchronously to queue the event"
        )


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


class GroupConflict(Conflict):
    def __init__(self, group_id: str, problem: str) -> None:
        super().__init__(f"group {group_id} {problem}")


class ParentEnded(Conflict):
    def __init__(self, request_id: str) -> None:
        super().__init__(f"{request_id} does not run in this instance any more: queue before the handler returns")


class DestinationExists(Conflict):
    def __init__(self, path: str, advice: str) -> None:
        super().__init__(f"{path} exists already: {advice}")


class BackupRuns(Conflict):
    def __init__(self) -> None:
        super().__init__("another backup of this engine runs: wait for its end")


class CursorMoved(Conflict):
    def __init__(self, trigger_id: str, problem: str) -> None:
        self.trigger_id = trigger_id
        super().__init__(f"trigger {trigger_id}: {problem}")


class SourceReplaced(Conflict):
    def __init__(self, before: str, now: str) -> None:
        super().__init__(f"{before} was deleted and is {now or 'missing'} now: the source starts again")


class TriggerExists(Conflict):
    def __init__(self, kind: str, what: str, trigger_id: str) -> None:
        self.kind, self.trigger_id = kind, trigger_id
        super().__init__(f"The {kind} trigger has existed: {trigger_id} has {what}")


class TriggerClash(Conflict):
    def __init__(self, kind: str, problem: str) -> None:
        self.kind = kind
        super().__init__(problem)


class Forbidden(FunctiondError):
    """Valid request that is not allowed: by a limit, because an object is in use, or because access is denied."""


class AccessDenied(Forbidden):
    """Request that these credentials, or this web page, may not make."""


class NotForProject(Forbidden):
    """Use of something in the settings of a plugin, such as an instance, by a project that may not use it."""

    def __init__(self, setting: str, project: str) -> None:
        super().__init__(f"{setting} is not for project {project}: the operator lists {project} in its projects")


class QuotaReached(Forbidden):
    """Creation beyond a quota, which is a setting of the section ``limits``."""

    owner, things, setting = "", "", ""

    def __init__(self, limit: int) -> None:
        text = f"{self.owner} may have at most {limit} {self.things} (limits.{self.setting})"
        super().__init__(f"{text}: delete some, or raise the setting and restart the engine")


class TooManyVersions(QuotaReached):
    owner, things, setting = "a function", "published versions", "versions"


class TooManyAliases(QuotaReached):
    owner, things, setting = "a function", "aliases", "aliases"


class TooManyFunctions(QuotaReached):
    owner, things, setting = "a project", "functions", "functions"


class TooManyEvents(QuotaReached):
    owner, things, setting = "a function", "test events", "test_events"


class TooManyDependencies(QuotaReached):
    owner, things, setting = "a project", "versions of dependencies", "dependencies"


class TooManyUsed(TooManyDependencies):
    owner, things, setting = "a function", "dependencies", "function_dependencies"


class TooManyTriggers(QuotaReached):
    owner, things, setting = "a version or alias", "triggers", "triggers"

    def __init__(self, kind: str, limit: int) -> None:
        self.kind = kind
        super().__init__(limit)


class VersionInUse(Forbidden):
    def __init__(self, version: str, alias: str) -> None:
        super().__init__(f"alias {alias} sends requests to version {version}: change the alias first")


class AliasInUse(Forbidden):
    def __init__(self, alias: str) -> None:
        super().__init__(f"alias {alias} has triggers: delete them first")


class EventTooLarge(Forbidden):
    def __init__(self, limit: int) -> None:
        super().__init__(f"the test event is larger than the {limit} bytes allowed")


class EventExists(Forbidden):
    def __init__(self, name: str) -> None:
        super().__init__(f"The test event has existed: {name}")


class CodeQuotaExceeded(Forbidden):
    """Upload that would exceed a project's code quota, in bytes. Equal packages of a project count as one."""

    def __init__(self, used: int, size: int, limit: int) -> None:
        super().__init__(
            f"the project has {used} bytes of code, and {size} more would exceed its quota of {limit} "
            "(storage.code_quota): delete functions, versions or dependencies"
        )


class StoreRefused(Forbidden):
    def __init__(self, problem: str) -> None:
        super().__init__(f"the object store refuses this engine: {problem}")


class DependencyInUse(FunctiondError):
    def __init__(self, name: str, user: str) -> None:
        super().__init__(f"the dependency {name} is used by {user}: detach it there first")


class Unsupported(FunctiondError):
    def __init__(self, feature: str) -> None:
        super().__init__(f"this engine has no {feature}")


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
    def __init__(self, scope: str, limit: int, unit: str) -> None:
        super().__init__(f"synchronous calls of {scope} have reached their limit of {limit} {unit}")


class TooManyFailures(Overloaded):
    def __init__(self, retry_after: int) -> None:
        super().__init__("too many failed attempts to authenticate from this address", retry_after)


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


class PageDamaged(Unavailable):
    """Read or write that met a damaged page of the journal. Nothing was stored. ``problem`` is that of the storage."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"a page of the journal is damaged ({problem}); see /healthz for the next step", retry_after=5)


class NotStored(Unavailable):
    """Write that failed and is certainly not on disk, so that the client can safely send the request again."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"not stored: {problem}", retry_after=5)


class OutcomeUnknown(Unavailable):
    """Write that failed but may be on disk. A client that sends the request again may cause a second invocation."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"outcome unknown: {problem}", retry_after=5)


class TooManyUnproven(Unavailable):
    def __init__(self, limit: int) -> None:
        super().__init__(
            f"bodies whose signatures are not verified yet fill {limit >> 20} MiB; retry later, or declare the hash of "
            "the body in X-Sdk-Content-Sha256",
            retry_after=5,
        )


class StoreUnavailable(Unavailable):
    def __init__(self, problem: str) -> None:
        super().__init__(f"the object store: {problem}", retry_after=5)


class BackupFailed(Unavailable):
    def __init__(
        self, path: str, problem: object, advice: str = "free space there, or choose another destination"
    ) -> None:
        shown = (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
        super().__init__(f"cannot write the backup {path}: {shown}; {advice}", 60)


class CallTimedOut(FunctiondError):
    def __init__(self, seconds: float, request_id: str = "", *, begun: bool = True) -> None:
        self.seconds, self.request_id, self.begun = seconds, request_id, begun
        advice = "the run continues. Invoke asynchronously to be able to query the result"
        if not begun:
            advice = "the call was not started and will not run. Call again, or invoke asynchronously to queue it"
        super().__init__(f"no result within {seconds:g} s; {advice}")


class JournalBroken(Exception):
    """Failure after which stored and lost rows cannot be distinguished until a restart reads the storage again."""


class Deferred(Exception):
    """No instance can start for an attempt now, so that its invocation returns to the queue."""


class MembershipLost(Exception):
    """Another engine may do the work of this engine, which must therefore stop."""

    def __init__(self) -> None:
        super().__init__("this engine lost its membership in the cluster: another engine does its work")
