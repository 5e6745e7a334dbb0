"""``[plugins.smn]``: topics that the engine serves itself, or a remote endpoint.

Settings also list the hosts from which certificates of remote topics' messages may be downloaded, and at which
subscriptions to remote topics may be confirmed.
"""

from __future__ import annotations

from plugins._shared.endpoint import EndpointSettings


class SmnSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of SMN. If ``endpoint`` is empty, the engine serves topics itself."""

    #: public hosts of certificates and of subscription confirmations; https only
    hosts: tuple[str, ...] = ()
    #: the same with private addresses, or by plain http; an attacker who controls their answers can forge messages
    private_hosts: tuple[str, ...] = ()
    ca_file: str = ""  #: certificates of authorities for these hosts, in addition to the default ones
