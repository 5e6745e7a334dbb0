"""Credentials files of engines."""

from __future__ import annotations

import json
from pathlib import Path


def credentials_file(folder: Path, *tables: str) -> dict[str, str]:
    """Write a credentials file to ``folder``. Return the setting that names it, as an environment variable."""
    file = folder / "credentials.toml"
    file.touch(0o600)
    file.write_text("".join(tables))
    return {"FUNCTIOND_AUTH__FILE": str(file)}


def key(access: str, secret: str, project: str, **more: object) -> str:
    return _table("keys", access=access, secret=secret, project=project, **more)


def token(text: str, project: str, **more: object) -> str:
    return _table("tokens", token=text, project=project, **more)


def _table(name: str, **fields: object) -> str:
    return f"[[{name}]]\n" + "".join(f"{field} = {json.dumps(value)}\n" for field, value in fields.items())
