"""``[plugins.dis]``: streams that the engine serves itself, or those of a remote endpoint."""

from __future__ import annotations

from plugins._shared.endpoint import EndpointSettings


class DisSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of DIS. If ``endpoint`` is empty, the engine serves streams itself."""
