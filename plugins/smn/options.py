"""Options of an SMN trigger (FunctionGraph API: CreateFunctionTrigger), and the table ``[plugins.smn]``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from plugins._shared.fields import Text
from plugins._shared.http_client import EndpointSettings


class SmnOptions(Struct, frozen=True, kw_only=True):
    topic_urn: Annotated[
        Text, Meta(examples=["urn:smn:local-1:default:orders"], extra={"help": "URN, or the ARN of an SNS topic."})
    ]


class SmnSettings(EndpointSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of SMN. If ``endpoint`` is empty, the engine serves topics itself."""

    #: public hosts of certificates and of subscription confirmations; https only
    hosts: tuple[str, ...] = ()
    #: the same with private addresses, or by plain http; an attacker who controls their answers can forge messages
    private_hosts: tuple[str, ...] = ()
    ca_file: str = ""  #: certificates of authorities for these hosts, in addition to the default ones
