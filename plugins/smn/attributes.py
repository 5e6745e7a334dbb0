"""Attributes of topics: the access policy and the introduction.

Clients such as Terraform set and read them. They have no effect here, since only clients of a topic's own project reach
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from plugins.smn.problems import SmnProblem, bad_request

POLICY = "access_policy"
#: maximum sizes of values in bytes, by attribute
SIZES: Mapping[str, int] = {POLICY: 30 << 10, "introduction": 120}
VERSION = "2016-09-07"


def check_name(name: str) -> None:
    if name not in SIZES:
        hint = f"It must be one of {', '.join(SIZES)}"
        raise bad_request(f"Parameter: Attribute name is invalid. [{name[:300]}] {hint}", "SMN.0046")


def check_value(name: str, value: str) -> None:
    """Raise SmnProblem if there is no such attribute, or if it cannot have this value. Empty values are valid."""
    check_name(name)
    if len(value.encode()) > SIZES[name]:
        hint = f"{name} may have {SIZES[name]} bytes"
        raise SmnProblem(403, "SMN.0047", f"Parameter: Value exceeds the maximum length. {hint}")
    if name == POLICY and value:
        _check_policy(value)


def _check_policy(value: str) -> None:
    try:
        policy = msgspec.json.decode(value, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise bad_request(f"Parameter: Access policy is invalid. {error}", "SMN.0048") from None
    if policy.get("Version") != VERSION:
        raise bad_request(f"Parameter: Access policy version is invalid. It must be {VERSION}", "SMN.0049")
    if not (isinstance(policy.get("Id"), str) and policy["Id"]):
        raise bad_request("Parameter: Access policy ID is invalid. It must be a text", "SMN.0050")
    statements = policy.get("Statement")
    if not (isinstance(statements, list) and statements and all(isinstance(one, dict) for one in statements)):
        raise bad_request("Parameter: Access policy statement is invalid. It must be a list of objects", "SMN.0051")
