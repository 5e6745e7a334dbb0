"""HTTP status and FSS code of each error class (error codes of the FunctionGraph API), and error replies.

The codes of trigger errors depend on the kind of the trigger. ``trigger_codes`` defines them.
"""

from __future__ import annotations

import uuid

import msgspec

from engine import errors as e
from engine.asgi.wire import Reply
from engine.errors import BadLink, ObjectMissing
from engine.http.api.trigger_codes import trigger_status

_TABLE: dict[type[e.FunctiondError], tuple[int, str]] = {
    e.FunctiondError: (500, "FSS.0500"),
    e.InvalidRequest: (400, "FSS.0400"),
    e.CodeMissing: (400, "FSS.1012"),
    BadLink: (400, "FSS.1010"),
    e.NoInterpreter: (400, "FSS.1005"),
    e.TooManyVariables: (400, "FSS.1017"),
    e.VariablesTooLarge: (400, "FSS.1018"),
    e.BadQuery: (400, "FSS.1001"),
    e.BadEvent: (400, "FSS.1074"),
    e.BadDependency: (400, "FSS.1024"),
    e.BadMetricQuery: (400, "FGS.3002"),
    e.TooManyReserved: (400, "FSS.1076"),
    e.BadExtraVersion: (400, "FSS.1091"),
    e.BadWeight: (400, "FSS.1092"),
    e.SameVersion: (400, "FSS.1093"),
    e.NothingToPublish: (400, "FSS.1016"),
    e.NotJson: (406, "FSS.0406"),
    e.PayloadTooLarge: (413, "FSS.0413"),
    e.CodePackageTooLarge: (413, "FSS.1071"),
    e.InlineCodeTooLarge: (413, "FSS.1072"),
    e.NotFound: (404, "FSS.0404"),
    e.UnknownFunction: (404, "FSS.1051"),
    e.UnknownVersion: (404, "FSS.1052"),
    e.UnknownAlias: (404, "FSS.1053"),
    ObjectMissing: (404, "FSS.1054"),
    e.UnknownEvent: (404, "FSS.1070"),
    e.UnknownDependency: (404, "FSS.1056"),
    e.NamelessConfig: (404, "FSS.1057"),
    e.Conflict: (409, "FSS.0409"),
    e.FunctionExists: (409, "FSS.1061"),
    e.DependencyExists: (409, "FSS.1065"),
    e.VersionExists: (409, "FSS.1062"),
    e.AliasExists: (409, "FSS.1063"),
    e.VersionTaken: (409, "FSS.1066"),
    e.Forbidden: (403, "FSS.0403"),
    e.TooManyFunctions: (403, "FSS.1041"),
    e.CodeQuotaExceeded: (403, "FSS.1042"),
    e.TooManyEvents: (403, "FSS.1068"),
    e.TooManyDependencies: (403, "FSS.1045"),
    e.EventTooLarge: (403, "FSS.1069"),
    e.EventExists: (403, "FSS.1073"),
    e.DependencyInUse: (412, "FSS.1033"),
    e.Unsupported: (426, "FSS.0426"),
    e.TooManyAliases: (403, "FSS.1043"),
    e.VersionInUse: (403, "FSS.1094"),
    e.AliasInUse: (403, "FSS.1154"),
    e.Unauthorized: (401, "FSS.0401"),
    e.FunctionDisabled: (429, "FSS.0429"),
    e.Overloaded: (429, "FSS.0429"),
    e.Unavailable: (503, "FSS.0503"),
    e.CallTimedOut: (504, "FSS.0504"),
}

#: Codes of an InvalidField by its field; FSS.0400 for all other fields.
_FIELDS = {
    "func_name": "FSS.1002",
    "handler": "FSS.1003",
    "package": "FSS.1004",
    "runtime": "FSS.1005",
    "code_type": "FSS.1006",
    "memory_size": "FSS.1007",
    "timeout": "FSS.1008",
    "user_data": "FSS.1009",
    "encrypted_user_data": "FSS.1009",
    "code_url": "FSS.1010",
    "depend_link": "FSS.1010",
    "file_type": "FSS.1013",
    "file_code": "FSS.1011",
    "yaml_files": "FSS.1022",
    "import_size": "FSS.1023",
    "yaml": "FSS.1025",
    "depend_type": "FSS.1032",
    "func_code": "FSS.1011",
    "code_filename": "FSS.1013",
    "additional_version_weights": "FSS.1092",
    "alias": "FSS.1014",
    "version": "FSS.1015",
    "description": "FSS.1019",
    "concurrency": "FSS.1026",
    "strategy_config": "FSS.1026",
    "max_instance_num": "FSS.1026",
    "function_urn": "FSS.1309",
    "initializer_handler": "FSS.1404",
    "initializer_timeout": "FSS.1405",
}


def error_codes() -> list[tuple[str, int, str]]:
    """Return a name, HTTP status and FSS code for each error of the API, sorted by status and code.

    Errors of triggers are not included.
    """
    rows = [(kind.__name__, status, code) for kind, (status, code) in _TABLE.items()]
    fields = [(f"Invalid field `{field}`", 400, code) for field, code in _FIELDS.items()]
    return sorted(rows + fields, key=lambda row: row[1:])


def error_reply(error: e.FunctiondError) -> Reply:
    """Return the HTTP reply that reports ``error``: status, code, message, and headers such as Retry-After."""
    status, code = _status(error)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, e.Overloaded | e.Unavailable | e.FunctionDisabled):
        headers = ((b"retry-after", b"%d" % error.retry_after),)
    if isinstance(error, e.Unauthorized):
        headers = ((b"www-authenticate", b"SDK-HMAC-SHA256"),)
    if isinstance(error, e.CallTimedOut) and error.request_id:
        headers = ((b"x-cff-request-id", error.request_id.encode()),)
    return problem(status, code, str(error), headers)


def problem(status: int, code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """Return an error reply in the API's JSON form, with a new request id in its headers.

    The vendor's SDK puts this id into its exception. Replies about workflow metrics (codes FGS.*) repeat it in the
    body, as the FunctionGraph API does.
    """
    request_id = str(uuid.uuid4())
    shown = {"error_code": code, "error_msg": message}
    if code.startswith("FGS."):
        shown["request_id"] = request_id
    headers = ((b"x-request-id", request_id.encode()), *headers)
    return Reply(status=status, body=msgspec.json.encode(shown), headers=headers)


def _status(error: e.FunctiondError) -> tuple[int, str]:
    if (status := trigger_status(error)) is not None:
        return status
    kind = next(kind for kind in type(error).__mro__ if kind in _TABLE or kind is e.InvalidField)
    if kind is e.InvalidField and isinstance(error, e.InvalidField):
        return 400, _FIELDS.get(error.field.partition(".")[0].partition("[")[0], "FSS.0400")
    return _TABLE[kind]
