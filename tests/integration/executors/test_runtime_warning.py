"""Warning about a runtime whose language version differs, in logs of functions in a pool."""

from __future__ import annotations

import pytest

from engine.executors.pool import Pool
from engine.logs.lines import Line, decode
from engine.runtimes.catalog import warning_of
from tests.support.executing import function, invocation
from tests.support.instances import lines

SOURCE = "def handler(event, context):\n    print('ran')\n"
NOTE, RAN = ("engine", warning_of("Python2.7")), ("stdout", "ran")


@pytest.mark.parametrize("warm", [False, True])
async def test_the_first_run_of_an_instance_has_the_warning(opened: Pool, warm: bool) -> None:
    old = function("handler", runtime="Python2.7")
    if warm:  # an instance that was started without a request
        assert await opened.warm(old)

    first, second = [await opened.execute(old, invocation()) for _ in range(2)]
    between: list[Line] = list(decode(await opened.instance_log(old.function_id)))

    assert (lines(first), lines(second), between) == ([NOTE, RAN], [RAN], [])


async def test_functions_of_other_runtimes_have_no_warning(opened: Pool) -> None:
    outcome = await opened.execute(function("handler", runtime="Python3.6"), invocation())

    assert lines(outcome) == [RAN]
