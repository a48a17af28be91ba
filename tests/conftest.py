"""Tiny phantoms and their manifests, made once for every test that runs whole steps."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disks import limited, small_disk  # noqa: F401 (fixtures)

from medssl.data.build import build
from medssl.data.card import Card
from medssl.demo import KEY
from medssl.phantom import PHANTOMS
from medssl.recipe import shipped_folder
from medssl.train.signals import STOPPING

PATIENTS = {"xray": 24, "brain": 14, "echo": 17}
"""So few that every split has somebody, and some finding of the X-rays both classes."""


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{xray, brain, echo: the folder of a tiny phantom dataset}, in the layouts of CheXpert, BraTS and EchoNet."""
    root = tmp_path_factory.mktemp("phantoms")
    for name, patients in PATIENTS.items():
        PHANTOMS[name](root / name, patients)
    return {name: root / name for name in PATIENTS}


@pytest.fixture(scope="session")
def manifests(phantoms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{xray, brain, echo, dicom, nifti: a manifest}; the last two are the folders without labels of those phantoms."""
    root = tmp_path_factory.mktemp("manifests")
    sources = {
        "xray": ("chexpert", phantoms["xray"]),
        "brain": ("brats2021", phantoms["brain"]),
        "echo": ("echonet_dynamic", phantoms["echo"]),
        "dicom": ("dicom_folder", phantoms["xray"] / "dicom"),
        "nifti": ("nifti_folder", phantoms["brain"]),
    }
    for name, (card, folder) in sources.items():
        build(Card.read(shipped_folder("data_manifests") / f"{card}.yaml"), folder, KEY).save(root / f"{name}.parquet")
    return {name: root / f"{name}.parquet" for name in sources}


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker, or none where a curve can do without: starting more takes longer than these few cases."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """A command that ends in this process leaves signals deaf and a umask, as its own process would."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    os.umask(umask := os.umask(0o077))
    yield
    os.umask(umask)
    for number, handler in before.items():
        signal.signal(number, handler)
