"""Start-up message of ``serve``, and the function that ``--demo`` deploys."""

from __future__ import annotations

import base64

from engine.app.parts import EngineParts
from engine.cli.output import Output, program
from engine.code.store import NO_CODE, CodeSource
from engine.errors import FunctiondError, FunctionExists
from engine.model import Function

PROJECT = "default"
DEMO = '''"""Return a greeting. `event` is the JSON value that the caller sent."""


def handler(event, context):
    name = event.get("name", "world")
    context.getLogger().info("greeting %s", name)
    return {"hello": name}
'''


def greet(engine: EngineParts, url: str) -> None:
    """Print the address of the engine, then the number of its functions.

    If there are none, print a command that deploys a function.
    """
    output = Output()
    functions = {function.function_id for function in engine.catalog.all()}
    _print_address(output, engine, url)
    if functions:
        output.print(f"{len(functions)} functions, {engine.backlog.rows} invocations waiting")
    else:
        output.print("No functions yet. Deploy a folder that contains index.py with `def handler(event, context)`:")
        output.paste(f"{program()} deploy FOLDER --handler index.handler{_url_option(url)}")
    _print_stop_hint(output)


async def greet_demo(engine: EngineParts, url: str) -> None:
    """Deploy the demo function and print commands that call it. If deployment fails, print the reason."""
    output, auth = Output(), engine.settings.auth
    projects = [*(key.project for key in auth.keys), *(token.project for token in auth.tokens), PROJECT]
    project = projects[0]
    try:
        function = await _deploy(engine, project)
    except FunctiondError as error:
        output.print(f"The demo function cannot be deployed: {error}", style="red", markup=False)
        return
    _print_address(output, engine, url)
    if auth.required:
        _print_signed_commands(output, url, project)
        return
    target = f"{url}/v2/{project}/fgs/functions/{function.urn(engine.settings.http.region)}"
    output.print("The function [bold]hello[/] is deployed. Accept now, run when idle (202 and a request id):")
    output.paste(_curl(f"{target}/invocations-async"))
    output.print("Show its state:")
    output.paste(f"{program()} invocations hello{_url_option(url)}")
    output.print("Or call it and wait for the result:")
    output.paste(_curl(f"{target}/invocations"))
    _print_stop_hint(output)


def _print_address(output: Output, engine: EngineParts, url: str) -> None:
    output.print(
        f"[bold green]functiond[/] serves [bold]{url}[/], data directory [bold]{engine.settings.storage.path}[/]"
    )
    if engine.settings.http.console:
        output.print(f"Open the console at [bold]{url}/console/[/]")


def _print_signed_commands(output: Output, url: str, project: str) -> None:
    """Print ``functiond`` commands that call the demo function: curl cannot sign requests with the engine's scheme."""
    hello, options = f"{program()} invoke hello", f" --project {project}{_url_option(url)}"
    output.print("The function [bold]hello[/] is deployed. Set FUNCTIOND_ACCESS_KEY and FUNCTIOND_SECRET_KEY to")
    output.print(f"a key of project {project}. Then accept now and run when idle, or call it and wait for the result:")
    output.paste(f"""{hello} --async --data '{{"name": "you"}}'{options}""")
    output.paste(f"""{hello} --data '{{"name": "you"}}'{options}""")
    _print_stop_hint(output)


def _print_stop_hint(output: Output) -> None:
    output.print("Press Ctrl-C to stop. Accepted invocations stay on disk and run after the next start.", style="dim")


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
        description="Demo of functiond",
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
