"""The limits that the API documents (spec functiongraph_api, sections 4, 5 and 9), each in one place.

The types carry their limit: shapes that name them refuse other values, and the OpenAPI document tells them.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from msgspec import Meta

from engine.model.urn import NAME

#: MB
Memory = Literal[128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096, 8192, 10240]
MEMORY_SIZES: tuple[int, ...] = get_args(Memory)
TIMEOUTS = (3, 259_200)  #: seconds
INSTANCES = (-1, 1_000)  #: of a function; -1 means any number, 0 none
REQUESTS = (1, 1_000)  #: that one instance serves at a time
INITIALIZER_TIMEOUTS = (1, 300)  #: seconds
PRE_STOP_TIMEOUTS = (1, 90)  #: seconds
DESCRIPTION = 512  #: characters
HANDLER = 128  #: characters
EVENT_AGES = (1, 86_400)  #: seconds
RETRIES = (0, 3)

FILE_NAME = 255  #: characters
LINK = 2_048  #: characters; a key of an object has 1024 bytes
LABEL = 256  #: characters of what names a log
PARAM = 8_192  #: characters of a destination's parameters

NAME_RULE = "needs a letter, then up to 59 letters, digits, - and _"

Name = Annotated[str, Meta(pattern=f"^{NAME.pattern}$", description=NAME_RULE)]
Handler = Annotated[str, Meta(max_length=HANDLER)]
Timeout = Annotated[int, Meta(ge=TIMEOUTS[0], le=TIMEOUTS[1])]
Instances = Annotated[int, Meta(ge=INSTANCES[0], le=INSTANCES[1])]
Requests = Annotated[int, Meta(ge=REQUESTS[0], le=REQUESTS[1])]
InitializerTimeout = Annotated[int, Meta(ge=INITIALIZER_TIMEOUTS[0], le=INITIALIZER_TIMEOUTS[1])]
#: 0 means that there is none, as Terraform writes it.
RestoreHookTimeout = Annotated[int, Meta(ge=0, le=INITIALIZER_TIMEOUTS[1])]
PreStopTimeout = Annotated[int, Meta(ge=PRE_STOP_TIMEOUTS[0], le=PRE_STOP_TIMEOUTS[1])]
FileName = Annotated[str, Meta(max_length=FILE_NAME)]
Link = Annotated[str, Meta(max_length=LINK)]
Label = Annotated[str, Meta(max_length=LABEL)]
Param = Annotated[str, Meta(max_length=PARAM, description=f"must be a text of JSON, of up to {PARAM} characters")]
Description = Annotated[str, Meta(max_length=DESCRIPTION)]
EventAge = Annotated[int, Meta(ge=EVENT_AGES[0], le=EVENT_AGES[1])]
Retries = Annotated[int, Meta(ge=RETRIES[0], le=RETRIES[1])]
Percent = Annotated[int, Meta(ge=0, le=100)]
