"""Instances with GPUs: what they see in a sandbox and without one."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.executors.call import Key
from engine.executors.launcher import LaunchPlan
from engine.executors.local.choice import NO_ISOLATION, IsolationOptions
from engine.executors.pool import Pool
from engine.isolation.gpus import Gpus
from engine.isolation.rlimits import RlimitIsolation
from engine.model import Function
from tests.support.executing import pool
from tests.support.instances import result
from tests.support.programs import program

SOURCE = """
import os, resource, stat

def look(event, context):
    files = ["/dev/" + name for name in os.listdir("/dev") if name != "shm"]
    devices = sorted(file for file in files if not os.path.islink(file) and stat.S_ISCHR(os.stat(file).st_mode))
    for name in event.get("open", ()):
        os.close(os.open(name, os.O_RDWR))
    return [os.environ.get("CUDA_VISIBLE_DEVICES"), devices, resource.getrlimit(resource.RLIMIT_AS)[0]]
"""
USUAL = [f"/dev/{name}" for name in ("full", "null", "random", "urandom", "zero")]
DEVICE = "/dev/tty"  #: a device file that each machine has
FIXED: dict[str, Any] = {"revision": 1, "user_data": {"CUDA_VISIBLE_DEVICES": "7"}}


def give(opened: Pool, gpus: Gpus) -> None:
    """Give these GPUs to the instances that the pool starts from now on."""
    launcher = opened._launcher
    prepare = type(launcher).prepare

    async def prepare_with(key: Key, function: Function, on_wait: Callable[[], None]) -> LaunchPlan:
        return (await prepare(launcher, key, function, on_wait))._replace(gpus=gpus)

    launcher.prepare = prepare_with  # type: ignore[method-assign]


async def test_a_sandbox_has_the_devices_of_its_instances_only(tmp_path: Path) -> None:
    program("bwrap")
    assert stat.S_ISCHR(os.stat(DEVICE).st_mode)
    seen = {}
    async with pool(tmp_path, SOURCE, sandbox=IsolationOptions(isolation="bubblewrap")) as opened:
        for gpus in (Gpus("GPU-a", (DEVICE, "/dev/zero")), Gpus("GPU-b"), Gpus(), Gpus("GPU-a", (DEVICE, "/dev/zero"))):
            give(opened, gpus)
            seen[gpus.visible] = (await result(opened, "look", {"open": gpus.devices[1:]}, **FIXED))[:2]
            await opened.retire(1)

    assert seen == {"GPU-a": ["GPU-a", sorted([*USUAL, DEVICE])], "GPU-b": ["GPU-b", USUAL], "": ["7", USUAL]}


async def test_address_space_is_not_limited_with_gpus(tmp_path: Path) -> None:
    async with pool(tmp_path, SOURCE, sandbox=NO_ISOLATION, isolation=RlimitIsolation()) as opened:
        assert (await result(opened, "look"))[2] != resource.RLIM_INFINITY
        give(opened, Gpus("GPU-a"))
        assert (await result(opened, "look", **FIXED))[::2] == ["GPU-a", resource.RLIM_INFINITY]
