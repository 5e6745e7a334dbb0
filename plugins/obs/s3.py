"""Object store with the S3 protocol, such as OBS. Only this module imports the client library, aiobotocore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import aiohttp
import anyio
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, IncompleteReadError
from msgspec.structs import replace

from engine import ObjectMissing, StoreRefused, StoreUnavailable
from plugins._shared.connections import Lease, SharedClient
from plugins._shared.outcomes import HOPS, read_hops
from plugins.obs.options import ObsSettings
from plugins.obs.store import BLOCK, Listing, StoredObject

CONNECT, SILENCE = 5, 30  #: seconds

_BROKEN = (BotoCoreError, aiohttp.ClientError, OSError)
#: Errors of the connection. For the other errors the client sends no request at all.
_DISCONNECTED = (ConnectionError, HTTPClientError, IncompleteReadError, aiohttp.ClientError, OSError)
_EXPIRED = frozenset({"ExpiredToken", "TokenRefreshRequired"})


class _Direct(AIOHTTPSession):  # type: ignore[misc]  # (its package has no types)
    """HTTP session of the client library that refuses redirects, so that it connects to the configured store only."""

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = await super()._get_session(proxy_url)
        return SimpleNamespace(request=partial(_request, session.request))


async def _request(request: Callable[..., Awaitable[aiohttp.ClientResponse]], *parts: Any, **more: Any) -> Any:
    response = await request(*parts, **more, allow_redirects=False)
    if response.status in (301, 302, 303, 307, 308):
        response.close()
        raise aiohttp.ClientError(f"it answered {response.status}; redirects are not followed")
    return response


def load_session(settings: ObsSettings) -> AioSession:
    """Load the library's data files by opening a client. Blocks for 0.2 s; later clients open in a few milliseconds."""
    session = get_session()

    async def touch() -> None:
        async with open_client(session, settings):
            pass

    asyncio.run(touch())
    return session


def open_client(session: AioSession, settings: ObsSettings) -> AbstractAsyncContextManager[Any]:
    """Return a context manager that opens an S3 client and closes it when the block ends."""
    config = AioConfig(
        http_session_cls=_Direct,
        s3={"addressing_style": "path" if settings.path_style else "auto"},
        connect_timeout=CONNECT,
        read_timeout=SILENCE,
        max_pool_connections=0,  # any number: slow requests of one bucket must not delay those of another
        retries={"total_max_attempts": 1, "mode": "standard"},  # callers retry themselves
        # Only AWS needs these checksums; other stores store them as part of the object.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client: AbstractAsyncContextManager[Any] = session.create_client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=settings.region,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        config=config,
    )
    return client


class S3Store:
    """Object store that sends S3 requests. ``timeout`` is the maximum of seconds for one request."""

    def __init__(self, shared: SharedClient, timeout: float) -> None:
        self._shared, self._timeout = shared, timeout

    @asynccontextmanager
    async def read(self, bucket: str, key: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._lease("the object was not received") as lease:
            with _converted_errors(lease, bucket, key):
                reply = await lease.client.get_object(Bucket=bucket, Key=key)
            body = reply["Body"]
            async with body:
                yield _blocks(body, lease, bucket, key)

    async def write(self, bucket: str, key: str, content: bytes, hops: int = 0) -> str:
        some = {"Key": key, "Body": content, **({"Metadata": {HOPS: str(hops)}} if hops else {})}
        return _etag(await self._call("put_object", "the object was not stored", bucket, key, **some))

    async def find(self, bucket: str, key: str) -> StoredObject | None:
        try:
            head = await self._call("head_object", "no answer about an object", bucket, key, Key=key)
        except ObjectMissing:
            return None
        found = _object({**head, "Key": key, "Size": head["ContentLength"]})
        return replace(found, hops=read_hops(head.get("Metadata", {}).get(HOPS)))

    async def delete(self, bucket: str, key: str) -> None:
        await self._call("delete_object", "the object was not deleted", bucket, key, Key=key)

    async def list(self, bucket: str, *, prefix: str = "", after: str = "", limit: int = 1000) -> Listing:
        """List objects with version 1 of ListObjects, since OBS documents only this version."""
        some = {"Prefix": prefix, "Marker": after, "MaxKeys": limit}
        page = await self._call("list_objects", "no list of objects was received", bucket, prefix, **some)
        return Listing(objects=tuple(map(_object, page.get("Contents", ()))), more=page["IsTruncated"])

    async def _call(self, operation: str, late: str, bucket: str, key: str, **parameters: object) -> Mapping[str, Any]:
        """Call an operation of the client, and return the reply. ``bucket`` and ``key`` are for errors as well."""
        async with self._lease(late) as lease:
            with _converted_errors(lease, bucket, key):
                reply: Mapping[str, Any] = await getattr(lease.client, operation)(Bucket=bucket, **parameters)
        return reply

    @asynccontextmanager
    async def _lease(self, late: str) -> AsyncIterator[Lease]:
        """Use the shared client for a request. Raises StoreUnavailable on timeout, its text beginning with ``late``."""
        async with self._shared.lease() as lease:
            with anyio.move_on_after(self._timeout) as scope:
                yield lease
            if scope.cancelled_caught:
                lease.failed = True
                raise StoreUnavailable(f"{late} within {self._timeout:g} s")


async def _blocks(body: Any, lease: Lease, bucket: str, key: str) -> AsyncIterator[bytes]:
    with _converted_errors(lease, bucket, key):
        async for block in body.iter_chunks(BLOCK):
            yield block


@contextmanager
def _converted_errors(lease: Lease, bucket: str, key: str) -> Iterator[None]:
    """Convert the library's errors to ObjectMissing, StoreRefused or StoreUnavailable.

    After a lost connection or expired credentials, the client is marked as failed, so that later requests get a new
    one.
    """
    try:
        yield
    except ClientError as error:
        if error.response["Error"].get("Code") in _EXPIRED:
            lease.failed = True
        raise _refusal(error, bucket, key) from error
    except _BROKEN as error:
        if isinstance(error, _DISCONNECTED):
            lease.failed = True
        raise StoreUnavailable(f"no answer, or an incomplete one ({error})"[:300]) from error


def _refusal(error: ClientError, bucket: str, key: str) -> Exception:
    reply, status = error.response["Error"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    code = reply.get("Code", "")
    if status == 404:
        return ObjectMissing(bucket, key, "bucket" if code == "NoSuchBucket" else "object")
    problem = f"{status} {code} {reply.get('Message', '')}"[:200].rstrip()
    return StoreRefused(problem) if 400 <= status < 500 else StoreUnavailable(f"answered {problem}")


def _object(item: Mapping[str, Any]) -> StoredObject:
    modified = item["LastModified"].timestamp()
    return StoredObject(key=item["Key"], size=item["Size"], etag=_etag(item), modified_at=modified)


def _etag(item: Mapping[str, Any]) -> str:
    etag: str = item["ETag"]
    return etag.strip('"')
