"""Types of option fields that the triggers of several services share."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

HIDDEN = Meta(extra={"hidden": True})  #: marks fields that forms leave out
Text = Annotated[str, Meta(min_length=1, max_length=255)]
Optional = Annotated[str, Meta(max_length=255)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
#: ``host:port`` only: client libraries also accept URLs, whose options may name files
Address = Annotated[str, Meta(max_length=255, pattern=r"^[A-Za-z0-9._:\[\]-]+\Z")]
#: several addresses with commas, or none
Addresses = Annotated[str, Meta(max_length=1024, pattern=r"^[A-Za-z0-9._:\[\], -]*\Z")]
Affix = Annotated[str, Meta(max_length=1024)]  #: beginning or end of an object's key
UpTo1000 = Annotated[int, Meta(ge=1, le=1_000)]
UpTo10000 = Annotated[int, Meta(ge=1, le=10_000)]
#: stored, and never returned by the API
Secret = Annotated[str, Meta(max_length=1024, extra={"secret": True})]
NeededSecret = Annotated[str, Meta(min_length=1, max_length=1024, extra={"secret": True})]
