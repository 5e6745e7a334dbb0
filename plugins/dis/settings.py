"""``[plugins.dis]``: embedded streams, or a remote endpoint."""

from __future__ import annotations

from plugins._shared.endpoint import EndpointSettings


class DisSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of DIS. Without an endpoint, the engine serves streams itself."""
