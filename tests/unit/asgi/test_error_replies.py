"""Table of HTTP statuses, and its use by the API, push sources and gateways."""

from __future__ import annotations

import json

import httpx
import pytest

from engine import PushRequest, Reply, errors
from engine.asgi.error_replies import status_of
from engine.asgi.listener import listen
from engine.errors import FunctiondError
from engine.http.api.errors import error_reply
from engine.triggers.routes import Mounts, PluginRoutes
from plugins.apig.problems import refused

RAISED: dict[FunctiondError, int] = {
    errors.InvalidField("timeout", 1, ""): 400,
    errors.Unauthorized("no"): 401,
    errors.StoreRefused("no"): 403,
    errors.UnknownFunction("f"): 404,
    errors.IdempotencyConflict("k"): 409,
    errors.PayloadTooLarge(1): 413,
    errors.FunctionDisabled("f"): 429,
    errors.BacklogFull("f", 1, "rows"): 429,
    errors.TooManyFailures(9): 429,
    errors.DiskLow(1, 2): 503,
    errors.CallTimedOut(90): 504,
    errors.SettingsError("x"): 500,
}
each = pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)


async def pushed(error: FunctiondError) -> httpx.Response:
    """Return the reply to a push whose handler raises ``error``."""

    async def handler(request: PushRequest) -> Reply:
        raise error

    app = PluginRoutes(Mounts(), "p").app(handler)
    async with listen(app, "127.0.0.1", 0) as port, httpx.AsyncClient(trust_env=False, verify=False) as client:
        return await client.get(f"http://127.0.0.1:{port}/")


@each
async def test_api_and_push_sources_reply_with_the_status_of_the_table(error: FunctiondError) -> None:
    push, api = await pushed(error), error_reply(error)

    assert status_of(type(error)) == RAISED[error]
    assert (api.status, push.status_code) == (RAISED[error],) * 2
    assert push.json() == {"error_code": f"FSS.0{RAISED[error]}", "error_msg": str(error)}
    assert push.headers.get("retry-after", "").encode() == dict(api.headers).get(b"Retry-After", b"")
    assert push.headers.get("retry-after", "") == str(getattr(error, "retry_after", ""))
    assert len(push.headers["x-request-id"]) == 36


@each
def test_a_gateway_has_another_status_for_a_missing_function_only(error: FunctiondError) -> None:
    problem = refused(error)

    assert problem.status == (502 if isinstance(error, errors.NotFound) else RAISED[error])
    assert json.loads(problem.reply("id").body)["error_code"] == ("APIG.0308" if problem.status == 429 else "APIG.0201")
    assert problem.message.endswith(str(error))
    assert dict(problem.headers) == {
        name: value for name, value in error_reply(error).headers if name == b"Retry-After"
    }
