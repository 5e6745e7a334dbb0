"""Export and import of functions through the vendor's SDK."""

from __future__ import annotations

import io
import warnings
import zipfile
from typing import Any

import pytest

from tests.acceptance.test_sdk import Platform, create, encoded, ended, invoke, platform, refused, urn_of
from tests.support.http_app import zipped

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # warnings of the SDK's own code
    from huaweicloudsdkfunctiongraph import v2 as fg

__all__ = ["platform"]  # fixture

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unable to convert string to datetime:ImportWarning"),
]


def export(platform: Platform, name: str, **choice: bool) -> bytes:
    request = fg.ExportFunctionRequest(function_urn=urn_of(name), **choice)
    content: bytes = platform.client.export_function(request).raw_content
    return content


def take_in(platform: Platform, name: str, file: bytes, **fields: object) -> Any:
    values = {"func_name": name, "file_name": "f.zip", "file_type": "zip", "file_code": encoded(file), **fields}
    body = fg.ImportFunctionRequestBody(**values)
    return platform.client.import_function(fg.ImportFunctionRequest(body=body))


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
    shown = platform.client.show_function_config(fg.ShowFunctionConfigRequest(function_urn="other:arrived"))
    original = platform.client.show_function_config(fg.ShowFunctionConfigRequest(function_urn=urn_of("travelling")))

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


def test_an_import_is_refused_as_documented(platform: Platform) -> None:
    create(platform, "taken")
    package = export(platform, "taken")

    with refused(409, "FSS.1061"):
        take_in(platform, "taken", package)
    with refused(400, "FSS.1011"):
        take_in(platform, "new", b"no zip")
    with refused(400, "FSS.1013"):
        take_in(platform, "new", package, file_type="tar")
    with refused(400, "FSS.1022"):
        take_in(platform, "new", zipped(a__yaml="{}", b__yaml="{}", c__py=""))
    with refused(400, "FSS.1025"):
        take_in(platform, "new", zipped(a__yaml="name: value", c__py=""))
    with refused(400, "FSS.1025"):
        take_in(platform, "new", zipped(a__yaml='{"func_name": "new"}', c__py=""))
    with refused(404, "FSS.1057"):
        take_in(platform, "new", zipped(a__yaml="{}", c__py=""))
    with refused(400, "FSS.1002"):
        take_in(platform, "1st", package)


def test_an_import_that_reaches_out_of_its_folder_is_refused(platform: Platform) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../out.yaml", "{}")

    with refused(400, "FSS.1011"):
        take_in(platform, "sly", buffer.getvalue())
