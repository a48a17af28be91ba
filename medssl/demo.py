"""`medssl demo`: the same steps that a user takes on their own archive, on synthetic patients, resumable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medssl.config import path_override
from medssl.data.build import build
from medssl.data.card import Card
from medssl.data.checks import check
from medssl.data.manifest import Manifest
from medssl.errors import ConfigError, ManifestError
from medssl.evaluate.curve import CurveConfig
from medssl.phantom import PHANTOMS
from medssl.recipe import load_recipe, shipped_folder
from medssl.report.pages import curve_with_report, report_runs
from medssl.train.bar import Bar

KEY = b"phantoms are nobody: a public key"
"""Phantoms identify no person; with one key everywhere, everyone's demo draws the same label subsets."""


@dataclass(frozen=True)
class Act:
    """One dataset of the demo: which phantom, read through which card, into which curve."""

    phantom: str
    card: str
    curve: str
    patients: int


ACTS = (
    Act("xray", "chexpert.yaml", "phantom_xray/curve.yaml", 700),
    Act("brain", "brats2021.yaml", "phantom_brain/curve.yaml", 120),
    Act("echo", "echonet_dynamic.yaml", "phantom_echo/curve.yaml", 400),
)


def run_demo(out: Path, scale: float, only: str | None, overrides: list[str]) -> Path:
    """Phantoms, manifest, check, pretraining, curves and one report; what is done already is not done again.

    Args:
        scale: multiplies the number of patients of every dataset.
        only: the one phantom to show; all by default.
        overrides: of every curve's recipe.
    """
    acts = [act for act in ACTS if only in (None, act.phantom)]
    if not acts:
        raise ConfigError(f"There is no phantom {only!r}", expected=f"one of {', '.join(PHANTOMS)}")
    recipes = [_recipe(act, out, overrides) for act in acts]  # a mistake in an override is told before anything is done
    folders = [_play(act, out, max(24, round(act.patients * scale)), recipe)
               for act, recipe in zip(acts, recipes, strict=True)]
    return report_runs(folders, out / "report.html", "medssl demo: how many labels does pretraining save on phantoms?")


def write_phantom(name: str, folder: Path, patients: int, seed: int = 0) -> None:
    """Writes a phantom dataset with a progress bar; ConfigError for an unknown name."""
    if name not in PHANTOMS:
        raise ConfigError(f"There is no phantom {name!r}", expected=f"one of {', '.join(PHANTOMS)}")
    with Bar(f"phantom {name}") as progress:
        PHANTOMS[name](folder, patients, seed, progress)


def _recipe(act: Act, out: Path, overrides: list[str]) -> CurveConfig:
    places = [path_override("data.manifest", out / "manifests" / f"{act.phantom}.parquet"),
              path_override("data.cache", out / "cache")]
    return load_recipe(shipped_folder("pipelines") / act.curve, "curve", [*places, *overrides])


def _play(act: Act, out: Path, patients: int, config: CurveConfig) -> Path:
    data, folder = out / "data" / act.phantom, out / act.phantom
    write_phantom(act.phantom, data, patients)
    _manifest(act, data, config.data.manifest)
    for sentence in curve_with_report(config, folder):
        print(f"  {sentence}")
    return folder


def _manifest(act: Act, data: Path, table: Path) -> None:
    if table.is_file() and table.stat().st_mtime >= (data / "phantom.json").stat().st_mtime:
        return
    with Bar(f"manifest {act.phantom}") as progress:
        built = build(Card.read(shipped_folder("data_manifests") / act.card), data, KEY, progress)
    built.save(table)
    errors = [finding for finding in check(Manifest.load(table)) if finding.level == "error"]
    if errors:
        raise ManifestError(errors[0].what, expected=errors[0].expected, remedy=errors[0].remedy)
