"""Python loads this at its start in every process whose PYTHONPATH has this folder: no word leaves the machine.

Whoever tries is refused, as by a machine without a network, and noted in the file $MEDSSL_TRIED.
"""

import errno
import os
import sys

_ASKED = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0,
          "socket.gethostbyname": 0, "socket.gethostbyaddr": 0}
"""Of Python's audit events, which argument is the address, or the host."""
_AT_HOME = (None, "", "localhost", "::1", "::", "0.0.0.0")


def _refuse(event: str, arguments: tuple) -> None:
    if event not in _ASKED:
        return
    address = arguments[_ASKED[event]]
    host = address[0] if isinstance(address, tuple) else address if "get" in event else None  # text: a socket's path
    host = host.decode() if isinstance(host, bytes) else host
    if host in _AT_HOME or not isinstance(host, str) or host.startswith("127."):
        return
    with open(os.environ["MEDSSL_TRIED"], "a") as file:
        file.write(f"{event} {address} by {' '.join(sys.argv)}\n")
    raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))


sys.addaudithook(_refuse)
