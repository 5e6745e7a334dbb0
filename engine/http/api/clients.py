"""Clients of the API that need replies of a form of their own, by their User-Agent.

The vendor's clients read ``error_code`` and ``next_marker`` in lists of asynchronous invocations in different ways, and
fail on the other one's form:

- The Terraform provider reads text.
- The SDKs, such as ``huaweicloud-usdk-go/3.0``, read integers, as the vendor documents them.

A client that does not name itself gets neither field. All of these clients accept a reply without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import UNSET, UnsetType

#: The HTTP client of the Terraform provider. It adds its name to any User-Agent.
_TERRAFORM = b"golangsdk/"
Number = int | str | UnsetType


def is_terraform(headers: Mapping[bytes, bytes]) -> bool:
    return _TERRAFORM in headers.get(b"user-agent", b"")


def number_form(headers: Mapping[bytes, bytes]) -> Callable[[int], Number]:
    """Return a function that gives a number the form which the client that sent ``headers`` reads."""
    if not headers.get(b"user-agent"):
        return lambda number: UNSET
    return str if is_terraform(headers) else int
