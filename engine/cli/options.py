"""Parameters that several commands have, with their help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

_PLAIN = Parameter(negative="", show_default=False)
Flag = Annotated[bool, _PLAIN]
Raw = Annotated[Flag, Parameter(help="Print control characters unchanged. Only for files and pipes.")]
Json = Annotated[Flag, Parameter(help="Print JSON only.")]
Texts = Annotated[tuple[str, ...], _PLAIN]
Codes = Annotated[tuple[int, ...], _PLAIN]
ConfigFile = Annotated[Path | None, Parameter(env_var="FUNCTIOND_CONFIG", help="TOML file with settings.")]
Function = Annotated[str, Parameter(help="Name or URN of the function.")]
