"""A peer that cannot be installed beside medssl: it works in a virtual environment and a process of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from harness import Peer

ROOT = Path(__file__).parent.parent


class Server:
    """Runs a script with another environment's Python from the first question on.

    It gets `settings` as JSON in its argument, reads a question a line and answers a line, both JSON.
    """

    def __init__(self, environment: Path, script: str, settings: dict[str, Any]) -> None:
        self.environment, self.script, self.settings = environment, script, settings
        self._process: subprocess.Popen[str] | None = None

    def ask(self, **question: Any) -> dict[str, Any]:
        if self._process is None:
            command = [self.environment / "bin/python", ROOT / "benchmarks" / self.script, json.dumps(self.settings)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.script} ended with {self._process.wait()}")
        return json.loads(answer)

    def version(self, package: str) -> str | None:
        """Of a package of that environment; None where the environment or the package is missing."""
        paths = [str(path) for path in self.environment.glob("lib/python*/site-packages")]
        return next((found.version for found in distributions(name=package, path=paths)), None)

    def close(self) -> None:
        """The end of its input is the end of the script."""
        if self._process:
            with self._process:
                self._process.stdin.close()


@contextmanager
def lightly(**settings: Any) -> Iterator[Server]:
    """lightly needs torchvision, whose wheel does not import beside a CPU build of torch; see lightly_peer.py."""
    server = Server(ROOT / ".venv-lightly", "lightly_peer.py", settings)
    try:
        yield server
    finally:
        server.close()


@dataclass(frozen=True, kw_only=True)
class RemotePeer(Peer):
    """Measures itself when asked to, so that what lies between the processes does not count."""

    server: Server
    question: dict[str, Any]

    @property
    def version(self) -> str | None:
        return self.server.version(self.package)

    @property
    def remedy(self) -> str:
        return f"make {self.server.environment.name}"

    def milliseconds(self) -> float:
        return self.server.ask(measure="milliseconds", **self.question)["milliseconds"]

    def mib(self) -> float | None:
        return self.server.ask(measure="peak_mib", **self.question)["peak_mib"]


def lightly_peer(name: str, server: Server, precision: str, target: float | None = None) -> RemotePeer:
    question = {"precision": precision}
    return RemotePeer(name, lambda: server.ask(measure="milliseconds", **question), "lightly", target, server=server,
                      question=question)
