"""Links to objects, such as ``obs://bucket/key`` or ``https://bucket.obs.region.host/key``, and packages behind them.

The engine never connects to the host in a link. The object is always read from the configured store.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from engine import BadLink, CodeLinks
from plugins._shared.fields import Shared
from plugins.obs.opening import StoreOpener
from plugins.obs.options import ObsSettings

KEY_SIZE = 1024  #: bytes
FORMS = "must be obs://bucket/key, https://bucket.obs.region.host/key or https://obs.region.host/bucket/key"

#: Stricter than S3: some clients accept an Amazon resource name as a bucket, and connect elsewhere.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)


def read_link(link: str, endpoint_host: str = "") -> tuple[str, str]:
    """Return the bucket and the key in a link. Raises BadLink if the form, the bucket or the key is invalid.

    The host of an HTTP link must begin with ``obs.``, contain ``.obs.``, or be ``endpoint_host``, the configured
    store's, or a subdomain of it.
    """
    try:
        parts = urlsplit(link)
        host = parts.hostname or ""
        path = unquote(parts.path, errors="strict").removeprefix("/")
    except ValueError:
        raise BadLink(link, FORMS) from None
    if parts.query or parts.fragment or parts.username is not None:
        raise BadLink(link, "must be plain, without ?query, #fragment and user: the store has credentials of its own")
    if parts.scheme in ("obs", "s3"):
        bucket, key = parts.netloc, path
    elif parts.scheme in ("http", "https"):
        bucket, key = _by_host(link, host, path, endpoint_host)
    else:
        raise BadLink(link, FORMS)
    if not _BUCKET.fullmatch(bucket):
        raise BadLink(link, f"names no bucket: {FORMS}")
    if not (key.isprintable() and 0 < len(key.encode()) <= KEY_SIZE):
        raise BadLink(link, f"names no object: a key has 1 to {KEY_SIZE} bytes and no control characters")
    return bucket, key


def _by_host(link: str, host: str, path: str, endpoint_host: str) -> Sequence[str]:
    """Return the bucket and the key in an HTTP link. Raises BadLink if its host has none of the accepted forms.

    The bucket is the part of the host before the store's name, or else the first segment of the path.
    """
    if host == endpoint_host or host.startswith("obs."):
        bucket, _, key = path.partition("/")
        return bucket, key
    if endpoint_host and host.endswith(f".{endpoint_host}"):
        return host.removesuffix(f".{endpoint_host}"), path
    bucket, mark, _ = host.partition(".obs.")
    if not mark:
        raise BadLink(link, FORMS)
    return bucket, path


class ObsLinks:
    """Reader of packages, given by the link to their object. Raises BadLink for other links, and the store's errors."""

    def __init__(self, settings: ObsSettings) -> None:
        self._host, self._opener = settings.host, StoreOpener(settings)

    @asynccontextmanager
    async def open(self, link: str) -> AsyncIterator[AsyncIterator[bytes]]:
        bucket, key = read_link(link, self._host)
        async with self._opener.open() as store, store.read(bucket, key) as blocks:
            yield blocks


def used_bucket(settings: ObsSettings, given: Any) -> Mapping[str, Collection[str]]:
    """Return the projects of the bucket that options, ``param`` or a link name. Raises BadLink for another link."""
    bucket = read_link(given, settings.host)[0] if isinstance(given, str) else given.bucket
    named = settings.buckets.get(bucket) or settings.buckets.get("*", Shared())
    return {f"buckets.{bucket}": named.projects}


def code_links(settings: ObsSettings) -> CodeLinks | None:
    """Return the reader of packages by their links, or None if the settings have neither an endpoint nor a folder."""
    return ObsLinks(settings) if settings.configured else None
