"""Operations on the functions of one project. Each is a generator of steps, which a transport runs."""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from functiond.errors import (
    ApiError,
    ClientError,
    InvocationFailed,
    Overloaded,
    TooLarge,
    Unavailable,
    Unreachable,
    error_class,
)
from functiond.events import HEADERS, Chain, Event, Item, Link, batches, decode_result
from functiond.records import GroupRecord, LogReader, MemberOutcome, failure
from functiond.steps import LONGEST_LIMIT, Request, RetryLimits, Sleep, Steps, decoded, error_of, retry_after, sent
from functiond.waits import WINDOW, A, Deadline, Waits, invocation_path, path_of

LONGEST_CALL = 100.0  #: seconds of a synchronous call; the engine's default is 90
QUIET = 60.0  #: seconds without a byte of a log; the engine sends one each 15 s
RETRY_DELAY = 1.0  #: seconds until events without room are sent again, if the engine does not ask for more
UNBOUNDED = 1_000_000  #: retries, where time is the only bound


class RequestId(Struct):
    request_id: str


class ItemResult(Struct):
    request_id: str = ""
    error_code: str = ""
    error_msg: str = ""


class Results(Struct):
    results: list[ItemResult]


class MemberPage(Struct):
    members: list[MemberOutcome]
    next_after: int | None = None


class StoredGroup(NamedTuple):
    """Group with the types of its members' results by the names of functions, and the last call that follows it."""

    id: str
    request_id: str = ""  #: of this call
    last: Link | None = None
    kinds: dict[str, Any] = {}


class Sent(Struct, frozen=True):
    """Request ids of accepted events, and errors of refused ones, by position."""

    ids: dict[int, str]
    errors: dict[int, ClientError]


class Operations(Waits):
    def enqueue(self, chain: Chain) -> Steps[str]:
        """Queue a chain and return the request id of its last call. The engine has stored all of it by then."""
        if chain.is_plain:
            (link,) = chain.links
            path, headers = path_of(link.function, "invocations-async"), {HEADERS["key"]: uuid.uuid4().hex}
            reply = yield from sent(self._post(path, link.event.body(), headers | link.event.headers), self._limits)
            return decoded(reply, RequestId).request_id
        reply = yield from sent(self._post("calls", b'{"calls":[%b]}' % chain.item(keyed=True)), self._limits)
        return decoded(reply, Results).results[0].request_id

    def enqueue_many(self, chains: Sequence[Chain]) -> Steps[Sent]:
        """Queue chains that begin with the same function, in their order.

        Those without room are sent again, within the client's limits. A chain that is refused for another reason does
        not stop the others. If the connection breaks, all that are left get the error. Raises Unreachable or ApiError
        if none was accepted because of the whole request.
        """
        if all(chain.is_plain for chain in chains):
            path, field = path_of(chains[0].links[0].function, "invocations-async/batch") if chains else "", b"events"
            items = [chain.links[0].event.item(keyed=True) for chain in chains]
        else:
            path, field, items = "calls", b"calls", [chain.item(keyed=True) for chain in chains]
        left = [Item(position, item) for position, item in enumerate(items)]
        outcome, limits = Sent({}, {}), self._limits
        tries, began = 0, time.monotonic()
        while left:
            batch, accepted = next(batches(left)), len(outcome.ids)
            try:
                body = b'{"%b":[%b]}' % (field, b",".join(item.body for item in batch))
                reply = yield from sent(self._post(path, body), limits)
                asked = retry_after(reply)
                _keep(batch, outcome, decoded(reply, dict[str, Any]))
            except (ApiError, Unreachable) as error:
                details = error.details if isinstance(error, ApiError) else {}
                if not (accepted or "results" in details or isinstance(error, TooLarge)):  # such as an unknown function
                    raise
                if isinstance(error, Unreachable):
                    outcome.errors.update((item.position, error) for item in left)
                    break
                asked = error.retry_after
                _keep(batch, outcome, details, error)
            full = [item for item in batch if _may_repeat(outcome.errors.get(item.position))]
            left = [*full, *left[len(batch) :]]
            if len(outcome.ids) > accepted:
                tries, began = 0, time.monotonic()
            if full:
                delay = max(RETRY_DELAY, asked or 0.0) * random.uniform(1, 1.5)
                tries += 1
                if tries > limits.retries or time.monotonic() - began + delay > limits.timeout:
                    outcome.errors.update((item.position, outcome.errors[full[0].position]) for item in left)
                    break
                yield Sleep(delay)
        return outcome

    def call(self, function: str, event: object, kind: Any, timeout: float | None) -> Steps[Any]:
        """Run a function and return its result. A call that may have run is not sent again."""
        limits, wait = self._limits, LONGEST_CALL
        if timeout is not None:
            timeout = min(timeout, LONGEST_LIMIT)
            limits = RetryLimits(limits.retries, min(timeout, limits.timeout))
            wait = timeout - limits.timeout
        request = self._post(path_of(function, "invocations"), Event(event=event).body(), wait=wait, repeatable=False)
        reply = yield from sent(request, limits)
        request_id, text = reply.headers.get("x-cff-request-id", ""), reply.body.decode("utf-8", "replace")
        if not request_id:
            raise error_of(reply)
        if reply.headers.get("x-is-func-err") == "true":
            code = int(reply.headers.get("x-func-err-code", 0))
            raise failure(InvocationFailed, request_id, code, "", text)
        return decode_result(text, kind, request_id)

    def enqueue_group(
        self, chains: Iterable[Chain], then: Sequence[Link], *, require: str, key: str | None
    ) -> Steps[StoredGroup]:
        """Queue chains as a group, and the calls that follow it. ``chains`` are read as they are sent.

        Without a key, nobody can complete a group that this method has not: it is cancelled.
        """
        kinds: dict[str, Any] = {}

        def items() -> Iterator[Item]:
            for place, chain in enumerate(chains):
                kinds[chain.links[-1].function] = chain.links[-1].returns
                yield Item(place, chain.item())

        batched = batches(items())
        batch = next(batched, [])  # before anything is stored: errors in small groups leave nothing behind
        links = [Raw(link.item()) for link in then]
        given = {"require": require, "key": uuid.uuid4().hex if key is None else key, "then": links}
        reply = yield from sent(self._post("groups", given), self._limits)
        ids, total = decoded(reply, dict[str, str]), 0
        group = StoredGroup(ids["group_id"], ids["request_id"], then[-1] if then else None, kinds)
        try:
            while batch:
                place = msgspec.json.encode({"id": group.id, "first": total})
                body = b'{"group":%b,"calls":[%b]}' % (place, b",".join(item.body for item in batch))
                yield from sent(self._post("calls", body), self._limits)
                total, batch = total + len(batch), next(batched, [])
            yield from sent(self._post(f"groups/{group.id}/seal", {"total": total}), self._limits)
        except Exception as error:
            if key is None and not isinstance(error, Unreachable):
                with suppress(ClientError):
                    yield from self.cancel_group(group.id)
            raise
        return group

    def group(self, group_id: str) -> Steps[GroupRecord]:
        """Return what the engine tells about a group."""
        return decoded((yield from sent(self._get(f"groups/{group_id}"), self._limits)), GroupRecord)

    def cancel_group(self, group_id: str) -> Steps[None]:
        yield from sent(self._post(f"groups/{group_id}/cancel", {}), self._limits)

    def members(self, group_id: str) -> Iterator[Steps[list[MemberOutcome]]]:
        """Yield steps that each return a page of members, in their order."""
        after: int | str | None = ""

        def read() -> Steps[list[MemberOutcome]]:
            nonlocal after
            path = f"groups/{group_id}/members?limit={WINDOW}&after={after}"
            reply = yield from sent(self._get(path), self._limits)
            page = decoded(reply, MemberPage)
            after = page.next_after
            return page.members

        while after is not None:
            yield read()

    def member_results(
        self, group_id: str, handle: Callable[[str, str, Any], A], kinds: Mapping[str, Any], deadline: Deadline
    ) -> Iterator[Steps[list[A]]]:
        """Yield steps that each return handles of members that have ended, in their order."""
        handles: list[A] = []

        def read(page: Steps[list[MemberOutcome]]) -> Steps[list[A]]:
            for member in (yield from page):
                handles.append(handle(member.function, member.request_id, kinds.get(member.function, Any)))
                handles[-1].outcome = None if member.status in ("WAIT", "RUNNING") else member
            return []

        for page in self.members(group_id):
            yield read(page)
            yield from self.ended(handles, deadline, ordered=True)
            handles.clear()

    def cancel(self, function: str, request_id: str) -> Steps[None]:
        """Cancel an invocation that waits or runs. Raise BadRequest if it has ended."""
        body = {"request_id": request_id, "type": "force"}
        yield from sent(self._post(path_of(function, "cancel"), body), self._limits)

    def exchange(self, method: str, path: str, content: bytes | Mapping[str, object]) -> Steps[Any]:
        """Return the content of a reply."""
        request = self._post(path, content, repeatable=method != "POST")
        return (yield from sent(replace(request, method=method), self._limits)).json

    def logs(self, function: str, request_id: str, *, follow: bool) -> tuple[Request, LogReader]:
        accept = "text/event-stream" if follow else "application/x-ndjson"
        target = f"{self._base}/{invocation_path(function, request_id)}/logs"
        limit = QUIET if follow else self._limits.timeout
        request = Request(method="GET", target=target, headers={"Accept": accept}, limit=limit)
        limits = RetryLimits(UNBOUNDED, self._limits.timeout) if follow else self._limits
        return request, LogReader(limits, follow=follow)


def _keep(batch: Sequence[Item], outcome: Sent, reply: Mapping[str, Any], refusal: ApiError | None = None) -> None:
    """Keep what a reply says about each event of a batch. ``refusal`` is the error of the whole batch, if any."""
    results = msgspec.convert(reply.get("results", []), list[ItemResult])
    if refusal and len(results) != len(batch):
        outcome.errors.update((item.position, refusal) for item in batch)
        return
    for item, result in zip(batch, results, strict=True):
        outcome.errors.pop(item.position, None)
        if result.request_id:
            outcome.ids[item.position] = result.request_id
        else:
            status = _status(result.error_code)
            kind = error_class(status, result.error_code)
            outcome.errors[item.position] = kind(status, result.error_code, result.error_msg)


def _status(code: str) -> int:
    """Return the status of an error code: codes such as FSS.0429 contain it."""
    general = re.fullmatch(r"FSS\.0(\d{3})", code)
    return int(general[1]) if general else 400


def _may_repeat(error: ClientError | None) -> bool:
    return isinstance(error, Overloaded | Unavailable)
