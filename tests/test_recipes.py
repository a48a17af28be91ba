"""Every recipe in pipelines/ is read, built and trained for two steps on phantoms, under one table of overrides."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from medssl.data.manifest import Manifest
from medssl.errors import ConfigError
from medssl.evaluate.curve import CurveConfig
from medssl.evaluate.points import run_curve
from medssl.evaluate.single import evaluate_run
from medssl.models.weights import load_encoder
from medssl.recipe import load_any, load_recipe, shipped_folder
from medssl.train.bar import Bar
from medssl.train.finetune import FinetuneConfig, finetune
from medssl.train.pretrain import PretrainConfig, pretrain

PIPELINES = shipped_folder("pipelines")
RECIPES = sorted(str(path.relative_to(PIPELINES)) for path in PIPELINES.glob("*/*.yaml"))

SMALL_IMAGES = ["data.prepare.size=[64,64]", "augment.size=[64,64]"]
SMALL_VOLUMES = ["data.prepare.size=[20,32,32]", "data.box.size=[32,32,32]"]
SMOKE: dict[str, tuple[str, list[str]]] = {
    # folder of pipelines/: the phantom that stands in for its data, and what makes its pictures small
    "brats2021": ("brain", SMALL_VOLUMES),
    "brats2023_gli": ("brain", SMALL_VOLUMES),
    "chexpert": ("xray", SMALL_IMAGES),
    "dicom_folder": ("dicom", SMALL_IMAGES),
    "echonet_dynamic": ("echo", ["data.prepare.size=[32,32]", "data.box.size=[4,32,32]"]),
    "glioma_lgg": ("brain", ["data.prepare.size=[48,48]"]),
    "hippocampus_msd": ("brain", SMALL_VOLUMES),
    "nifti_folder": ("nifti", ["data.prepare.spacing=[6,6,6]", "data.box.size=[32,32,32]"]),
    "nih_cxr": ("xray", []),
    "phantom_brain": ("brain", []),
    "phantom_echo": ("echo", []),
    "phantom_xray": ("xray", []),
}
SHORT = ["train.steps=2", "train.batch_size=2", "train.workers=0", "train.precision=float32"]


@pytest.fixture(scope="session")
def smoke_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smoke")


def _overrides(recipe: str, manifests: dict[str, Path], smoke_folder: Path) -> list[str]:
    phantom, smaller = SMOKE[Path(recipe).parent.name]
    return [f"data.manifest={manifests[phantom]}", f"data.cache={smoke_folder / 'cache'}", *smaller, *SHORT]


def _pretrained(init: Path, manifests: dict[str, Path], smoke_folder: Path) -> Path:
    """A two-step run of the recipe that `init: runs/<folder>/<name>` stands for."""
    recipe = f"{init.parent.name}/{init.name}.yaml"
    assert recipe in RECIPES, f"init names {init}, which no recipe makes"
    shallow = ["encoder.depth=1"] if load_any(PIPELINES / recipe).encoder.name == "vit" else []
    config = load_recipe(PIPELINES / recipe, "pretrain", [*_overrides(recipe, manifests, smoke_folder), *shallow])
    return pretrain(config, smoke_folder / init.parent.name / init.name)


def test_table_is_complete():
    assert {Path(recipe).parent.name for recipe in RECIPES} == set(SMOKE)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_read_and_opens_with_its_question(recipe: str):
    config = load_any(PIPELINES / recipe)
    head = (PIPELINES / recipe).read_text().split("\nstep:")[0].split("\nextends:")[0]
    assert config.title
    assert "# Command   medssl" in head
    for named in re.findall(r"pipelines/(\S+\.yaml)", head):
        assert named in RECIPES


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_builds_and_trains_two_steps(
    recipe: str, manifests: dict[str, Path], smoke_folder: Path, tmp_path: Path
):
    config, overrides = load_any(PIPELINES / recipe), _overrides(recipe, manifests, smoke_folder)
    if isinstance(config, PretrainConfig):
        run = _pretrained(Path("runs") / Path(recipe).with_suffix(""), manifests, smoke_folder)
        assert load_encoder(run).width > 0
    elif isinstance(config, FinetuneConfig):
        start = [f"init={_pretrained(config.init, manifests, smoke_folder)}"] if config.init else []
        run = finetune(load_recipe(PIPELINES / recipe, "finetune", [*overrides, *start]), tmp_path)
        assert (run / "model.json").is_file()
    else:
        _smoke_curve(recipe, config, overrides, manifests, smoke_folder, tmp_path)


@pytest.mark.usefixtures("one_core")
def test_chexpert_s_studies_are_judged_once_each_over_all_their_views(
    manifests: dict[str, Path], smoke_folder: Path, tmp_path: Path
):
    overrides = _overrides("chexpert/finetune.yaml", manifests, smoke_folder)
    small = ["init=null", "encoder={name: resnet, blocks: [1, 1, 1, 1], widths: [4, 4, 8, 8]}"]
    run = finetune(load_recipe(PIPELINES / "chexpert/finetune.yaml", "finetune", [*overrides, *small]), tmp_path)
    assert (run / "teacher/metrics.jsonl").is_file()
    evaluate_run(run, "test", [])
    images = Manifest.load(manifests["xray"]).cases.filter(pl.col("split") == "test")
    judged = pl.read_parquet(run / "predictions.parquet")
    assert set(judged["case_id"]) == set(images["study_id"])
    assert len(judged) == 5 * images["study_id"].n_unique() < 5 * len(images)


def _smoke_curve(recipe: str, config: CurveConfig, overrides: list[str], manifests: dict[str, Path],
                 smoke_folder: Path, out: Path) -> None:
    overrides += ["seeds=1", "fractions=[1.0]"]
    is_pretrained = any(arm.pretrain for arm in config.arms.values())
    if is_pretrained and config.task.name == "classify":  # a phantom's test split may lack a finding
        overrides.append("protocol={name: cross_validation, folds: 2}")
    elif config.protocol.name == "cross_validation":
        overrides.append("protocol.folds=2")
    if is_pretrained:
        overrides += [f"pretrain.{override}" for override in overrides if override.startswith(("train.", "data.p"))]
    if config.scaling.model:  # so many arms are trained once; how a rate is chosen others show
        overrides.append("choice=null")
    for name, arm in config.arms.items():
        if arm.pretrain and arm.pretrain.encoder.name == "vit":
            overrides.append(f"arms.{name}.pretrain.encoder.depth=1")
        if arm.init:
            overrides.append(f"arms.{name}.init={_pretrained(arm.init, manifests, smoke_folder)}")
    small = load_recipe(PIPELINES / recipe, "curve", overrides)
    assert run_curve(small, out, 1, Bar)
    summary = pl.read_parquet(out / "summary.parquet")
    assert set(summary["arm"]) == set(config.arms)
    assert summary["mean"].is_finite().any()


@pytest.mark.parametrize("recipe", ["chexpert/curve.yaml", "brats2021/curve.yaml", "brats2023_gli/curve.yaml",
                                    "echonet_dynamic/curve.yaml", "echonet_dynamic/curve_r2plus1d.yaml"])
def test_every_arm_of_a_large_curve_chooses_its_rate_alike(recipe: str):
    config = load_recipe(PIPELINES / recipe, "curve")
    assert config.train.optim.lr in config.choice.lrs
    assert all(arm.lr is None for arm in config.arms.values())


def test_extended_recipe_keeps_the_rest():
    base = load_recipe(PIPELINES / "brats2021/curve.yaml", "curve")
    child = load_recipe(PIPELINES / "brats2023_gli/curve.yaml", "curve")
    assert (child.train, child.task, child.fractions) == (base.train, base.task, base.fractions)
    assert child.arms["reconstruction"].init == Path("runs/brats2023_gli/masked_reconstruction")
    assert child.arms["reconstruction"].decoder


def test_pretraining_is_found_beside_the_recipe_that_names_it(tmp_path: Path):
    child = tmp_path / "mine.yaml"
    child.write_text(f"extends: {PIPELINES / 'nih_cxr/curve.yaml'}\nseeds: 2\n")
    config = load_recipe(child, "curve", ["data.manifest=mine.parquet"])
    assert config.seeds == 2
    assert config.arms["simclr"].pretrain.objective.name == "simclr"
    assert config.arms["simclr"].pretrain.data.manifest == Path("mine.parquet")


def test_an_arm_changes_the_recipe_that_its_pretraining_extends(tmp_path: Path):
    base, child = tmp_path / "base.yaml", tmp_path / "deeper/child.yaml"
    child.parent.mkdir()
    base.write_text(f"""
extends: {PIPELINES / 'nih_cxr/curve.yaml'}
arms:
  simclr: {{pretrain: {{share: 0.5}}}}
  tenth: {{pretrain: {{extends: {PIPELINES / 'nih_cxr/simsiam.yaml'}, share: 0.1, train: {{steps: 7}}}}}}
""")
    (child.parent / "mine.yaml").write_text(f"extends: {PIPELINES / 'nih_cxr/simclr.yaml'}\ntitle: mine\n")
    child.write_text("extends: ../base.yaml\narms: {tenth: {pretrain: {extends: mine.yaml, seed: 3}}}\n")
    arms = load_recipe(base, "curve", ["data.manifest=mine.parquet", "arms.tenth.pretrain.train.batch_size=9"]).arms
    assert (arms["simclr"].pretrain.share, arms["simclr"].pretrain.train.steps) == (0.5, 600)
    tenth = arms["tenth"].pretrain
    assert (tenth.share, tenth.train.steps, tenth.train.batch_size) == (0.1, 7, 9)
    assert (tenth.train.optim.lr, tenth.data.manifest) == (0.1, Path("mine.parquet"))
    other = load_recipe(child, "curve").arms["tenth"].pretrain
    assert (other.title, other.seed, other.share, other.objective.name) == ("mine", 3, 1.0, "simclr")


def test_one_override_reaches_every_pretraining():
    config = load_recipe(PIPELINES / "phantom_xray/curve.yaml", "curve", ["pretrain.train.steps=7", "train.steps=5"])
    assert config.arms["simsiam"].pretrain.train.steps == 7
    assert config.train.steps == 5
    with pytest.raises(ConfigError, match="no arm of this curve pretrains"):
        load_recipe(PIPELINES / "chexpert/curve.yaml", "curve", ["pretrain.train.steps=7"])


def test_null_leaves_an_arm_out():
    config = load_recipe(PIPELINES / "nih_cxr/curve.yaml", "curve", ["arms.pixels=null"])
    assert "pixels" not in config.arms
    with pytest.raises(ConfigError, match="names 'simclr'"):
        load_recipe(PIPELINES / "nih_cxr/curve.yaml", "curve", ["arms.simclr=null"])


def test_every_mistake_is_told_at_once_with_the_nearest_key():
    with pytest.raises(ConfigError) as caught:
        load_recipe(PIPELINES / "chexpert/simsiam.yaml", "pretrain", ["train.stesp=5", "data.manifets=x", "encodr=1"])
    message = str(caught.value)
    assert "3 mistakes" in message
    for right in ("'steps'", "'manifest'", "'encoder'"):
        assert f"did you mean {right}" in message


@pytest.mark.parametrize(("override", "line"), [
    ("objective=simclr", "objective: 'simclr' stands where a name and its settings belong; write {name: simclr}"),
    ("objective=simclear", "objective: 'simclear' stands where a name and its settings belong; write {name: simclr}"),
    ("objective.name=simclr2", "objective.name: unknown name 'simclr2'; did you mean 'simclr'?"),
    ("encoder={name: restnet}", "encoder.name: unknown name 'restnet'; did you mean 'resnet'?"),
    ("encoder={name: 7}", "encoder.name: unknown name 7; known names: r2plus1d, resnet, swin, unet, vit"),
    ("encoder={width: 7}", "encoder.name: required, but not given; known names: r2plus1d, resnet, swin, unet, vit"),
    ("augment.intensity=[{name: gama}]", "augment.intensity.0.name: unknown name 'gama'; did you mean 'gamma'?"),
    ("augment.intensity=[gamma]", "augment.intensity.0: 'gamma' stands where a name and its settings belong; write "
                                  "{name: gamma}"),
    ("encoder.blocks=[1,0,1,1]", "encoder.blocks.1: Input should be greater than 0 (got 0)"),
    ("encoder.blocks=[1,1,1,1,1]", "encoder.blocks: should have at most 4 items, not 5 (got [1, 1, 1, 1, 1])"),
    ("augment.size=64", "augment.size: should be a list, in brackets (got 64)"),
    ("train=5", "train: should be a mapping, {key: value} (got 5)"),
    ("objective={name: jigsaw, grid: x}", "objective.grid: Input should be a valid integer, unable to parse string as "
                                          "an integer; or should be a list, in brackets (got 'x')"),
    ("objective={name: jigsaw, grid: [3, 1]}", "objective.grid.1: Input should be greater than or equal to 2 (got 1)"),
    ("encoder={name: resnet, width: 8}", "encoder.width: unknown key; did you mean 'widths'?"),
    ("objective={name: jigsaw, gird: 2}", "objective.gird: unknown key; did you mean 'grid'?"),
])
def test_a_mistake_is_told_once_by_the_recipes_own_keys(override: str, line: str):
    with pytest.raises(ConfigError) as caught:
        load_recipe(PIPELINES / "nih_cxr/simsiam.yaml", "pretrain", [override])
    assert caught.value.what.splitlines()[1:] == [f"  - {line}"]


def test_a_chain_of_extends_must_end(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(f"extends: ../{tmp_path.name}/b.yaml\n")
    (tmp_path / "b.yaml").write_text(f"extends: ../{tmp_path.name}/a.yaml\n")
    with pytest.raises(ConfigError, match="extends itself"):
        load_any(tmp_path / "a.yaml")


def test_recipe_of_another_step_names_the_command():
    with pytest.raises(ConfigError, match="medssl curve"):
        load_recipe(PIPELINES / "chexpert/curve.yaml", "pretrain")


def test_an_arms_pretraining_is_exchanged_for_any_recipe_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"extends: {PIPELINES / 'nih_cxr/simsiam.yaml'}\ntitle: mine\n")
    monkeypatch.chdir(tmp_path)
    for given, title in (("mine.yaml", "mine"), ("pipelines/chexpert/mae.yaml", "MAE on CheXpert")):
        config = load_recipe("pipelines/nih_cxr/curve.yaml", "curve", [f"arms.simclr.pretrain={given}"])
        assert config.arms["simclr"].pretrain.title == title


def test_a_curves_cases_are_those_of_its_pretraining_too():
    for where in ({}, {"view": ["PA"]}):
        config = load_recipe(PIPELINES / "phantom_xray/curve.yaml", "curve", [f"data.where={where}"])
        assert config.data.where == where
        assert config.arms["simsiam"].pretrain.data.where == where
