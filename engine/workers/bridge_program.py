"""Kind of file that a ``bootstrap`` is, and reasons why it cannot run. Standard library only, Python 3.9 syntax."""

import os
import re

PLACES = rb"/opt/function/(?:runtime|code)/[\w./-]*\w"  # of the platform
#: names that Go gives to machines, by their number in a program of Linux
MACHINES = {3: "386", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64"}
ELF = b"\x7fELF"
MACOS = (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
CRLF = "bootstrap has lines that end with CRLF, as on Windows, where only LF may be: sed -i 's/\\r$//' bootstrap"


def refusal(path: str) -> str:
    """Return why this machine cannot run a bootstrap; an empty text if it may."""
    head, ours = read(path), machine(read("/proc/self/exe"))
    if head.startswith(b"#!"):
        return CRLF if head.partition(b"\n")[0].endswith(b"\r") else ""
    kind = "Windows" if head.startswith(b"MZ") else "macOS" if head.startswith(MACOS) else ""
    if head.startswith(ELF):
        kind = f"{machine(head)} Linux"
    if b"\0" not in head or kind == f"{ours} Linux":
        return ""
    if not kind:
        return "bootstrap is neither a script nor a program for Linux"
    build = f"build it for this machine, with Go by GOOS=linux GOARCH={ours}"
    return f"bootstrap is a program for {kind}, and this machine is {ours} Linux: {build}"


def advice_on(path: str) -> str:
    """Return what may have kept a bootstrap from its start; an empty text if nothing is known."""
    head = read(path)
    if head.startswith(ELF):
        return ""
    if b"\r\n" in head:
        return CRLF
    for place in map(os.fsdecode, re.findall(PLACES, head)):
        if not os.path.exists(place) and not os.path.isdir("/opt/function/code"):
            return f"bootstrap names {place}, and functions have /opt/function in a sandbox: install bubblewrap"
        if not os.path.exists(place) and place.startswith("/opt/function/runtime/"):
            return f"bootstrap names {place}, and this machine has none: see that the interpreter is installed"
    return ""


def machine(head: bytes) -> str:
    number = int.from_bytes(head[18:20], "big" if head[5:6] == b"\x02" else "little")
    return MACHINES.get(number, f"machine {number}")


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 16)
