"""Changed bytes never end the program, hang it or fill memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fuzz_seeds import write_seeds

SECONDS = float(os.environ.get("MEDSSL_FUZZ_SECONDS", 3))
"""Of computing; MEDSSL_FUZZ_SECONDS=3600 fuzzes for an hour, with other bytes each time."""


def test_changed_bytes_end_in_a_scan_or_an_error_of_ours(tmp_path):
    write_seeds(tmp_path / "seeds")
    command = [sys.executable, Path(__file__).with_name("fuzz.py"), tmp_path / "seeds", str(SECONDS)]
    limited = os.environ | {"MEDSSL_MAX_SCAN_GIB": "0.1"}
    ended = subprocess.run(command, env=limited, capture_output=True, text=True, timeout=300 + 2 * SECONDS, check=False)
    assert ended.returncode == 0, f"{ended.stdout[-500:]}\n{ended.stderr[-3000:]}"
    assert {"read", "refused"} <= set(ended.stdout.split("\n")[-2].split())
