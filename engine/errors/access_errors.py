"""Errors of access control.

FunctiondError
├── Forbidden
│   └── AccessDenied             credentials of another project or role, or a foreign web page
├── Overloaded
│   └── TooManyFailures          too many refusals of wrong credentials are delayed already
├── Unauthorized                 credentials are wrong; the refusal may have to be delayed
│   └── MissingCredentials
└── Unavailable
    └── TooManyUnproven          bodies that are not authenticated yet fill the space for them
"""

from __future__ import annotations

from engine.errors.errors import Forbidden, FunctiondError, Overloaded, Unavailable


class Unauthorized(FunctiondError):
    """Missing or wrong credentials. The message names the wrong part and never contains its value."""

    delay: float = 0.0  #: seconds by which the reply must be delayed, after many failures of this client


class MissingCredentials(Unauthorized):
    """No credentials in a request that needs them. No failed attempt, because no secret was guessed."""


class AccessDenied(Forbidden):
    """Request that these credentials, or this web page, may not make."""


class TooManyFailures(Overloaded):
    def __init__(self, retry_after: int) -> None:
        super().__init__("too many failed attempts to authenticate from this address", retry_after)


class TooManyUnproven(Unavailable):
    def __init__(self, limit: int) -> None:
        super().__init__(
            f"bodies whose signatures are not verified yet fill {limit >> 20} MiB; retry later, or declare the hash of "
            "the body in X-Sdk-Content-Sha256",
            retry_after=5,
        )
