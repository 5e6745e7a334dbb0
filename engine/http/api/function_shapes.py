"""Functions as request bodies and replies of the API represent them (FunctionGraph API: CreateFunction and others).

The fields of ``PassthroughFields`` are stored and returned unchanged, so that a client finds no difference between sent
and returned values. Most of them have no effect in this engine. Fields of a body that are not defined here are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from engine.code.store import NO_CODE
from engine.errors import InvalidField
from engine.http.api.async_settings import SettingsShown
from engine.http.api.decoding import given_fields
from engine.http.api.dependencies import DependencyReply
from engine.model import Function, limits
from engine.resources.tags import read_tags

Text = str | UnsetType
Flag = bool | UnsetType
Number = int | UnsetType
Texts = list[str] | UnsetType
Table = dict[str, Any] | UnsetType
#: Values of the platform; the code store rejects those that this engine does not support.
CodeType = Annotated[str, Meta(extra_json_schema={"enum": ["inline", "zip", "obs", "jar", "Custom-Image-Swr"]})]
_ANY = -1  #: the platform's default
MountId = Annotated[int, Meta(ge=_ANY, le=65_534)]
Runtime = Annotated[str, limits.words("Runtime", "Needs its interpreter on this machine.")]
MemorySize = Annotated[limits.Memory, limits.words("Memory", "Of one instance. The share of CPU grows with it.")]
About = Annotated[limits.Description, Meta(extra={"help": "Shown in lists of functions.", "control": "area"})]
DynamicMemory = Annotated[
    bool, limits.words("Callers may choose the memory", "With the header X-Cff-Instance-Memory of a request.")
]


class FuncCode(Struct, frozen=True, kw_only=True):
    file: str = ""
    link: limits.Link = ""


class Strategy(Struct, frozen=True, kw_only=True):
    """Limits on a function's instances: their number, and the requests that one of them serves at a time.

    The vendor documents both fields as required, but Terraform sends ``concurrent_num`` alone.
    """

    concurrency: limits.Instances | UnsetType = UNSET
    concurrent_num: limits.Requests | UnsetType = UNSET


class PassthroughFields(Struct, frozen=True, kw_only=True):
    app_xrole: Text = UNSET
    code_encrypt_kms_key_id: Text = UNSET
    custom_image: Table = UNSET
    depend_version_list: Texts = UNSET
    domain_names: Text = UNSET
    enable_auth_in_header: Flag = UNSET
    enable_class_isolation: Flag = UNSET
    enable_cloud_debug: Text = UNSET
    enable_lts_log: Flag = UNSET
    enterprise_project_id: Text = UNSET
    ephemeral_storage: Literal[512, 10240] | UnsetType = UNSET
    extend_config: Text = UNSET
    func_vpc: Table = UNSET
    gpu_memory: Number = UNSET
    gpu_type: Text = UNSET
    heartbeat_handler: Text = UNSET
    is_stateful_function: Flag = UNSET
    log_config: Table = UNSET
    lts_custom_tag: dict[str, str] | UnsetType = UNSET
    mount_config: MountConfig | UnsetType = UNSET
    network_controller: Table = UNSET
    peering_cidr: Text = UNSET
    restore_hook_handler: Text = UNSET
    restore_hook_timeout: limits.RestoreHookTimeout | UnsetType = UNSET
    type: Literal["v1", "v2"] | UnsetType = UNSET
    user_data_encrypt_kms_key_id: Text = UNSET
    xrole: Text = UNSET
    functiond: Table = UNSET  #: extension: ``app``, ``folders``, ``http``, ``priority_cap``, ``per_key``, ``weight``


class ConfigChanges(PassthroughFields, frozen=True, kw_only=True):
    """Fields of a function's configuration that a request changes."""

    func_name: limits.Name | UnsetType = UNSET  #: documented as required, but Terraform omits it
    package: limits.SamePackage | UnsetType = UNSET  #: cannot be changed; empty in updates of OTC's client in Go
    runtime: Runtime | UnsetType = UNSET
    handler: limits.Handler | UnsetType = UNSET
    memory_size: MemorySize | UnsetType = UNSET
    timeout: limits.Timeout | UnsetType = UNSET
    user_data: Text = UNSET
    encrypted_user_data: Text = UNSET
    description: About | UnsetType = UNSET
    initializer_handler: limits.Initializer | UnsetType = UNSET
    initializer_timeout: limits.InitializerTimeout | UnsetType = UNSET
    pre_stop_handler: limits.PreStopHandler | UnsetType = UNSET
    pre_stop_timeout: limits.PreStopTimeout | UnsetType = UNSET
    enable_dynamic_memory: DynamicMemory | UnsetType = UNSET
    strategy_config: Strategy | UnsetType = UNSET
    func_mounts: MountConfig | UnsetType = UNSET  #: Terraform sends ``mount_config`` by this name


class PatchBody(ConfigChanges, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields of a function's configuration that a request of ours changes."""


class ConfigBody(ConfigChanges, frozen=True, kw_only=True):
    """Configuration of a function, as sent by requests that create one or replace its configuration."""

    runtime: Runtime
    handler: limits.Handler
    memory_size: MemorySize
    timeout: limits.Timeout


class CreateBody(ConfigBody, frozen=True, kw_only=True):
    func_name: limits.Name
    package: limits.Name
    tags: Text = UNSET  #: JSON; changed later by the tag operations
    code_type: CodeType = ""
    code_filename: limits.FileName = ""
    code_url: limits.Link = ""
    func_code: FuncCode = FuncCode()


class CodeBody(Struct, frozen=True, kw_only=True):
    code_type: CodeType
    func_code: FuncCode = FuncCode()  #: documented as required, but a link suffices
    code_filename: limits.FileName = ""
    code_url: limits.Link = ""
    depend_version_list: Texts = UNSET
    code_encrypt_kms_key_id: Text = UNSET


class MaxInstanceBody(Struct, frozen=True, kw_only=True):
    max_instance_num: limits.Instances | UnsetType = UNSET


class FunctionReply(PassthroughFields, frozen=True, kw_only=True):
    """Function in every reply that describes one.

    Some operations fill more fields than others. Clients ignore fields that they do not expect.
    """

    func_id: str
    func_name: str
    func_urn: str
    resource_id: str
    domain_id: str
    namespace: str
    project_name: str
    package: str
    version: str
    runtime: str
    handler: str
    memory_size: int
    cpu: int
    timeout: int
    long_time: bool
    code_type: str
    code_filename: str
    code_url: str
    code_size: int
    digest: str
    image_name: str
    last_modified: str
    user_data: str
    encrypted_user_data: str
    description: str
    initializer_handler: str
    initializer_timeout: int
    pre_stop_handler: str
    pre_stop_timeout: Number = UNSET
    enable_dynamic_memory: bool
    strategy_config: Strategy
    dependencies: list[DependencyReply]
    depend_list: list[str]
    log_group_id: str
    log_stream_id: str
    func_vpc_id: str
    collected: bool
    # Features that this engine does not have.
    allow_ephemeral_storage: bool = False
    apig_route_enable: bool = False
    bind_bridge_funcUrns: list[str] = []  # noqa: N815  (the API's own spelling)
    is_bridge_function: bool = False
    is_return_stream: bool = False
    is_stateful_function: Flag = False
    # In replies about one function, or in lists.
    reserved_instance_count: Number = UNSET
    reserved_instance_idle_mode: Flag = UNSET
    fail_count: Number = UNSET
    paused: Flag = UNSET  # extension of the API; True, or left out
    func_code: FuncCode | UnsetType = UNSET
    # In replies about versions only.
    version_description: Text = UNSET
    concurrency: Number = UNSET
    concurrent_num: Number = UNSET
    function_async_config: SettingsShown | UnsetType = UNSET


class FunctionList(Struct, frozen=True, kw_only=True):
    functions: list[FunctionReply]
    count: int
    next_marker: int


#: API fields with another name in Function.
_FUNCTION_NAMES = {"enable_dynamic_memory": "dynamic_memory"}
_PLAIN = (
    "runtime",
    "handler",
    "memory_size",
    "timeout",
    "description",
    "initializer_handler",
    "initializer_timeout",
    "pre_stop_handler",
    "pre_stop_timeout",
    "enable_dynamic_memory",
)
#: Fields that no update of the configuration resets. Other requests set most of them, such as those for code and
#: instance limits. ``type`` and ``package`` never change, and clients of the vendor's API do not know ``functiond``.
_NOT_RESET = (
    "func_name",
    "package",
    "type",
    "func_mounts",
    "depend_version_list",
    "code_encrypt_kms_key_id",
    "strategy_config",
    "functiond",
    "enable_lts_log",  # Terraform sends the fields of the log only when they change
    "log_config",
)
_DEFAULTS = msgspec.structs.asdict(
    Function(
        function_id=0, project="", package="", name="", runtime="", handler="", memory_size=0, timeout=0, code=NO_CODE
    )
)


def changes_of(body: ConfigChanges) -> dict[str, Any]:
    """Return new values for fields of Function, by field name, from the fields that the body sets.

    Raises InvalidField if the environment variables are not the text of a JSON object of strings.
    """
    changes = {_FUNCTION_NAMES.get(name, name): value for name, value in given_fields(body, _PLAIN).items()}
    details = details_of(body)
    for name, text in given_fields(body, ("user_data", "encrypted_user_data")).items():
        changes[name], details[name] = variables_of(name, text), text
    if isinstance(body.strategy_config, Strategy):
        strategy = body.strategy_config
        given = {"max_instances": strategy.concurrency, "concurrent_num": strategy.concurrent_num}
        changes |= {name: value for name, value in given.items() if value is not UNSET}
    changes["details"] = details
    return changes


def replacement_of(body: ConfigBody) -> dict[str, Any]:
    """Return the values of ``changes_of``, with the default value for each field that the body does not set.

    Fields in ``_NOT_RESET`` keep their values. In the entry ``details``, the value UNSET means that the field is to be
    removed. Raises InvalidField as ``changes_of`` does.
    """
    changes = changes_of(body)
    reset = [name for name in ConfigBody.__struct_fields__ if getattr(body, name) is UNSET and name not in _NOT_RESET]
    for name in reset:
        if (own := _FUNCTION_NAMES.get(name, name)) in _DEFAULTS:
            changes[own] = _DEFAULTS[own]
    return changes | {"details": {**dict.fromkeys(reset, UNSET), **changes["details"]}}


def draft_of(body: CreateBody, project: str) -> Function:
    """Return the new function that a body describes. It has no id and no code yet.

    Raises InvalidField if the environment variables or the tags are invalid.
    """
    changes = changes_of(body)
    if body.tags is not UNSET:
        read_tags(body.tags)
        changes["details"]["tags"] = body.tags
    return Function(function_id=0, project=project, package=body.package, name=body.func_name, code=NO_CODE, **changes)


def details_of(body: Struct) -> dict[str, Any]:
    """Return the values of those ``PassthroughFields`` that the body sets, by field name.

    Raises InvalidField if the mounts are invalid.
    """
    details = given_fields(body, PassthroughFields.__struct_fields__)
    for mounts in given_fields(body, ("func_mounts", "mount_config")).values():
        details["mount_config"] = mounts_shown(mounts)
    return details


def variables_of(field: str, text: str) -> dict[str, str]:
    """Decode environment variables from the text of a JSON object. Numbers and truth values become text.

    Raises InvalidField if ``text`` is not a JSON object, or a value is null, a list or an object.
    """
    kind = dict[str, str | int | float | bool]
    try:
        values = msgspec.json.decode(text.encode("utf-8", "surrogatepass"), type=kind) if text else {}
        return {name: it if isinstance(it, str) else msgspec.json.encode(it).decode() for name, it in values.items()}
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidField(
            field, "not as expected", f"must be the text of a JSON object of strings ({error})"
        ) from None


def variables_text(variables: dict[str, str]) -> str:
    return msgspec.json.encode(variables).decode() if variables else ""


class MountUser(Struct, frozen=True, kw_only=True):
    """User and group that own mounted files. Terraform sends the second name of each number."""

    user_id: MountId | UnsetType = UNSET
    user_group_id: MountId | UnsetType = UNSET
    mount_user_id: MountId | UnsetType = UNSET
    mount_user_group_id: MountId | UnsetType = UNSET


class MountConfig(Struct, frozen=True, kw_only=True):
    """Mounts, and the user that owns their files. Terraform sends ``mount_config`` in place of ``func_mounts``."""

    mount_user: MountUser = MountUser()
    func_mounts: list[dict[str, Any]] | UnsetType = UNSET
    mount_config: list[dict[str, Any]] | UnsetType = UNSET


def mounts_shown(given: MountConfig) -> dict[str, Any]:
    """Return the mounts in the form of replies. Raises InvalidField if a user or group is 0, which is root."""
    user, mounts = given.mount_user, given.mount_config if given.func_mounts is UNSET else given.func_mounts
    return {
        "mount_user": {
            "user_id": _number("user_id", user.user_id, user.mount_user_id),
            "user_group_id": _number("user_group_id", user.user_group_id, user.mount_user_group_id),
        },
        "func_mounts": [] if mounts is UNSET else mounts,
    }


def _number(name: str, *given: int | UnsetType) -> int:
    number = next((value for value in given if isinstance(value, int)), _ANY)
    if not number:
        raise InvalidField(f"mount_config.mount_user.{name}", number, "must be -1 (any), or from 1 to 65534")
    return number
