"""``[plugins.dis]``: the embedded stream, or a real endpoint."""

from __future__ import annotations

from plugins._shared.endpoint import EndpointSettings


class DisSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without an endpoint, the engine serves streams itself."""
