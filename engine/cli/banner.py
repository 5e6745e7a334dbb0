"""What ``serve`` says to people once it runs, and the function that ``--demo`` deploys."""

from __future__ import annotations

import base64

from engine.app.lifecycle import EngineParts
from engine.cli.output import Output, program
from engine.code.store import NO_CODE, CodeSource
from engine.errors import FunctiondError, FunctionExists
from engine.model import Function

PROJECT = "default"
DEMO = '''"""Says hello. `event` is the JSON that the caller sent."""


def handler(event, context):
    name = event.get("name", "world")
    context.getLogger().info("greeting %s", name)
    return {"hello": name}
'''


def greet(engine: EngineParts, url: str) -> None:
    output = Output()
    functions = {function.function_id for function in engine.catalog.all()}
    _tell_place(output, engine, url)
    if functions:
        output.print(f"{len(functions)} functions, {engine.backlog.rows} invocations waiting")
    else:
        output.print("No functions yet. Deploy a folder that holds index.py with `def handler(event, context)`:")
        output.paste(f"{program()} deploy FOLDER --handler index.handler{_url_option(url)}")
    _tell_end(output)


async def greet_demo(engine: EngineParts, url: str) -> None:
    """Once the words are out, the lines in them work."""
    output, auth = Output(), engine.settings.auth
    projects = [*(key.project for key in auth.keys), *(token.project for token in auth.tokens), PROJECT]
    project = projects[0]
    try:
        function = await _deploy(engine, project)
    except FunctiondError as error:
        output.print(f"The demo function cannot be deployed: {error}", style="red", markup=False)
        return
    _tell_place(output, engine, url)
    if auth.required:
        _tell_signed(output, url, project)
        return
    target = f"{url}/v2/{project}/fgs/functions/{function.urn(engine.settings.http.region)}"
    output.print("The function [bold]hello[/] is deployed. Accept now, run when idle (202 and a request id):")
    output.paste(_curl(f"{target}/invocations-async"))
    output.print("See what became of it:")
    output.paste(f"{program()} invocations hello{_url_option(url)}")
    output.print("Or call it and wait for what it returns:")
    output.paste(_curl(f"{target}/invocations"))
    _tell_end(output)


def _tell_place(output: Output, engine: EngineParts, url: str) -> None:
    output.print(f"[bold green]functiond[/] serves [bold]{url}[/], keeps its data in [bold]{engine.storage.path}[/]")
    if engine.settings.http.console:
        output.print(f"See what it does at [bold]{url}/console/[/]")


def _tell_signed(output: Output, url: str, project: str) -> None:
    """Where credentials are wanted, the command line signs, and curl cannot."""
    hello, options = f"{program()} invoke hello", f" --project {project}{_url_option(url)}"
    output.print("The function [bold]hello[/] is deployed. With FUNCTIOND_ACCESS_KEY and FUNCTIOND_SECRET_KEY set to")
    output.print(f"those of project {project}, accept now and run when idle, or call it and wait for what it returns:")
    output.paste(f"""{hello} --async --data '{{"name": "you"}}'{options}""")
    output.paste(f"""{hello} --data '{{"name": "you"}}'{options}""")
    _tell_end(output)


def _tell_end(output: Output) -> None:
    output.print("Ctrl-C ends it; what was accepted waits on disk for the next start.", style="dim")


async def _deploy(engine: EngineParts, project: str) -> Function:
    draft = Function(
        function_id=0,
        project=project,
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
