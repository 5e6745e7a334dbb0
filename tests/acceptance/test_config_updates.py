"""Updates of a function's configuration in the order and form in which Terraform's provider sends them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.engine_process import BASE, EngineProcess, engine_on, urn_of
from tests.support.http_app import encoded
from tests.support.terraform import ALWAYS, ONLY_UPDATES

#: Returns the environment variables A and KEY of its instance.
TELLS = "import os\ndef handler(event, context):\n    return [os.environ.get(name) for name in ('A', 'KEY')]\n"
REQUIRED = {"runtime": "Python3.10", "timeout": 3, "memory_size": 128, "package": "default", "handler": "index.handler"}
CODE = {"code_type": "inline", "func_code": {"file": encoded(TELLS)}}
VARIABLES = {"user_data": '{"A":"1"}', "encrypted_user_data": '{"KEY":"secret"}'}
NETWORK = {"func_vpc": {"vpc_id": "v", "subnet_id": "s"}, "network_controller": {"disable_public_network": True}}
GPU = {"gpu_memory": 1024, "gpu_type": "nvidia-t4"}
STOP = {"pre_stop_handler": "index.handler", "pre_stop_timeout": 5}
LOG = {"log_config": {"group_id": "g", "group_name": "group", "stream_id": "s", "stream_name": "stream"}}
TAGS = {"lts_custom_tag": {"team": "a"}}
AGENCY = {"xrole": "agency"}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with engine_on(tmp_path_factory.mktemp("updates") / "data") as engine:
        yield engine


class Resource:
    """Function as the provider's resource: it creates, updates and reads the function with the provider's requests."""

    def __init__(self, engine: EngineProcess, name: str, **fields: object) -> None:
        self._engine, self._name = engine, name
        self._path = f"{BASE}/{urn_of(name).removesuffix(':latest')}"
        self._send("POST", BASE, {"func_name": name, **REQUIRED, **ALWAYS, **CODE, **fields})
        # A creation with fields of updates is followed by an update, which names the log no more.
        self.update(**{name: value for name, value in fields.items() if name not in LOG})

    def update(self, **fields: object) -> None:
        self._send("PUT", f"{self._path}/config", {**REQUIRED, **ALWAYS, **ONLY_UPDATES, **fields})

    def read(self, *names: str) -> dict[str, Any]:
        shown = self._send("GET", f"{self._path}/config", None)
        return {name: shown.get(name) for name in names}

    def call(self) -> Any:
        reply = self._engine.ask("POST", f"{BASE}/{urn_of(self._name)}/invocations", {})
        assert reply.status == 200, reply
        return reply.json

    def _send(self, method: str, path: str, body: object) -> Any:
        reply = self._engine.ask(method, path, body)
        assert reply.status == 200, reply
        return reply.json


def test_what_terraform_no_longer_names_is_gone_after_its_update(engine: EngineProcess) -> None:
    given = {**VARIABLES, **NETWORK, **GPU, **STOP, **AGENCY, **TAGS, "is_stateful_function": True}
    given |= {"enable_dynamic_memory": True, "description": "all"}
    function = Resource(engine, "all", **given, **LOG)
    created, said = function.read(*given, *LOG), function.call()

    function.update()

    assert (created, said) == ({**given, **LOG}, ["1", "secret"])
    values = {"user_data": "", "encrypted_user_data": "", "description": "", "pre_stop_handler": ""}
    flags = {"is_stateful_function": False, "enable_dynamic_memory": False}
    assert function.read(*given, *LOG) == {**dict.fromkeys((*given, *LOG)), **values, **flags}
    assert function.call() == [None, None]


def test_an_update_is_kept_when_the_engine_is_killed(engine: EngineProcess) -> None:
    function = Resource(engine, "kept", **VARIABLES, **AGENCY)
    function.update(**AGENCY)

    engine.kill(children=True)
    engine.start()

    assert function.read(*VARIABLES, *AGENCY) == {**dict.fromkeys(VARIABLES, ""), **AGENCY}
    assert function.call() == [None, None]
