"""Bodies and queries of requests to the topics that the engine serves itself, as the vendor's SDK sends them.

The SDK is huaweicloudsdksmn v2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from plugins.smn.problems import SmnProblem, bad_request

SUBJECT_LIMIT = 512  #: bytes
MESSAGE_LIMIT = 256 << 10  #: bytes
TAGS = 20  #: tags of a topic
LONGEST = 86_400  #: maximum of ``time_to_live`` in seconds
#: Protocols that stand for functions in ``message_structure`` and in attributes of type PROTOCOL.
PROTOCOLS = ("functionstage", "functiongraph")

TopicName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,254}\Z")]
DisplayName = Annotated[str, Meta(max_length=192)]
PageSize = Annotated[int, Meta(ge=1, le=100)]
Offset = Annotated[int, Meta(ge=0)]


class CreateTopic(Struct, frozen=True, kw_only=True):
    name: TopicName
    display_name: DisplayName | None = None
    enterprise_project_id: Annotated[str, Meta(max_length=64)] | None = None


class UpdateTopic(Struct, frozen=True, kw_only=True):
    """Body of a PUT request. Terraform leaves out an empty ``display_name``."""

    display_name: DisplayName = ""


class ListTopics(Struct, frozen=True, kw_only=True):
    offset: Offset = 0
    limit: PageSize = 100
    name: str = ""
    fuzzy_name: str = ""
    topic_id: str = ""
    fuzzy_display_name: str = ""
    enterprise_project_id: str = ""


class ListAttributes(Struct, frozen=True, kw_only=True):
    name: str = ""


class UpdateAttribute(Struct, frozen=True, kw_only=True):
    value: str


class Tag(Struct, frozen=True, kw_only=True):
    key: Annotated[str, Meta(min_length=1, max_length=128)]
    value: Annotated[str, Meta(max_length=256)] | None = None


class CreateTag(Struct, frozen=True, kw_only=True):
    tag: Tag


class ChangeTags(Struct, frozen=True, kw_only=True):
    action: Literal["create", "delete"]
    tags: Annotated[list[Tag], Meta(min_length=1, max_length=TAGS)]


class ListSubscriptions(Struct, frozen=True, kw_only=True):
    offset: Offset = 0
    limit: PageSize = 100


class Attribute(Struct, frozen=True, kw_only=True):
    name: Annotated[str, Meta(pattern=r"^(?!.*__)[a-z0-9](?:[a-z0-9_]{0,30}[a-z0-9])?\Z")]
    type: Literal["STRING", "STRING_ARRAY", "PROTOCOL"]
    value: str | list[str]

    def __post_init__(self) -> None:
        if isinstance(self.value, str) is not (self.type == "STRING"):
            raise ValueError(f"the value of {self.name} must be {'a text' if self.type == 'STRING' else 'a list'}")


class Publish(Struct, frozen=True, kw_only=True):
    subject: str | None = None
    message: str | None = None
    message_structure: str | None = None
    message_template_name: str | None = None
    time_to_live: str | int | None = None
    message_attributes: list[Attribute] | None = None

    def check(self) -> None:
        """Raise SmnProblem unless subject and ``time_to_live`` are valid.

        A template raises SmnProblem, too, but is ignored if there is a ``message_structure``.
        """
        if len((self.subject or "").encode()) > SUBJECT_LIMIT:
            raise SmnProblem("SMN.0008", f"Parameter: Subject is invalid. It may have {SUBJECT_LIMIT} bytes", 403)
        if self.message_template_name and not self.message_structure:
            hint = "Embedded topics have no templates: send message or message_structure"
            raise bad_request(f"Parameter: message_template_name is invalid. {hint}", "SMN.0032")
        life = str(self.time_to_live or LONGEST)
        if not (life.isascii() and life.isdigit() and len(life) <= 5 and 0 < int(life) <= LONGEST):
            raise bad_request(f"Parameter: time_to_live is invalid. It may be 1 to {LONGEST} seconds")

    def text(self) -> str:
        """Return the text for functions.

        Raises SmnProblem if ``message_structure`` is invalid, or if the text is empty or too long.
        """
        text = self._structured(self.message_structure) if self.message_structure else self.message or ""
        if not 0 < len(text.encode()) <= MESSAGE_LIMIT:
            raise SmnProblem("SMN.0009", f"Parameter: Message is invalid. It must have 1 to {MESSAGE_LIMIT} bytes", 403)
        return text

    def attributes(self) -> Mapping[str, Any] | None:
        if not self.message_attributes:
            return None
        return {one.name: {"type": one.type, "value": one.value} for one in self.message_attributes}

    @property
    def calls(self) -> bool:
        """Flag that functions get the message: False if an attribute of type PROTOCOL lists other protocols only."""
        chosen = [one.value for one in self.message_attributes or () if one.type == "PROTOCOL"]
        return all(any(protocol in value for protocol in PROTOCOLS) for value in chosen)

    @staticmethod
    def _structured(structure: str) -> str:
        try:
            by_protocol = msgspec.json.decode(structure, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise bad_request(f"MessageStructure is invalid. {error}", "SMN.0021") from None
        if not isinstance(by_protocol.get("default"), str):
            raise bad_request("MessageStructure is invalid. It needs a text as default", "SMN.0021")
        names: Sequence[str] = [*PROTOCOLS, "default"]
        return next(text for name in names if isinstance(text := by_protocol.get(name), str))
