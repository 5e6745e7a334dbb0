"""Options of an OBS trigger: bucket, event types, prefix and suffix of keys; and the table ``[plugins.obs]``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct, field

from engine import InvalidField
from plugins._shared.fields import Affix, Shared
from plugins._shared.http_client import ENDPOINT

CREATED = ("Put", "Post", "Copy", "CompleteMultipartUpload")
REMOVED = ("Delete", "DeleteMarkerCreated")
GROUPS: Mapping[str, tuple[str, ...]] = {"ObjectCreated": CREATED, "ObjectRemoved": REMOVED}
Bucket = Annotated[str, Meta(min_length=1, max_length=64, extra={"fixed": True})]


class ObsOptions(Struct, frozen=True, kw_only=True):
    bucket: Annotated[Bucket, Meta(examples=["in"])]
    events: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            examples=["s3:ObjectCreated:*"],
            extra={
                "help": "ObjectCreated or ObjectRemoved for all of a group, or Put, Post, Copy, "
                "CompleteMultipartUpload, Delete, DeleteMarkerCreated."
            },
        ),
    ]
    prefix: Annotated[Affix, Meta(examples=["in/"], extra={"help": "Beginning of the keys that match."})] = ""
    suffix: Annotated[Affix, Meta(examples=[".jpg"], extra={"help": "End of the keys that match."})] = ""
    name: Annotated[str, Meta(max_length=64, extra={"help": "Empty: the trigger's id."})] = ""

    def __post_init__(self) -> None:
        wanted: set[str] = set()
        for event in self.events:
            members = _members(event)
            if not wanted.isdisjoint(members):
                raise InvalidField("events", event, "overlaps with another of the events")
            wanted.update(members)

    @property
    def wanted(self) -> frozenset[str]:
        """Event types that call the function, as S3's records spell them, such as ``ObjectCreated:Put``."""
        return frozenset(name for event in self.events for name in _members(event))


def _members(event: str) -> Iterable[str]:
    """Return the event types that a spelling in the options stands for. Raises InvalidField for an unknown spelling.

    Accepted spellings are, for example, ``s3:ObjectCreated:*``, ``ObjectCreated``, ``ObjectCreated:Put`` and ``Put``.
    """
    group, _, member = event.removeprefix("s3:").partition(":")
    if group in GROUPS and member in ("", "*"):
        return [f"{group}:{name}" for name in GROUPS[group]]
    for prefix, names in GROUPS.items():
        if (group == prefix and member in names) or (not member and group in names):
            return [f"{prefix}:{member or group}"]
    raise InvalidField("events", event, f"must be one of {', '.join((*GROUPS, *CREATED, *REMOVED))}")


def conflicts(mine: ObsOptions, other: ObsOptions, same_function: bool) -> bool:
    """Return whether two triggers must not exist together.

    A bucket may call one function only, and no event of an object may match two triggers of the bucket.
    """
    if mine.bucket != other.bucket:
        return False
    if not same_function:
        return True
    overlap = mine.prefix.startswith(other.prefix) or other.prefix.startswith(mine.prefix)
    overlap = overlap and (mine.suffix.endswith(other.suffix) or other.suffix.endswith(mine.suffix))
    return overlap and not mine.wanted.isdisjoint(other.wanted)


def subject(options: ObsOptions) -> str:
    keys = f"/{options.prefix}*{options.suffix}" if options.prefix or options.suffix else ""
    return f"{options.bucket}{keys}: {', '.join(options.events)}"


class ObsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[plugins.obs]``: a store with the S3 protocol, or a folder that has a subfolder for each bucket."""

    endpoint: str = ""  #: http or https URL; with a port unless it is the default one
    access_key: str = ""
    secret_key: str = ""
    region: str = "us-east-1"  #: region in signatures
    path_style: bool = False  #: bucket in the path; otherwise in the host name, unless that is an IP address
    timeout: Annotated[float, Meta(gt=0)] = 100.0  #: seconds for a whole object
    folder: str = ""
    scan: Annotated[float, Meta(ge=0)] = 10.0  #: seconds between lists of a trigger's bucket; 0: notifications only
    token: str = ""  #: token of posted notifications; empty: they need the engine's own credentials
    buckets: dict[str, Shared] = field(default_factory=dict)  #: by name, ``*`` for all others
    confirm_hosts: tuple[str, ...] = ()  #: hosts (with port, if any) at which subscriptions are confirmed

    def __post_init__(self) -> None:
        if self.endpoint and self.folder:
            raise ValueError("give endpoint or folder, not both")
        if self.endpoint and not (self.access_key and self.secret_key):
            raise ValueError("endpoint needs access_key and secret_key")
        if self.endpoint and not ENDPOINT.fullmatch(self.endpoint):
            raise ValueError("endpoint must look like https://obs.region.host or http://127.0.0.1:8333")

    def __repr__(self) -> str:
        return f"ObsSettings(endpoint={self.endpoint!r}, folder={self.folder!r})"

    @property
    def configured(self) -> bool:
        return bool(self.endpoint or self.folder)

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).hostname or ""
