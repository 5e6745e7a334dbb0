"""HTTP status and FSS code of trigger errors, by the kind of the trigger (error codes of the FunctionGraph API)."""

from __future__ import annotations

from msgspec import Struct

from engine import errors as e

Status = tuple[int, str]


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
_FIELDS = {
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
            code = _FIELDS.get((error.kind, error.field))
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
