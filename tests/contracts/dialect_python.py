"""Test functions in Python."""

from __future__ import annotations

from tests.contracts.dialect import Dialect

_INDEX = """
import asyncio, os, sys

initialised, here = [], []


def initialise(context):
    initialised.append(context.getFunctionName())


def handler(event, context):
    return globals()["do_" + event["do"]](event["with"], context)


def do_echo(value, context):
    return value


def do_text(value, context):
    return "straße ✓"


def do_nothing(value, context):
    pass


def do_large(value, context):
    return "x" * value


def do_fail(value, context):
    raise LookupError("no order")


def do_ask(value, context):
    error = LookupError("no order")
    vars(error).update(value)
    raise error


def do_bad(value, context):
    return {"a", "set"}


def do_say(value, context):
    print(value)
    print("!", value, file=sys.stderr)


def do_pid(value, context):
    return [os.getpid(), context.getInstanceID()]  # in a sandbox all have the same process id


def do_who(value, context):
    return context.getRequestID()


def do_data(value, context):
    return context.getUserData(value)


async def do_hang(value, context):
    await asyncio.sleep(3600)


def do_leave(value, context):
    os._exit(3)


def do_initialised(value, context):
    return len(initialised)


async def do_meet(value, context):
    mine = asyncio.get_running_loop().create_future()
    here.append(mine)
    if len(here) == value:
        for one in here:
            one.set_result(None)
    await mine
"""

PYTHON = Dialect(runtime="Python3.10", files={"index.py": _INDEX})
