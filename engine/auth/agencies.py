"""Agencies: credentials for other services, which functions get that name one (``xrole``, ``app_xrole``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, Struct

from engine.model import Function

_Key = Annotated[str, Meta(min_length=1, max_length=8192, pattern=r"^[!-~]+\Z")]


class Agency(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    access_key: _Key
    secret_key: _Key
    security_token: Annotated[str, Meta(max_length=8192, pattern=r"^[!-~]*\Z")] = ""  #: only of temporary keys
    projects: tuple[str, ...]  #: whose functions get the keys; ``*``: those of all

    def __repr__(self) -> str:
        return f"Agency(access_key={self.access_key!r}, projects={self.projects!r})"

    def is_for(self, project: str) -> bool:
        return not {"*", project}.isdisjoint(self.projects)


def agency_of(agencies: Mapping[str, Agency], function: Function) -> Agency | None:
    """Return the agency with which a function runs; None if there is none by this name for its project."""
    details = function.details
    agency = agencies.get(str(details.get("app_xrole") or details.get("xrole") or ""))
    return agency if agency is not None and agency.is_for(function.project) else None
