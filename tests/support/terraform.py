"""Fields of a function that the Terraform provider sends even if the Terraform configuration leaves them out."""

from __future__ import annotations

from typing import Any

#: In requests that create or update a function.
ALWAYS: dict[str, Any] = {
    "description": "",
    "enable_dynamic_memory": False,
    "is_stateful_function": False,
    "enterprise_project_id": "",
}
ONLY_UPDATES: dict[str, Any] = {
    "peering_cidr": "",
    "enable_auth_in_header": False,
    "enable_class_isolation": False,
    "heartbeat_handler": "",
    "restore_hook_handler": "",
    "restore_hook_timeout": 0,
}
