"""Export and import of functions through the vendor's SDK."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from tests.acceptance.sdk import SDK_WARNINGS, Platform, ask, create, encoded, ended, fg, invoke, refused
from tests.support.http_app import zipped

pytestmark = SDK_WARNINGS


def export(platform: Platform, name: str, **choice: bool) -> bytes:
    content: bytes = ask(platform, "ExportFunction", name, **choice).raw_content
    return content


def take_in(platform: Platform, name: str, file: bytes, **fields: object) -> Any:
    values = {"func_name": name, "file_name": "f.zip", "file_type": "zip", "file_code": encoded(file), **fields}
    return ask(platform, "ImportFunction", **values)


def test_a_function_goes_out_and_comes_in_again(platform: Platform) -> None:
    code = zipped(index__py="import os\n\ndef handler(event, context):\n    return os.environ['WORD']\n")
    create(
        platform,
        "travelling",
        code_type="zip",
        code_filename="t.zip",
        func_code=fg.FuncCode(file=encoded(code)),
        user_data='{"WORD": "kept"}',
        description="é",
        memory_size=256,
        initializer_timeout=7,
        xrole="agency",
    )

    arrived = take_in(platform, "arrived", export(platform, "travelling", config=True, code=True), package="other")
    shown = ask(platform, "ShowFunctionConfig", function_urn="other:arrived")
    original = ask(platform, "ShowFunctionConfig", "travelling")

    assert (arrived.func_name, arrived.package, arrived.digest) == ("arrived", "other", original.digest)
    for field in ("user_data", "description", "memory_size", "initializer_timeout", "xrole", "code_filename"):
        assert getattr(shown, field) == getattr(original, field)


def test_inline_code_runs_after_its_journey(platform: Platform) -> None:
    create(platform, "inlined", "def handler(event, context):\n    return 'arrived'\n")

    take_in(platform, "inlined2", export(platform, "inlined"))

    assert ended(platform, "inlined2", invoke(platform, "inlined2"))["result"] == "arrived"


def test_source_that_is_not_python_does_not_go_out_as_such(platform: Platform) -> None:
    create(platform, "shell", "#!/bin/sh\n", runtime="Custom", handler="bootstrap")

    with zipfile.ZipFile(io.BytesIO(export(platform, "shell"))) as package:
        files = {name: package.read(name) for name in package.namelist()}
    arrived = take_in(platform, "shell2", export(platform, "shell"))

    assert (list(files), files["shell"]) == (["shell.yaml", "shell"], b"#!/bin/sh\n")
    assert (arrived.runtime, arrived.code_type, arrived.code_filename) == ("Custom", "inline", "bootstrap")


def test_an_export_holds_what_was_asked_for(platform: Platform) -> None:
    create(platform, "chosen")

    def names(**choice: bool) -> list[str]:
        return zipfile.ZipFile(io.BytesIO(export(platform, "chosen", **choice))).namelist()

    assert names(config=True) == ["chosen.yaml"]
    assert names(code=True, config=False) == ["chosen.py"]
    assert names() == ["chosen.yaml", "chosen.py"]
    with refused(404, "FSS.1051"):
        export(platform, "unheard_of")


def test_an_import_replaces_no_function(platform: Platform) -> None:
    create(platform, "taken")

    with refused(409, "FSS.1061"):
        take_in(platform, "taken", export(platform, "taken"))
