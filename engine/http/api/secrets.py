"""Masking of secrets in audit traces and errors, and removal of them from replies to roles that may not see them.

A value counts as secret if the name of its field says so, such as ``password`` or ``token``. Replies also lose
environment variables, and URLs everything after their host, because paths and queries of URLs are often credentials
themselves.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from engine.model.text import MASK

TEXT = 1024  #: characters after which a text is cut

_SECRET = re.compile(r"passw|secret|token|credential|private|_sk$|_ak$|access_key|kafka_key|user_data", re.IGNORECASE)
ENVIRONMENT = frozenset({"user_data", "encrypted_user_data"})
#: Texts for people; URLs in them are no credentials.
PROSE = frozenset({"description", "version_description"})
PARAM = "param"  #: of a destination: the text of a JSON object
#: URL in a text: scheme, then user and password if any, then host; the rest is removed. The length of the scheme is
#: limited, so that the time of a search is proportional to the text.
_URL = re.compile(r"\b([a-z][a-z0-9+.-]{0,20}://)(?:[^\s/?#\\\"']*@)?([^\s/?#@\\\"']*)([/?#\\]\S*)?", re.IGNORECASE)
#: Host of a URL, or several, with punctuation of a sentence after it. Anything else may be a part of a password.
_HOST = re.compile(r"(?:[\w.-]*+|\[[0-9a-f:.]+\])(?::\d++)?(?:,[\w.-]++(?::\d++)?)*[).,:;!]*", re.IGNORECASE)


def is_secret(name: str) -> bool:
    return bool(_SECRET.search(name))


def without_secrets(value: Any) -> Any:
    """Return a copy of a JSON value without secrets.

    Values of fields with secret names are masked, and other texts are cut after ``TEXT`` characters.
    """
    if isinstance(value, dict):
        return {name: MASK if is_secret(name) else without_secrets(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return f"{value[:TEXT]}..." if isinstance(value, str) and len(value) > TEXT else value


def without_credentials(value: Any) -> Any:
    """Return a copy of a JSON value without environment variables and credentials."""
    if isinstance(value, dict):
        return {name: _field(name, item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_credentials(item) for item in value]
    return _URL.sub(_only_host, value) if isinstance(value, str) and "://" in value else value


def param_shown(param: str) -> str:
    """Return the parameters of a destination, the text of a JSON object, without credentials; masked if it is none."""
    try:
        return msgspec.json.encode(without_credentials(msgspec.json.decode(param))).decode()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return MASK if param else ""


def _field(name: str, value: Any) -> Any:
    if name in ENVIRONMENT:
        return ""
    if name in PROSE:
        return value
    if name == PARAM and isinstance(value, str):
        return param_shown(value)
    if is_secret(name) and isinstance(value, str | list | dict):
        return MASK if value else value
    return without_credentials(value)


def _only_host(match: re.Match[str]) -> str:
    scheme, host, rest = match.groups()
    if not _HOST.fullmatch(host):
        return f"{scheme}{MASK}"
    return f"{scheme}{host}/{MASK}" if rest and rest != "/" else f"{scheme}{host}{rest or ''}"
