"""``[plugins.smn]``: embedded topics or a remote endpoint, and the hosts for messages that remote topics push."""

from __future__ import annotations

from plugins._shared.endpoint import EndpointSettings


class SmnSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of SMN. Without an endpoint, the engine serves topics itself."""

    #: public hosts of certificates and of subscription confirmations; https only
    hosts: tuple[str, ...] = ()
    #: the same with private addresses, or by plain http; an attacker who controls their answers can forge messages
    private_hosts: tuple[str, ...] = ()
    ca_file: str = ""  #: certificates of authorities for these hosts, in addition to the default ones
