"""The layers of pyproject.toml hold, and the contract that says so can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LINT], cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)},
                          capture_output=True, text=True, timeout=120)


def test_imports_only_go_down():
    done = _lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "1 kept, 0 broken" in done.stdout


def test_an_import_that_goes_up_is_found(tmp_path: Path):
    shutil.copytree(ROOT / "medssl", tmp_path / "medssl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with open(tmp_path / "medssl/metrics/classify.py", "a") as file:
        file.write("\nfrom medssl.train import loop\n")
    done = _lint(tmp_path)
    assert done.returncode == 1
    assert "medssl.metrics.classify -> medssl.train.loop" in done.stdout


def test_the_package_runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "medssl", "check", "absent.parquet"], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("medssl: No manifest absent.parquet")


def test_medssl_is_cheap_to_import():
    code = "import sys, medssl, medssl.cli; sys.exit('torch' in sys.modules or 'SimpleITK' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_the_wheel_has_every_package():
    """Tests run from the tree, where what was forgotten is there all the same."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "medssl").rglob("__init__.py")}
    assert {name for name in told if "_shipped" not in name} == found
