"""``[plugins.dis]``: the embedded stream, or a real endpoint."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, Struct

_ENDPOINT = re.compile(r"https?://([\w.-]+|\[[0-9a-f:]+\])(:\d{1,5})?/?", re.ASCII)


class DisSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    endpoint: str = ""  #: of a DIS elsewhere; without, the engine serves streams itself
    project_id: str = ""  #: there; that of the function if empty
    access_key: str = ""
    secret_key: str = ""
    timeout: Annotated[float, Meta(gt=0, le=300)] = 30.0  #: seconds for one request

    def __post_init__(self) -> None:
        if self.endpoint and not _ENDPOINT.fullmatch(self.endpoint):
            raise ValueError("endpoint must look like https://dis.region.host or http://127.0.0.1:8000")
        if bool(self.access_key) != bool(self.secret_key):
            raise ValueError("access_key and secret_key go together")

    def __repr__(self) -> str:
        return f"DisSettings(endpoint={self.endpoint!r}, project_id={self.project_id!r})"
