"""Operations on functions: create, show, update, delete (FunctionGraph API: CreateFunction and others)."""

from __future__ import annotations

import base64
from typing import TypeVar

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from engine.asgi.wire import Reply, json_reply
from engine.code.receiving import Upload
from engine.code.store import PACKAGE_LIMIT, CodeSource, CodeStore
from engine.errors import CodeMissing, CodePackageTooLarge, InvalidField
from engine.functions.catalog import Catalog
from engine.functions.controls import FunctionControls
from engine.functions.function_rules import Condition
from engine.functions.versions import Versions
from engine.http.api.function_replies import function_reply, with_warning
from engine.http.api.function_shapes import (
    CodeBody,
    ConfigBody,
    ConfigChanges,
    CreateBody,
    FuncCode,
    FunctionList,
    FunctionReply,
    MaxInstanceBody,
    PatchBody,
    changes_of,
    details_of,
    draft_of,
    replacement_of,
)
from engine.http.api.large_replies import list_reply, with_code
from engine.http.api.paging import ITEMS, page_of
from engine.http.api.routing import (
    AT_ONCE,
    CODE_LIMIT,
    FUNCTION,
    FUNCTIONS,
    LONG_LIMIT,
    ApiFamily,
    BodyCall,
    Call,
    operation,
    read,
)
from engine.metrics.usage import Usage
from engine.model import Function
from engine.model.urn import FunctionUrn
from engine.resources.reservations import Reservations

Config = TypeVar("Config", bound=ConfigChanges)

_CODE = f"{FUNCTION}/code"
_CONFIG = f"{FUNCTION}/config"
_APP = ("app", "take_over")  #: extension: query of requests that create, change or delete a function for an app


class Functions(ApiFamily):
    def __init__(
        self,
        catalog: Catalog,
        controls: FunctionControls,
        versions: Versions,
        codes: CodeStore,
        usage: Usage,
        reservations: Reservations,
        region: str,
    ) -> None:
        self._catalog, self._controls, self._versions = catalog, controls, versions
        self._codes, self._usage, self._reservations, self._region = codes, usage, reservations, region

    @operation("CreateFunction", "POST", FUNCTIONS, CreateBody, FunctionReply, query=_APP, limit=CODE_LIMIT)
    async def create(self, call: BodyCall[CreateBody]) -> Reply:
        async with self._codes.receiving("file") as upload:
            body = await call.read_code(upload, CodePackageTooLarge(PACKAGE_LIMIT))
            if body.code_url and body.code_type != "obs":
                call.ignored.append("code_url")
            function = await self._catalog.create(draft_of(body, call.project), _source(body, upload), _condition(call))
        return with_warning(json_reply(self._with_reserved(function)), function)

    @read("ListFunctions", FUNCTIONS, FunctionList, query=(*ITEMS, "package_name", "func_name", "app"))
    async def list_all(self, call: Call) -> Reply:
        package, name, app = call.text("package_name"), call.text("func_name"), call.given("app")
        matching = self._catalog.list(call.project, package=package, name_part=name, app=app)
        page = page_of(call, matching, "maxitems")
        failed = self._usage.sums("errors")
        functions = (self._listed(function, failed.get(function.function_id, 0)) for function in page.items)
        return await list_reply("functions", functions, count=page.count, next_marker=page.next_marker)

    @operation("DeleteFunction", "DELETE", FUNCTION, status=204, query=_APP)
    async def delete(self, call: Call) -> None:
        """Delete the version that the URN names, directly or by an alias.

        If the URN names neither a version nor an alias, delete the whole function.
        """
        urn, condition = call.urn, _condition(call)
        await (self._versions.delete(urn, condition) if urn.qualified else self._catalog.delete(urn, condition))

    @read("ShowFunctionConfig", _CONFIG, FunctionReply)
    async def show_config(self, call: Call) -> FunctionReply:
        return self._with_reserved(self._catalog.find(call.urn))

    @operation("ShowFunctionCode", "GET", _CODE, reply=FunctionReply)
    async def show_code(self, call: Call) -> Reply:
        return await self._with_code(self._catalog.find(call.urn))

    @operation("UpdateFunctionConfig", "PUT", _CONFIG, ConfigBody, FunctionReply, limit=LONG_LIMIT)
    async def update_config(self, call: BodyCall[ConfigBody]) -> Reply:
        """Replace the configuration. Fields that the body leaves out are reset."""
        changes = replacement_of(await self._read_config(call))
        function = await self._catalog.update(call.urn, changes)
        return with_warning(json_reply(self._reply(function)), function)

    @operation(
        "PatchFunctionConfig", "PATCH", _CONFIG, PatchBody, FunctionReply, query=_APP, limit=LONG_LIMIT, own=True
    )
    async def patch_config(self, call: BodyCall[PatchBody]) -> Reply:
        """Change the fields of the configuration that the body has. All others stay."""
        changes = changes_of(await self._read_config(call))
        function = await self._catalog.update(call.urn, changes, _condition(call))
        return with_warning(json_reply(self._reply(function)), function)

    async def _read_config(self, call: BodyCall[Config]) -> Config:
        old = self._catalog.find(call.urn)
        body = await call.read()
        if body.func_name not in (old.name, UNSET):
            raise InvalidField("func_name", body.func_name, f"must be {old.name}: a function cannot be renamed")
        if body.package not in (old.package, "", UNSET):
            hint = f"must be {old.package}: a function cannot move to another package; create it there, and delete this"
            raise InvalidField("package", body.package, hint)
        return body

    @operation(
        "UpdateFunctionCode", "PUT", _CODE, CodeBody, FunctionReply, query=_APP, headers=("If-Match",), limit=CODE_LIMIT
    )
    async def update_code(self, call: BodyCall[CodeBody]) -> Reply:
        """Replace the code. With the header If-Match, only if the present code has that digest."""
        urn, digest = call.urn, _digest_in(call.headers.get(b"if-match", b"*"))
        condition = replace(_condition(call), digest=digest)
        condition.check(self._catalog.find(urn))
        async with self._codes.receiving("file") as upload:
            body = await call.read_code(upload, CodePackageTooLarge(PACKAGE_LIMIT))
            if body.func_code.file or body.code_type == "obs":
                function = await self._catalog.update_code(urn, _source(body, upload), details_of(body), condition)
            else:
                function = await self._update_dependencies(urn, body, condition)
        return with_warning(await self._with_code(function), function)

    async def _update_dependencies(self, urn: FunctionUrn, body: CodeBody, condition: Condition) -> Function:
        """Apply an update of the code that has no code: keep the code, and replace the dependencies.

        Terraform sends such a request for a function with default code. Raises CodeMissing if the request names no
        dependencies, or another kind of code than the function has.
        """
        if body.depend_version_list is UNSET or body.code_type != self._catalog.find(urn).code.kind:
            raise CodeMissing(body.code_type)
        return await self._catalog.update(urn, {"details": details_of(body)}, condition)

    @operation(
        "UpdateFunctionMaxInstanceConfig", "PUT", f"{FUNCTION}/config-max-instance", MaxInstanceBody, FunctionReply
    )
    async def update_max_instances(self, call: BodyCall[MaxInstanceBody]) -> FunctionReply:
        urn = call.urn
        self._catalog.find(urn)
        body = await call.read()
        if body.max_instance_num is not UNSET:
            await self._catalog.limit(urn, body.max_instance_num)
        return self._reply(self._catalog.find(urn))

    @operation(
        "UpdateFunctionCollectState", "PUT", f"{FUNCTION}/collect/{{state}}", choices={"state": ("true", "false")}
    )
    async def collect(self, call: Call) -> None:
        """Set or clear the function's ``collected`` flag, by which a user marks a favourite.

        The flag is stored and has no effect in the engine.
        """
        state = call.part("state").lower()
        if state not in ("true", "false"):
            raise InvalidField("state", call.part("state"), "must be true or false")
        await self._catalog.collect(call.urn, state == "true")

    async def _with_code(self, function: Function) -> Reply:
        """Return the reply about a function with its code package.

        If the package exceeds ``PACKAGE_LIMIT``, the reply has only the URL from which it was loaded. A large package
        is read while it is sent.
        """
        code = function.code
        if code.size > PACKAGE_LIMIT:
            return json_reply(self._reply(function, FuncCode(link=code.url)))
        if code.size > AT_ONCE:
            file = self._codes.file(code)
            return with_code(lambda text: self._reply(function, FuncCode(file=text, link=code.url)), file, code.size)
        packed = await self._codes.original(code)
        return json_reply(self._reply(function, FuncCode(file=base64.b64encode(packed).decode(), link=code.url)))

    def _with_reserved(self, function: Function) -> FunctionReply:
        held = self._reservations.find(function.project, function.urn(self._region))
        count, idle = sum(reserved.count for reserved in held), any(reserved.reservation.idle_mode for reserved in held)
        return replace(self._reply(function), reserved_instance_count=count, reserved_instance_idle_mode=idle)

    def _listed(self, function: Function, failures: int) -> FunctionReply:
        paused = self._controls.of(function.function_id).paused or UNSET
        return replace(self._reply(function), fail_count=failures, paused=paused)

    def _reply(self, function: Function, code: FuncCode | UnsetType = UNSET) -> FunctionReply:
        return function_reply(function, self._region, code)


def _condition(call: Call) -> Condition:
    return Condition(app=call.given("app"), take_over=call.text("take_over") == "true")


def _digest_in(header: bytes) -> str | None:
    """Return the digest in a header If-Match; None if any code matches."""
    text = header.decode("latin-1").strip()
    return None if text == "*" else text.strip('"')


def _source(body: CreateBody | CodeBody, upload: Upload) -> CodeSource:
    code = body.func_code
    url = (body.code_url if body.code_type == "obs" else "") or code.link  # OTC's client sends it for other kinds, too
    received = upload.code(code.file)
    return CodeSource(
        kind=body.code_type,
        file="" if received else code.file,
        received=received,
        filename=body.code_filename,
        url=url,
    )
