"""Mounts of file systems in a function, as requests of different clients write them, and as replies show them.

Mounts are stored without effect. Replies have the form that the platform documents:

    {"mount_user": {"user_id": -1, "user_group_id": -1}, "func_mounts": [{"mount_type": "sfs", ...}]}
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from engine.errors import InvalidField

_ANY = -1  #: the platform's default
MountId = Annotated[int, Meta(ge=_ANY, le=65_534)]


class MountUser(Struct, frozen=True, kw_only=True):
    """User and group that own mounted files. Terraform sends the second name of each number."""

    user_id: MountId | UnsetType = UNSET
    user_group_id: MountId | UnsetType = UNSET
    mount_user_id: MountId | UnsetType = UNSET
    mount_user_group_id: MountId | UnsetType = UNSET


class MountConfig(Struct, frozen=True, kw_only=True):
    """Mounts, and the user that owns their files. Terraform sends ``mount_config`` in place of ``func_mounts``."""

    mount_user: MountUser = MountUser()
    func_mounts: list[dict[str, Any]] | UnsetType = UNSET
    mount_config: list[dict[str, Any]] | UnsetType = UNSET


def mounts_shown(given: MountConfig) -> dict[str, Any]:
    """Return the mounts in the form of replies. Raises InvalidField if a user or group is 0, which is root."""
    user, mounts = given.mount_user, given.mount_config if given.func_mounts is UNSET else given.func_mounts
    return {
        "mount_user": {
            "user_id": _number("user_id", user.user_id, user.mount_user_id),
            "user_group_id": _number("user_group_id", user.user_group_id, user.mount_user_group_id),
        },
        "func_mounts": [] if mounts is UNSET else mounts,
    }


def _number(name: str, *given: int | UnsetType) -> int:
    number = next((one for one in given if isinstance(one, int)), _ANY)
    if not number:
        raise InvalidField(f"mount_config.mount_user.{name}", number, "must be -1 (any), or from 1 to 65534")
    return number
