"""Runs a command with the network cut; exit status 3 where it, or a process that it started, tried to reach anything.

    python tests/offline/cut.py medssl demo --out runs/offline

Two witnesses: sitecustomize.py beside this file sees and refuses what Python tries. Where the system gives a network
namespace of one's own (root, or user namespaces), the kernel counts besides what any program tried to send and had no
route for; there is none but loopback. Names are asked of a machine out there, too, whoever answers for them outside.
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
SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP = 0x8914, 0x8916, 1
"""netdevice(7): how an interface is switched on, and given an address."""


def main(command: Sequence[str]) -> int:
    if INSIDE not in os.environ and (namespace := _namespace()):
        again = [*namespace, sys.executable, __file__, *command]
        return subprocess.run(again, env=os.environ | {INSIDE: "1"}).returncode
    if INSIDE in os.environ:
        _switch_on_loopback()
        _ask_for_names_outside()
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
    """The words before a command that give it a network and mounts of its own; none where that is not allowed."""
    for how in ("-nm", "-rnm"):
        if shutil.which("unshare") and subprocess.run(["unshare", how, "true"], capture_output=True).returncode == 0:
            return ["unshare", how]
    return []


def _switch_on_loopback() -> None:
    """With a second address, as if there were a card: without, some programs give up before they ask for a name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton("198.51.100.1"))
        fcntl.ioctl(any_socket, SIOCSIFADDR, struct.pack("16s16s", b"lo:1", address))


def _ask_for_names_outside() -> None:
    """A resolver on loopback, or a daemon behind a socket, would be asked in silence, and would ask on."""
    settings = Path("/etc/nsswitch.conf")
    told = {Path("/etc/resolv.conf"): "nameserver 192.0.2.53\n"}
    if settings.is_file():
        told[settings] = re.sub(r"(?m)^hosts:.*$", "hosts: files dns", settings.read_text())
    with tempfile.TemporaryDirectory() as folder:
        for place, text in told.items():
            new = Path(folder, place.name)
            new.write_text(text)
            subprocess.run(["mount", "--bind", new, place], check=True)  # it stays when the folder is gone
    if Path("/run/nscd").is_dir():
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run/nscd"], check=True)


def _without_route() -> int:
    """What this namespace's processes tried to send and the kernel had no route for, by IPv4 and IPv6."""
    names, values = (line.split()[1:] for line in Path("/proc/net/snmp").read_text().splitlines()[:2])
    count = int(dict(zip(names, values, strict=True))["OutNoRoutes"])
    six = Path("/proc/net/snmp6")
    found = re.search(r"Ip6OutNoRoutes\s+(\d+)", six.read_text()) if six.is_file() else None
    return count + (int(found[1]) if found else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
