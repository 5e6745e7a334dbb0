"""What ``serve`` says to people once it runs, and the function that ``--demo`` deploys."""

from __future__ import annotations

import base64

from engine.app import Running
from engine.cli.words import Words, program
from engine.codestore import NO_CODE, CodeSource
from engine.errors import FunctiondError, FunctionExists
from engine.model import Function

PROJECT = "default"
DEMO = '''"""Says hello. `event` is the JSON that the caller sent."""


def handler(event, context):
    name = event.get("name", "world")
    context.getLogger().info("greeting %s", name)
    return {"hello": name}
'''


def greet(engine: Running, url: str) -> None:
    words = Words()
    functions = engine.catalog.all()
    words.print(f"[bold green]functiond[/] serves [bold]{url}[/], keeps [bold]{engine.storage.path}[/]")
    if functions:
        words.print(f"{len(functions)} functions, {engine.backlog.rows} invocations waiting")
    else:
        words.print("No functions yet. Deploy a folder that holds index.py with `def handler(event, context)`:")
        words.paste(f"{program()} deploy FOLDER --handler index.handler{_url_option(url)}")
    words.print("Ctrl-C ends it; what was accepted waits on disk for the next start.", style="dim")


async def greet_demo(engine: Running, url: str) -> None:
    """Once the words are out, the lines in them work."""
    words = Words()
    try:
        function = await _deploy(engine)
    except FunctiondError as error:
        words.print(f"The demo function cannot be deployed: {error}", style="red", markup=False)
        return
    target = f"{url}/v2/{PROJECT}/fgs/functions/{function.urn(engine.settings.http.region)}"
    words.print(f"[bold green]functiond[/] serves [bold]{url}[/], keeps [bold]{engine.storage.path}[/]")
    words.print("The function [bold]hello[/] is deployed. Accept now, run when idle (202 and a request id):")
    words.paste(_curl(f"{target}/invocations-async"))
    words.print("See what became of it:")
    words.paste(f"{program()} invocations hello{_url_option(url)}")
    words.print("Or call it and wait for what it returns:")
    words.paste(_curl(f"{target}/invocations"))
    words.print("Ctrl-C ends it; what was accepted waits on disk for the next start.", style="dim")


async def _deploy(engine: Running) -> Function:
    draft = Function(
        function_id=0,
        project=PROJECT,
        package="default",
        name="hello",
        runtime="Python3.10",
        handler="index.handler",
        timeout=10,
        memory_size=128,
        code=NO_CODE,
        description="The demo of functiond",
    )
    try:
        return await engine.catalog.create(
            draft, CodeSource(kind="inline", file=base64.b64encode(DEMO.encode()).decode())
        )
    except FunctionExists:
        return engine.catalog.find(draft.urn(engine.settings.http.region))


def _curl(url: str) -> str:
    return f"""curl '{url}' -H 'Content-Type: application/json' -d '{{"name": "you"}}'"""


def _url_option(url: str) -> str:
    return "" if url == "http://127.0.0.1:8080" else f" --url {url}"
