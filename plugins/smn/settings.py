"""``[plugins.smn]``: the embedded topics or a real endpoint, and whose pushes are believed."""

from __future__ import annotations

from plugins._shared.endpoint import EndpointSettings


class SmnSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without an endpoint, the engine serves topics itself."""

    #: Where certificates of pushed messages may lie, and confirmations go: public hosts, by https.
    hosts: tuple[str, ...] = ()
    #: The same of hosts with private addresses, also by plain http: who can change what they say can forge messages.
    private_hosts: tuple[str, ...] = ()
    ca_file: str = ""  #: certificates of authorities that hosts are known by, beside the usual ones
