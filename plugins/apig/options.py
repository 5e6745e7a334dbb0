"""Options of an APIG trigger, which is an API: the requests that it answers, its access control, and its function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from engine import Mode
from plugins._shared.fields import Text
from plugins.apig.paths import check_path, without_names

Optional = Annotated[str, Meta(max_length=255)]


class FunctionInfo(Struct, frozen=True, kw_only=True):
    """Function of an API, and the manner and timeout of its calls."""

    function_urn: str = ""
    invocation_type: Literal["sync", "async"] = "sync"
    timeout: Annotated[int, Meta(ge=1, le=60_000)] = 5_000  #: milliseconds
    version: str = ""


class ApigOptions(Struct, frozen=True, kw_only=True):
    name: Text
    type: Literal[1, 2]  #: 1: public; 2: private
    path: Annotated[str, Meta(min_length=1, max_length=512)]
    protocol: Literal["HTTP", "HTTPS"]
    req_method: Literal["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "ANY"]
    group_id: Text
    match_mode: Literal["SWA", "NORMAL"]  #: SWA: beginning of the path; NORMAL: whole path
    env_name: Text
    env_id: Text
    auth: Literal["IAM", "APP", "NONE"]
    func_info: FunctionInfo
    group_name: Optional = ""
    sl_domain: Optional = ""
    backend_type: Literal["FUNCTION"] = "FUNCTION"
    instance_id: Optional = ""  #: id of a dedicated gateway
    roma_app_id: Optional = ""
    cors: bool = False  #: answer preflight requests, and permit any origin to read replies

    def __post_init__(self) -> None:
        check_path(self.path)


def mode(options: ApigOptions) -> Mode:
    return Mode(options.func_info.invocation_type)


def conflicts(mine: ApigOptions, other: ApigOptions, same_function: bool) -> bool:
    """Return whether two APIs of the same group and environment would answer the same requests."""
    first = (mine.instance_id, mine.group_id, mine.env_id, mine.match_mode, without_names(mine.path))
    second = (other.instance_id, other.group_id, other.env_id, other.match_mode, without_names(other.path))
    return first == second and ("ANY" in (mine.req_method, other.req_method) or mine.req_method == other.req_method)


def reply_fields(options: ApigOptions, trigger_id: str, urn: str, settings: Any) -> Mapping[str, Any]:
    backend = {
        "function_urn": urn,
        "invocation_type": options.func_info.invocation_type,
        "timeout": options.func_info.timeout,
        "version": options.func_info.version or urn.rpartition(":")[2],
    }
    api_id = trigger_id.replace("-", "")
    return {"triggerid": trigger_id, "api_id": api_id, "api_name": options.name, "func_info": backend}
