"""Removal of secrets and payloads from replies of the API to credentials that may not see them.

Values that a reply shows to the role admin are removed by the names of their fields: environment variables, and
credentials of triggers and destinations. URLs lose everything after their host, because paths and queries of URLs are
often credentials themselves.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec.structs import replace

from engine.asgi.wire import JSON, Reply
from engine.auth.roles import Principal
from engine.http.api.secrets import is_secret
from engine.model.text import MASK
from engine.protocols import Operation

ENVIRONMENT = frozenset({"user_data", "encrypted_user_data"})
#: Texts for people; URLs in them are no credentials.
PROSE = frozenset({"description", "version_description"})
PARAM = "param"  #: of a destination: the text of a JSON object
_PROJECTS = "/v2/"  #: start of the paths whose replies show objects of projects
#: URL in a text: scheme, then user and password if any, then host; the rest is removed. The length of the scheme is
#: limited, so that the time of a search is proportional to the text.
_URL = re.compile(r"\b([a-z][a-z0-9+.-]{0,20}://)(?:[^\s/?#\\\"']*@)?([^\s/?#@\\\"']*)([/?#\\]\S*)?", re.IGNORECASE)
#: Host of a URL, or several, with punctuation of a sentence after it. Anything else may be a part of a password.
_HOST = re.compile(r"(?:[\w.-]*|\[[0-9a-f:.]+\])(?::\d+)?(?:,[\w.-]+(?::\d+)?)*[).,:;!]*", re.IGNORECASE)


def redacted(reply: Reply, operation: Operation, principal: Principal) -> Reply:
    """Return the reply to an operation without what the principal may not see."""
    if reply.content_type != JSON or not reply.body or not operation.path.startswith(_PROJECTS):
        return reply
    hidden = () if principal.sees_payloads else operation.hidden.get(principal.role, ())
    if operation.hidden and not hidden:
        return reply
    value = msgspec.json.decode(reply.body)
    shown = _without(value, hidden) if hidden else without_credentials(value)
    return replace(reply, body=msgspec.json.encode(shown))


def _without(value: dict[str, Any], hidden: tuple[str, ...]) -> dict[str, Any]:
    return {name: one for name, one in value.items() if name not in hidden}


def without_credentials(value: Any) -> Any:
    """Return a copy of a JSON value without environment variables and credentials."""
    if isinstance(value, dict):
        return {name: _field(name, one) for name, one in value.items()}
    if isinstance(value, list):
        return [without_credentials(one) for one in value]
    return _URL.sub(_only_host, value) if isinstance(value, str) else value


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


def _only_host(found: re.Match[str]) -> str:
    scheme, host, rest = found.groups()
    if not _HOST.fullmatch(host):
        return f"{scheme}{MASK}"
    return f"{scheme}{host}/{MASK}" if rest and rest != "/" else f"{scheme}{host}{rest or ''}"
