"""Nothing is downloaded, and nobody called, at run time: with the network cut, all goes its way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CUT = Path(__file__).parent / "offline/cut.py"
TINY = ["seeds=2", "fractions=[1.0]", "train.steps=2", "train.batch_size=4", "train.precision=float32",
        "pretrain.train.steps=2", "pretrain.train.batch_size=8", "pretrain.train.precision=float32"]


def run_cut(*command: str) -> subprocess.CompletedProcess[str]:
    own = os.environ | {"PYTHONPATH": str(CUT.parents[2])}
    return subprocess.run([sys.executable, CUT, *command], env=own, capture_output=True, text=True, timeout=500)


ATTEMPTS = {
    "connect": "socket.create_connection(('192.0.2.1', 80), 1)",
    "name": "socket.getaddrinfo('example.org', 443)",
    "url": "urllib.request.urlopen('http://192.0.2.1/', timeout=1)",
    "child": "subprocess.run([sys.executable, '-c', 'import socket; socket.gethostbyname(\"example.org\")'])",
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_attempt_is_noticed(attempt: str):
    code = f"import socket, subprocess, sys, urllib.request\ntry: {ATTEMPTS[attempt]}\nexcept OSError: print('refused')"
    done = run_cut(sys.executable, "-c", code)
    assert done.returncode == 3
    assert "socket." in done.stderr
    assert attempt == "child" or "refused" in done.stdout


@pytest.mark.parametrize("attempt", ["exec 3<>/dev/tcp/192.0.2.1/80", "getent ahostsv4 updates.example.com"])
def test_an_attempt_past_python_is_noticed(attempt: str):
    """What programs in other languages try, by the kernel's count; also of a machine whose names a daemon looks up."""
    done = run_cut("bash", "-c", attempt)
    if "Python alone" in done.stderr:
        pytest.skip("no network namespace may be made here")
    assert done.returncode == 3
    assert re.search(r"[1-9]\d* times something was to be sent to another machine", done.stderr)


def test_loopback_is_no_attempt():
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    done = run_cut(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "no connection but loopback was tried" in done.stderr


def test_the_demo_reaches_for_nothing(tmp_path: Path):
    """From phantoms to the report, of one kind of data: `make test-offline` runs the whole of it."""
    done = run_cut(sys.executable, "-m", "medssl", "demo", "--out", str(tmp_path), "--patients", "0.01", "--only",
                   "echo", *TINY)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no connection but loopback was tried" in done.stderr
    assert (tmp_path / "report.html").stat().st_size > 100_000
