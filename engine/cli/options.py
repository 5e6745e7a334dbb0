"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

_PLAIN = Parameter(negative="", show_default=False)
Flag = Annotated[bool, _PLAIN]
Raw = Flag  #: print control characters of functions unchanged
Texts = Annotated[tuple[str, ...], _PLAIN]
Codes = Annotated[tuple[int, ...], _PLAIN]
ConfigFile = Annotated[Path | None, Parameter(env_var="FUNCTIOND_CONFIG")]
