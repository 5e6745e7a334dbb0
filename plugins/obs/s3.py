"""A store that speaks S3, as OBS and its likes do: the only file that knows the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import aiohttp
import anyio
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import BotoCoreError, ClientError

from engine import ObjectMissing, StoreRefused, StoreUnavailable
from plugins.obs.store import BLOCK, Listing, ObsService, StoredObject

CONNECT, SILENCE = 5, 30  #: seconds

_BROKEN = (BotoCoreError, aiohttp.ClientError, OSError)


class _Direct(AIOHTTPSession):  # type: ignore[misc]  # (its package tells no types)
    """Asks the configured store and nobody else, whatever it says."""

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = await super()._get_session(proxy_url)
        return SimpleNamespace(request=partial(_ask, session.request))


async def _ask(request: Callable[..., Awaitable[aiohttp.ClientResponse]], *parts: Any, **more: Any) -> Any:
    response = await request(*parts, **more, allow_redirects=False)
    if response.status in (301, 302, 303, 307, 308):
        response.close()
        raise aiohttp.ClientError(f"it answers {response.status}, and redirects are not followed")
    return response


def load_session(service: ObsService) -> AioSession:
    """Blocks for 0.2 s, in which all is read that clients need; after that, one opens in a few milliseconds."""
    session = get_session()

    async def touch() -> None:
        async with _client(session, service):
            pass

    asyncio.run(touch())
    return session


@asynccontextmanager
async def open_s3(session: AioSession, service: ObsService) -> AsyncIterator[S3Store]:
    async with _client(session, service) as client:
        yield S3Store(client, service.timeout)


def _client(session: AioSession, service: ObsService) -> Any:
    config = AioConfig(
        http_session_cls=_Direct,
        s3={"addressing_style": "path" if service.path_style else "auto"},
        connect_timeout=CONNECT,
        read_timeout=SILENCE,
        retries={"total_max_attempts": 1, "mode": "standard"},  # whoever asks tries again, later
        # Checksums that only AWS asks for; other stores take them for part of the object.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return session.create_client(
        "s3",
        endpoint_url=service.endpoint,
        region_name=service.region,
        aws_access_key_id=service.access_key,
        aws_secret_access_key=service.secret_key,
        config=config,
    )


class S3Store:
    def __init__(self, client: Any, timeout: float) -> None:
        self._client, self._timeout = client, timeout

    @asynccontextmanager
    async def read(self, bucket: str, key: str) -> AsyncIterator[AsyncIterator[bytes]]:
        with anyio.move_on_after(self._timeout) as scope:
            with _told(bucket, key):
                reply = await self._client.get_object(Bucket=bucket, Key=key)
            body = reply["Body"]
            async with body:
                yield _blocks(body, bucket, key)
        if scope.cancelled_caught:
            raise StoreUnavailable(f"the object did not come within {self._timeout:g} s")

    async def write(self, bucket: str, key: str, content: bytes) -> str:
        with anyio.move_on_after(self._timeout), _told(bucket, key):
            reply = await self._client.put_object(Bucket=bucket, Key=key, Body=content)
            return _etag(reply)
        raise StoreUnavailable(f"the object was not taken within {self._timeout:g} s")

    async def find(self, bucket: str, key: str) -> StoredObject | None:
        with anyio.move_on_after(self._timeout):
            try:
                with _told(bucket, key):
                    head = await self._client.head_object(Bucket=bucket, Key=key)
            except ObjectMissing:
                return None
            return _object({**head, "Key": key, "Size": head["ContentLength"]})
        raise StoreUnavailable(f"nothing was told of an object within {self._timeout:g} s")

    async def delete(self, bucket: str, key: str) -> None:
        with anyio.move_on_after(self._timeout), _told(bucket, key):
            await self._client.delete_object(Bucket=bucket, Key=key)
            return
        raise StoreUnavailable(f"the object was not deleted within {self._timeout:g} s")

    async def list(self, bucket: str, *, prefix: str = "", after: str = "", limit: int = 1000) -> Listing:
        """By the older of S3's two ways to list, which is the one that OBS documents."""
        with anyio.move_on_after(self._timeout), _told(bucket, prefix):
            page = await self._client.list_objects(Bucket=bucket, Prefix=prefix, Marker=after, MaxKeys=limit)
            found = tuple(_object(item) for item in page.get("Contents", ()))
            return Listing(objects=found, more=page["IsTruncated"])
        raise StoreUnavailable(f"there was no list within {self._timeout:g} s")


async def _blocks(body: Any, bucket: str, key: str) -> AsyncIterator[bytes]:
    with _told(bucket, key):
        async for block in body.iter_chunks(BLOCK):
            yield block


@contextmanager
def _told(bucket: str, key: str) -> Iterator[None]:
    """What the client raises, in our words."""
    try:
        yield
    except ClientError as error:
        raise _refusal(error, bucket, key) from error
    except _BROKEN as error:
        raise StoreUnavailable(f"no answer, or not all of it ({error})"[:300]) from error


def _refusal(error: ClientError, bucket: str, key: str) -> Exception:
    said, status = error.response["Error"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    code = said.get("Code", "")
    if status == 404:
        return ObjectMissing(bucket, key, "bucket" if code == "NoSuchBucket" else "object")
    problem = f"{status} {code} {said.get('Message', '')}"[:200].rstrip()
    return StoreRefused(problem) if 400 <= status < 500 else StoreUnavailable(f"answers {problem}")


def _object(item: Mapping[str, Any]) -> StoredObject:
    modified = item["LastModified"].timestamp()
    return StoredObject(key=item["Key"], size=item["Size"], etag=_etag(item), modified_at=modified)


def _etag(item: Mapping[str, Any]) -> str:
    etag: str = item["ETag"]
    return etag.strip('"')
