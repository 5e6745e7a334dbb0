"""Kinds of fields that the options of several services share."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Text = Annotated[str, Meta(min_length=1, max_length=255)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
#: ``host:port``, and nothing more: client libraries would take whole URLs, whose options may name files.
Address = Annotated[str, Meta(max_length=255, pattern=r"^[A-Za-z0-9._:\[\]-]+\Z")]
#: Several with commas, or none.
Addresses = Annotated[str, Meta(max_length=1024, pattern=r"^[A-Za-z0-9._:\[\], -]*\Z")]
Affix = Annotated[str, Meta(max_length=1024)]  #: what an object's key begins or ends with
UpTo1000 = Annotated[int, Meta(ge=1, le=1_000)]
UpTo10000 = Annotated[int, Meta(ge=1, le=10_000)]
#: Taken, kept, and shown to nobody.
Secret = Annotated[str, Meta(max_length=1024, extra={"secret": True})]
NeededSecret = Annotated[str, Meta(min_length=1, max_length=1024, extra={"secret": True})]

#: Bytes that one event of a source that makes batches may have (spec triggers_runtime, 1.0): what makes a larger one is
#: thrown away.
EVENT_LIMIT = 6 << 20
