"""The set-up commands of README, in a copy of the tree with an environment of its own (`make test-all`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TINY = ["seeds=2", "fractions=[0.5,1.0]", "train.steps=2", "train.batch_size=4", "pretrain.train.steps=2",
        "pretrain.train.batch_size=8"]
BUILDERS = ("buildah", "crun", "debootstrap", "unshare")

pytestmark = [pytest.mark.install, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git would hand out: nothing that is ignored, and no environment."""
    folder = tmp_path_factory.mktemp("clone") / "medssl"
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def _make(clone: Path, *arguments: str) -> str:
    own = {name: value for name, value in os.environ.items()
           if name not in ("VIRTUAL_ENV", "PYTHONPATH") and not name.startswith(("MAKE", "MFLAGS"))}  # of make test-all
    done = subprocess.run(["make", f"PYTHON={sys.base_prefix}/bin/python3", *arguments], cwd=clone, env=own,
                          capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_demo_and_test_set_themselves_up(clone: Path):
    assert not (clone / ".venv").exists()
    out = _make(clone, "demo", f"ARGS=--patients 0.01 --only echo {' '.join(TINY)}")
    assert out.rstrip().endswith("The report: runs/demo/report.html")
    assert (clone / "runs/demo/report.html").is_file()
    out = _make(clone, "test", "ARGS=tests/test_layers.py tests/metrics")
    assert "passed" in out
    assert "pip install" not in out, "a second call installs nothing"


def test_site_is_built_without_a_warning(clone: Path):
    _make(clone, "site")
    assert (clone / "site/index.html").is_file()


@pytest.fixture(scope="module")
def wheelhouse(clone: Path) -> Path:
    _make(clone, "wheelhouse")
    return clone / "wheelhouse"


@pytest.mark.skipif(os.geteuid() != 0 or not all(map(shutil.which, BUILDERS)),
                    reason=f"the image is built and run by root, with {', '.join(BUILDERS)}")
def test_the_image_runs_as_nobody_without_a_network_on_a_disk_that_it_cannot_write_to(wheelhouse: Path):
    with tempfile.TemporaryDirectory() as folder:  # some ten gigabytes, which pytest would keep
        done = subprocess.run([wheelhouse.parent / "docker/test.sh", folder], capture_output=True, text=True,
                              timeout=1700)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert done.stdout.endswith("== all of this held\n")


def test_a_wheelhouse_installs_and_runs_without_a_network(wheelhouse: Path, tmp_path: Path):
    clone = wheelhouse.parent
    cut = [sys.executable, ROOT / "tests/offline/cut.py"]
    install = ["-m", "pip", "install", "--disable-pip-version-check", "--no-index", "--find-links", "wheelhouse"]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "inside"], check=True, timeout=300)
    subprocess.run([*cut, tmp_path / "inside/bin/python", *install, "medssl"], check=True, timeout=900, cwd=clone)
    demo = [tmp_path / "inside/bin/medssl", "demo", "--out", tmp_path / "demo", "--patients", "0.01", "--only", "echo"]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*cut, *demo, *TINY], check=True, timeout=600, cwd=tmp_path, env=own)
    assert (tmp_path / "demo/report.html").is_file()


def test_installed_versions_are_the_pinned_ones(clone: Path):
    _make(clone, "install")
    pinned = dict(line.split("==") for line in (clone / "constraints.txt").read_text().splitlines() if "==" in line)
    frozen = subprocess.run([clone / ".venv/bin/python", "-m", "pip", "freeze", "--exclude-editable"], check=True,
                            capture_output=True, text=True).stdout
    ours = [line.split("==") for line in frozen.splitlines() if not line.startswith(("nvidia", "cuda", "triton"))]
    found = {name: version.split("+")[0] for name, version in ours}  # a GPU build of torch pins its own libraries
    assert found == {name: pinned.get(name, "not pinned") for name in found}


def test_old_python_is_told_plainly(clone: Path, tmp_path: Path):
    (tmp_path / "python2").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python2").chmod(0o755)
    done = subprocess.run(["make", f"PYTHON={tmp_path / 'python2'}", f"VENV={tmp_path / 'venv'}", "install"], cwd=clone,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "medssl needs Python 3.11 or newer" in done.stderr
