"""Events for changes of documents (FunctionGraph's documented DDS and GAUSSMONGO events).

Import this module only where a source runs, since it imports the client library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import bson
import msgspec
import structlog
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from msgspec import Struct

from engine import Event
from plugins._shared.batches import packed

log = structlog.get_logger("functiond.plugins.dds")

#: Decodes also what servers accept and Python cannot represent: dates out of range, and invalid UTF-8.
READABLE: CodecOptions[Mapping[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)
#: ``event_source`` of each kind of trigger
SOURCES = {"DDS": "dds", "GAUSSMONGO": "gauss_mongo"}


class Change(Struct, frozen=True, kw_only=True):
    """Decoded item of a change stream: the change of one document or of the whole collection."""

    document: Mapping[str, Any]
    size: int  #: bytes, as BSON

    @property
    def operation(self) -> str:
        name: str = self.document["operationType"]
        return name

    @property
    def made_at(self) -> float:
        """Time when the change was made; infinite if the server does not report it (MongoDB before version 6)."""
        at = self.document.get("wallTime")
        return at.replace(tzinfo=UTC).timestamp() if isinstance(at, datetime) else math.inf

    @property
    def token(self) -> str:
        return extended_json(self.document["_id"])


def change_of(raw: bytes) -> Change:
    """Decode the BSON of a change. Parts that cannot be decoded are left out."""
    try:
        document = bson.decode(raw, READABLE)
    except InvalidBSON:
        document = dict(_readable_parts(raw))
    return Change(document=document, size=len(raw))


def _readable_parts(raw: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a BSON document that can be decoded, and log the names of the others.

    Servers accept values that clients cannot decode, such as a UUID of three bytes.
    """
    for name, value in RawBSONDocument(raw, READABLE.with_options(document_class=RawBSONDocument)).items():
        try:
            yield name, bson.decode(value.raw, READABLE) if isinstance(value, RawBSONDocument) else value
        except InvalidBSON as error:
            log.warning("part of a change cannot be read", part=name, problem=str(error))


def extended_json(value: Mapping[str, Any]) -> str:
    return json_util.dumps(value, json_options=json_util.RELAXED_JSON_OPTIONS, ensure_ascii=False)


class EventEncoder(Struct, frozen=True, kw_only=True):
    """Encoder that combines changes to the JSON of events."""

    kind: str
    region: str
    source_id: str  #: uuid
    database: str
    collection: str
    limit: int  #: bytes of an event, unless one change needs more

    def events(self, changes: Iterable[Change]) -> list[Event]:
        """Return events that hold the changes in their order: as few as the limit on an event's size allows."""
        records = [(self._record(change), self._end(change.token)) for change in changes]
        room = self.limit - len(_HEAD) - max((len(end) for _, end in records), default=0) + 1
        groups = packed(records, lambda pair: len(pair[0]) + 1, room)
        return [Event(payload=_HEAD + b",".join(record for record, _ in some) + some[-1][1]) for some in groups]

    def _end(self, token: str) -> bytes:
        """Return the last part of an event's JSON.

        Events of GAUSSMONGO contain the resume token of their last change.
        """
        return b"]}" if self.kind == "DDS" else b'],"vernier":%b}' % msgspec.json.encode(token)

    def _record(self, change: Change) -> bytes:
        source, document = SOURCES[self.kind], change.document
        # A change without the document has its key, unless it concerns a whole collection.
        full = document.get("fullDocument") or document.get("documentKey") or {}
        return msgspec.json.encode(
            {
                "event_source": source,
                "event_name": change.operation,
                "region": self.region,
                "event_version": "1.0",
                source: {
                    "size_bytes": str(change.size),
                    "token": change.token,
                    "full_document": extended_json(full),
                    "ns": json.dumps(
                        document.get("ns") or {"db": self.database, "coll": self.collection}, ensure_ascii=False
                    ),
                },
                "event_source_id": self.source_id,
            }
        )


_HEAD = b'{"records":['
