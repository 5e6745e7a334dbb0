"""Clients of the API that need replies of a form of their own, by their User-Agent."""

from __future__ import annotations

from collections.abc import Mapping

#: The HTTP client of the Terraform provider. It adds its name to any User-Agent.
_TERRAFORM = b"golangsdk/"


def is_terraform(headers: Mapping[bytes, bytes]) -> bool:
    return _TERRAFORM in headers.get(b"user-agent", b"")
