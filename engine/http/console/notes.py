"""Notes about finished actions: a cookie carries the text to the next page, which shows it once."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

from engine.asgi.wire import HeaderPairs, Reply
from engine.http.api.routing import Call
from engine.http.console.cookies import make_cookie, read_cookie

COOKIE = "functiond_note"
LONGEST = 400  #: characters of a note
REMOVE: HeaderPairs = (make_cookie(COOKIE, "", max_age=0),)


def see_other(location: str, note: str = "", headers: HeaderPairs = ()) -> Reply:
    """Return the reply to a form that was carried out: the browser fetches ``location``, which shows ``note``."""
    headers = ((b"location", location.encode("ascii")), *headers)
    if note:
        text = urlsafe_b64encode(note[:LONGEST].encode()).decode()
        headers += (make_cookie(COOKIE, text, max_age=60),)
    return Reply(status=303, headers=headers, content_type=b"")


def note_of(call: Call) -> str:
    """Return the note that the request's cookie carries; empty if there is none.

    Requests of scripts, such as those that keep a page up to date, get none: the page that follows the form shows it.
    """
    if call.headers.get(b"sec-fetch-mode", b"navigate") != b"navigate":
        return ""
    text = read_cookie(call.headers, COOKIE)
    try:
        return urlsafe_b64decode(text.encode()).decode()[:LONGEST]
    except ValueError:
        return ""
