"""Runs a command with the network cut; exit status 3 where it, or a process that it started, tried to reach anything.

    python tests/offline/cut.py medssl demo --out runs/offline

Two witnesses: sitecustomize.py beside this file sees and refuses what Python tries. Where the system gives a network
namespace of one's own (root, or user namespaces), the kernel counts besides what any program tried to send and had no
route for; there is none but loopback.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
INSIDE = "MEDSSL_NETWORK_IS_CUT"
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
"""netdevice(7): how an interface is switched on."""


def main(command: Sequence[str]) -> int:
    if INSIDE not in os.environ and (namespace := _namespace()):
        again = [*namespace, sys.executable, __file__, *command]
        return subprocess.run(again, env=os.environ | {INSIDE: "1"}).returncode
    if INSIDE in os.environ:
        _switch_on_loopback()
    with tempfile.NamedTemporaryFile("r", suffix=".tried") as tried:
        path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        status = subprocess.run(command, env=os.environ | {"PYTHONPATH": path, "MEDSSL_TRIED": tried.name}).returncode
        told = tried.read().splitlines()
    if INSIDE in os.environ and (without_route := _without_route()):
        told.append(f"{without_route} times something was to be sent to another machine")
    witness = "the kernel and Python" if INSIDE in os.environ else "Python alone"
    print("\n".join(told) or f"no connection but loopback was tried, says {witness}", file=sys.stderr)
    return 3 if told else status


def _namespace() -> list[str]:
    """The words before a command that give it a network of its own; none where the system does not allow it."""
    for how in ("-n", "-rn"):
        if shutil.which("unshare") and subprocess.run(["unshare", how, "true"], capture_output=True).returncode == 0:
            return ["unshare", how]
    return []


def _switch_on_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def _without_route() -> int:
    """What this namespace's processes tried to send and the kernel had no route for, by IPv4 and IPv6."""
    names, values = (line.split()[1:] for line in Path("/proc/net/snmp").read_text().splitlines()[:2])
    count = int(dict(zip(names, values, strict=True))["OutNoRoutes"])
    six = Path("/proc/net/snmp6")
    found = re.search(r"Ip6OutNoRoutes\s+(\d+)", six.read_text()) if six.is_file() else None
    return count + (int(found[1]) if found else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
