"""HTTP status and FSS code of each error (error codes of the FunctionGraph API), and error replies of the API.

The HTTP status of a class is in ``engine.asgi.error_replies``. Status and code of trigger errors depend on the kind of
the trigger.
"""

from __future__ import annotations

from msgspec import Struct

from engine import errors as e
from engine.asgi.error_replies import STATUSES, general_code, problem, retry_after, status_of
from engine.asgi.wire import Reply

#: Codes of error classes. All other classes have the general code of their status.
_CODES: dict[type[e.FunctiondError], str] = {
    e.CodeMissing: "FSS.1012",
    e.BadLink: "FSS.1010",
    e.NoInterpreter: "FSS.1005",
    e.TooManyVariables: "FSS.1017",
    e.VariablesTooLarge: "FSS.1018",
    e.BadQuery: "FSS.1001",
    e.BadEvent: "FSS.1074",
    e.BadDependency: "FSS.1024",
    e.BadMetricQuery: "FGS.3002",
    e.TooManyReserved: "FSS.1076",
    e.BadExtraVersion: "FSS.1091",
    e.BadWeight: "FSS.1092",
    e.SameVersion: "FSS.1093",
    e.NothingToPublish: "FSS.1016",
    e.CodePackageTooLarge: "FSS.1071",
    e.InlineCodeTooLarge: "FSS.1072",
    e.UnknownFunction: "FSS.1051",
    e.UnknownVersion: "FSS.1052",
    e.UnknownAlias: "FSS.1053",
    e.ObjectMissing: "FSS.1054",
    e.UnknownEvent: "FSS.1070",
    e.UnknownDependency: "FSS.1056",
    e.NamelessConfig: "FSS.1057",
    e.FunctionExists: "FSS.1061",
    e.FunctionOfApp: "FSS.1067",
    e.DependencyExists: "FSS.1065",
    e.VersionExists: "FSS.1062",
    e.AliasExists: "FSS.1063",
    e.VersionTaken: "FSS.1066",
    e.TooManyFunctions: "FSS.1041",
    e.CodeQuotaExceeded: "FSS.1042",
    e.TooManyEvents: "FSS.1068",
    e.TooManyDependencies: "FSS.1045",
    e.EventTooLarge: "FSS.1069",
    e.EventExists: "FSS.1073",
    e.DependencyInUse: "FSS.1033",
    e.TooManyAliases: "FSS.1043",
    e.VersionInUse: "FSS.1094",
    e.AliasInUse: "FSS.1154",
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
Status = tuple[int, str]


def error_codes() -> list[tuple[str, int, str]]:
    """Return a name, HTTP status and FSS code for each error of the API, sorted by status and code.

    Errors of triggers are not included.
    """
    rows = [(kind.__name__, status_of(kind), _code_of(kind)) for kind in {**STATUSES, **_CODES}]
    fields = [(f"Invalid field `{field}`", 400, code) for field, code in _FIELDS.items()]
    return sorted(rows + fields, key=lambda row: row[1:])


def error_reply(error: e.FunctiondError) -> Reply:
    """Return the HTTP reply that reports ``error``: status, code, message, and headers such as Retry-After."""
    status, code = status_and_code(error)
    headers = retry_after(error)
    if isinstance(error, e.Unauthorized):
        headers = ((b"WWW-Authenticate", b"SDK-HMAC-SHA256"),)
    if isinstance(error, e.CallTimedOut) and error.request_id:
        headers = ((b"X-Cff-Request-Id", error.request_id.encode()),)
    # Replies about workflow metrics repeat the request id in the body, as the FunctionGraph API does.
    return problem(status, str(error), headers, code=code, repeat_id=isinstance(error, e.BadMetricQuery))


def status_and_code(error: e.FunctiondError) -> tuple[int, str]:
    """Return the HTTP status and the FSS code of an error."""
    if (known := trigger_status(error)) is not None:
        return known
    code = _code_of(type(error))
    if isinstance(error, e.InvalidField) and code == general_code(400):
        code = _FIELDS.get(error.field.partition(".")[0].partition("[")[0], code)
    return status_of(type(error)), code


def _code_of(kind: type[e.FunctiondError]) -> str:
    return next((_CODES[base] for base in kind.__mro__ if base in _CODES), general_code(status_of(kind)))


class _Codes(Struct, frozen=True, kw_only=True):
    invalid: Status = (400, "FSS.0400")
    missing: Status = (404, "FSS.1131")
    exists: Status = (409, "FSS.0409")
    conflicts: Status = (409, "FSS.0409")
    too_many: Status = (403, "FSS.1123")


def _codes(invalid: int, missing: int, exists: int, conflicts: Status = (409, "FSS.0409")) -> _Codes:
    return _Codes(
        invalid=(400, f"FSS.{invalid}"),
        missing=(404, f"FSS.{missing}"),
        exists=(409, f"FSS.{exists}"),
        conflicts=conflicts,
    )


_PATH_TAKEN = (409, "FSS.1147")
_KINDS = {
    "SMN": _codes(1102, 1132, 1141),
    "DMS": _codes(1103, 1133, 1142),
    "DIS": _codes(1104, 1134, 1143),
    "OBS": _codes(1106, 1136, 1145, (403, "FSS.1108")),
    "APIG": _codes(1107, 1138, 1146, _PATH_TAKEN),
    "APIC": _codes(1107, 1138, 1146, _PATH_TAKEN),
    "DEDICATEDGATEWAY": _codes(1417, 1138, 1146, _PATH_TAKEN),
    "TIMER": _codes(1109, 1140, 1148),
    "LTS": _codes(1110, 1160, 1149),
    "KAFKA": _codes(1112, 1174, 1150),
    "OPENSOURCEKAFKA": _codes(1112, 1174, 1150),
    "DDS": _codes(1164, 1163, 1166),
    "GAUSSMONGO": _codes(1164, 1163, 1166),
    # FSS.1301, the code for a missing trigger, has status 400, which Terraform does not treat as "deleted".
    "CTS": _Codes(invalid=(400, "FSS.1305"), conflicts=(400, "FSS.1307"), too_many=(400, "FSS.1306")),
}
#: Fields with a code of their own.
_TRIGGER_FIELDS = {
    ("CTS", "event_data.operations"): "FSS.1318",
    ("KAFKA", "event_data.kafka_user"): "FSS.1113",
    ("KAFKA", "event_data.kafka_password"): "FSS.1113",
    ("OPENSOURCEKAFKA", "event_data.kafka_user"): "FSS.1113",
    ("OPENSOURCEKAFKA", "event_data.kafka_password"): "FSS.1113",
}
_OTHER = _Codes()


def trigger_status(error: e.FunctiondError) -> Status | None:
    """Return the HTTP status and the FSS code of a trigger error; None for any other error."""
    match error:
        case e.UnknownTriggerType():
            return 400, "FSS.1101"
        case e.NoTriggerType():
            return 404, "FSS.1137"
        case e.InvalidTrigger():
            code = _TRIGGER_FIELDS.get((error.kind, error.field))
            return (400, code) if code else _of(error.kind).invalid
        case e.UnknownTrigger():
            return _of(error.kind).missing
        case e.TriggerExists():
            return _of(error.kind).exists
        case e.TriggerClash():
            return _of(error.kind).conflicts
        case e.TooManyTriggers():
            return _of(error.kind).too_many
    return None


def _of(kind: str) -> _Codes:
    return _KINDS.get(kind.upper(), _OTHER)
