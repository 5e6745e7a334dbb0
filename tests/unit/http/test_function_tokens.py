"""Tokens of instances: their signature, epoch and project."""

from __future__ import annotations

from engine.http.function_tokens import STORE, FunctionTokens
from engine.model import Function
from tests.doubles.storage import MemoryStorage
from tests.support.builders import a_function

FUNCTION = a_function(function_id=1, project="p")


async def started(storage: MemoryStorage) -> FunctionTokens:
    tokens = FunctionTokens(storage.store(STORE), "invoke")
    await tokens.load()
    return tokens


def living(instance: str) -> Function | None:
    return FUNCTION if instance == "i" else None


async def test_a_token_of_an_earlier_start_is_refused() -> None:
    storage = MemoryStorage(node=1)
    before = await started(storage)
    token = before.token_of(FUNCTION, "i").encode()
    principal = before.principal_of(token, living)
    after = await started(storage)

    assert principal is not None
    assert (principal.project, principal.role) == ("p", "invoke")
    assert after.epoch == before.epoch + 1
    assert after.principal_of(token, living) is None


async def test_a_token_of_an_ended_instance_is_refused() -> None:
    tokens = await started(MemoryStorage(node=1))

    assert tokens.principal_of(tokens.token_of(FUNCTION, "ended").encode(), living) is None


async def test_a_changed_token_is_refused() -> None:
    tokens, others = await started(MemoryStorage(node=1)), await started(MemoryStorage(node=1))
    token = tokens.token_of(FUNCTION, "i").encode()
    text, _, signature = others.token_of(FUNCTION, "i").encode().partition(b".")

    for changed in (b"", b".", token + b"0", b"x" + token, text + b"." + signature, text + b"." + token[-64:][:-1]):
        assert tokens.principal_of(changed, living) is None
