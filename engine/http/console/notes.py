"""Notes about finished actions: a cookie carries the text to the next page, which shows it once."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from http.cookies import CookieError, SimpleCookie

from engine.asgi.wire import HeaderPairs, Reply
from engine.http.api.routing import Call
from engine.http.console.paths import HOME

COOKIE = "functiond_note"
LONGEST = 400  #: characters of a note
_ATTRIBUTES = f"Path={HOME}; HttpOnly; SameSite=Strict"
REMOVE: HeaderPairs = ((b"set-cookie", f"{COOKIE}=; {_ATTRIBUTES}; Max-Age=0".encode()),)


def see_other(location: str, note: str = "") -> Reply:
    """Return the reply to a form that was carried out: the browser fetches ``location``, which shows ``note``."""
    headers: HeaderPairs = ((b"location", location.encode("ascii")),)
    if note:
        text = urlsafe_b64encode(note[:LONGEST].encode()).decode()
        headers += ((b"set-cookie", f"{COOKIE}={text}; {_ATTRIBUTES}; Max-Age=60".encode()),)
    return Reply(status=303, headers=headers, content_type=b"")


def note_of(call: Call) -> str:
    """Return the note that the request's cookie carries; empty if there is none."""
    text = cookie(call, COOKIE)
    try:
        return urlsafe_b64decode(text.encode()).decode()[:LONGEST]
    except ValueError:
        return ""


def cookie(call: Call, name: str) -> str:
    """Return the value of a cookie of the request; empty if it is absent."""
    try:
        found = SimpleCookie(call.headers.get(b"cookie", b"").decode("latin-1"))
    except CookieError:
        return ""
    return found[name].value if name in found else ""
