"""Export and import of a function as one zip file (FunctionGraph API: ExportFunction, ImportFunction)."""

from __future__ import annotations

import io
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Literal

import anyio.to_thread
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.asgi.wire import Reply, json_reply
from engine.code.function_package import CONFIG_LIMIT, Packed, open_package, pack
from engine.code.receiving import ReceivedCode, Upload
from engine.code.store import PACKAGE_LIMIT, CodeSource, CodeStore, check_received, decoded
from engine.errors import BadQuery, InvalidField, InvalidRequest, NamelessConfig, NotJson, PayloadTooLarge
from engine.functions.catalog import Catalog
from engine.http.api.decoding import decode
from engine.http.api.function_replies import function_reply, with_warning
from engine.http.api.function_shapes import CreateBody, FunctionReply, draft_of
from engine.http.api.large_replies import whole_file
from engine.http.api.routing import BODY_LIMIT, FUNCTION, FUNCTIONS, ApiFamily, BodyCall, Call, operation
from engine.model import Function
from engine.model.limits import Name

FILE_LIMIT = PACKAGE_LIMIT + CONFIG_LIMIT
_TOO_LARGE = f"the file must be at most {FILE_LIMIT >> 20} MB"


class ImportBody(Struct, frozen=True, kw_only=True):
    func_name: Name
    file_name: str
    file_type: Literal["zip"]
    file_code: str
    package: Name = "default"


class _Named(Struct, frozen=True, kw_only=True):
    func_name: str = ""


class PackagesApi(ApiFamily):
    def __init__(self, catalog: Catalog, codes: CodeStore, region: str) -> None:
        self._catalog, self._codes, self._region = catalog, codes, region

    @operation(
        "ExportFunction",
        "GET",
        f"{FUNCTION}/export",
        reply=bytes,
        query=("config", "code", "type"),
        content="application/zip",
    )
    async def export(self, call: Call) -> Reply:
        """Return a zip file with the configuration or the code of a function.

        The query flags ``config`` and ``code`` select one of them. If both flags are set, or neither is, the file has
        both.
        """
        function = self._catalog.find(call.urn)
        config, code = _flag(call, "config"), _flag(call, "code")
        both = config == code
        content = self._codes.file(function.code) if code or both else None
        text = msgspec.json.format(self._config(function), indent=2) if config or both else None
        name = function.name
        ending = PurePath(function.code.filename).suffix if function.code.kind == "inline" else ".zip"
        package = await self._codes.temporary_file()
        try:
            size = await anyio.to_thread.run_sync(lambda: pack(package, name, config=text, code=content, ending=ending))
        except BaseException:
            package.close()
            raise
        named = (b"Content-Disposition", f'attachment; filename="{name}.zip"'.encode())
        return whole_file(package, size, b"application/zip", named)

    @operation(
        "ImportFunction",
        "POST",
        f"{FUNCTIONS}/import",
        ImportBody,
        FunctionReply,
        limit=FILE_LIMIT * 4 // 3 + BODY_LIMIT,
    )
    async def import_package(self, call: BodyCall[ImportBody]) -> Reply:
        async with self._codes.receiving("file_code", FILE_LIMIT) as upload:
            body = await call.read_code(upload, InvalidField("import_size", "more", _TOO_LARGE))
            packed = await self._open(body, upload)
            config = _config_of(packed, body)
            draft = draft_of(replace(config, func_name=body.func_name, package=body.package), call.project)
            # The package holds the code, wherever it was stored before.
            kind = "zip" if config.code_type == "obs" else config.code_type
            received = ReceivedCode(file=packed.code, size=packed.code.stat().st_size)
            source = CodeSource(kind=kind, received=received, filename=config.code_filename)
            function = await self._catalog.create(draft, source)
            return with_warning(json_reply(function_reply(function, self._region)), function)

    async def _open(self, body: ImportBody, upload: Upload) -> Packed:
        received, folder = upload.code(body.file_code), await upload.new_folder()
        return await anyio.to_thread.run_sync(lambda: _opened(body.file_code, received, folder))

    def _config(self, function: Function) -> bytes:
        """Return the configuration as JSON: the fields of the reply about the function that CreateFunction accepts."""
        shown: dict[str, Any] = msgspec.to_builtins(function_reply(function, self._region))
        wanted = [name for name in CreateBody.__struct_fields__ if name in shown and name != "func_code"]
        return msgspec.json.encode({name: shown[name] for name in wanted})


def _config_of(packed: Packed, body: ImportBody) -> CreateBody:
    try:
        if not decode(packed.config, _Named).func_name:
            raise NamelessConfig(body.file_name)
        return decode(packed.config, CreateBody)
    except NotJson as problem:
        hint = f"the .yaml file must hold JSON, like the exports of this engine ({problem})"
        raise InvalidField("yaml", body.file_name, hint) from None
    except InvalidRequest as problem:
        raise InvalidField("yaml", body.file_name, str(problem)) from None


def _opened(text: str, received: ReceivedCode | None, folder: Path) -> Packed:
    """Unpack the package in ``received``, or in the base64 ``text`` if that is None, into ``folder``."""
    try:
        with _package(text, received) as package:
            return open_package(package, folder)
    except PayloadTooLarge:
        raise InvalidField("import_size", "more", _TOO_LARGE) from None


def _package(text: str, received: ReceivedCode | None) -> BinaryIO:
    try:
        if received is None:
            return io.BytesIO(decoded(text, FILE_LIMIT))
        check_received(received, FILE_LIMIT)
    except InvalidField as problem:
        shown = text if received is None else received.start
        raise InvalidField("file_code", shown, problem.allowed) from None
    return received.file.open("rb")


def _flag(call: Call, name: str) -> bool:
    text = call.text(name).lower()
    if text not in ("", "true", "false"):
        raise BadQuery(name, text, "must be true or false")
    return text == "true"
