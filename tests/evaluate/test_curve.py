"""medssl.evaluate.curve and points, end to end on small sets: resumable, paired, and closed to whom it may not see."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from small_sets import SMALL, write_discs

from medssl.config import validate
from medssl.data.prepare import Cache, prepare
from medssl.data.source import DataConfig, open_data
from medssl.errors import ConfigError, LeakageError, ManifestError, RunError
from medssl.evaluate import finetuned
from medssl.evaluate.choice import Choice
from medssl.evaluate.conclude import conclude
from medssl.evaluate.curve import Curve, CurveConfig
from medssl.evaluate.growth import may_change
from medssl.evaluate.points import run_curve
from medssl.models.cnn import ResNetEncoder
from medssl.report import pages
from medssl.report.pages import curve_with_report, report_runs
from medssl.train.pretrain import PretrainConfig, pretrain
from medssl.train.run import patient_digest

CLASSIFY = {"name": "classify", "labels": ["Bright", "Vague"]}
TABLES = ("predictions", "points", "summary", "comparison")


@contextmanager
def quiet(name: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    yield lambda *_, **__: None


def recipe(discs: DataConfig, **changes) -> CurveConfig:
    ssl = {"step": "pretrain", **SMALL, "data": discs.model_dump()}
    return validate(CurveConfig, {
        "data": discs.model_dump(), "task": CLASSIFY, "augment": SMALL["augment"], "train": SMALL["train"],
        "fractions": [0.25, 1.0], "seeds": 2, "subgroup": "view",
        "arms": {
            "scratch": {"like": "ssl"},
            "ssl": {"pretrain": ssl, "baseline": "scratch", "label": "pretrained", "lr": 0.001},
            "frozen": {"how": "probe", "weights_of": "ssl", "baseline": "random"},
            "random": {"how": "probe", "like": "ssl"},
            "pixels": {"how": "pixels", "size": 6},
        }, **changes}, "recipe")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> Path:
    """A curve on the test split, done in this process."""
    out = tmp_path_factory.mktemp("curve") / "run"
    verdict = run_curve(recipe(discs), out, 1, quiet)
    assert verdict
    return out


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / f"{name}.parquet")


def times(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in (out / "points").rglob("*.*")}


def test_a_curve_writes_every_table_of_the_report(done):
    predictions, points, summary, comparison = (table(done, name) for name in TABLES)
    assert len(points.select("arm", "fraction", "seed", "fold").unique()) == 5 * 2 * 2
    assert set(points["metric"]) >= {"auroc", "auroc/Bright", "auroc/Vague", "auprc"}
    assert {"train_patients", "train_cases", "seconds", "value"} <= set(points.columns)
    assert dict(points.select("fraction", "train_patients").unique().rows()) == {0.25: 6, 1.0: 24}
    assert set(predictions["name"]) == {"Bright", "Vague"}
    assert "attr.view" in predictions.columns
    assert set(summary["test_patients"]) == {12}
    assert set(comparison.select("arm", "baseline").rows()) == {("ssl", "scratch"), ("frozen", "random")}
    assert table(done, "subgroups")["mean"].is_not_null().any()
    worst = table(done, "failure_cases")
    assert worst["arm"].unique(maintain_order=True).to_list() == ["scratch", "ssl", "frozen", "random"]
    assert set(worst["case_id"]) <= set(predictions["case_id"])
    head = json.loads((done / "curve.json").read_text())
    assert (head["task"], head["primary"], head["fractions"]) == ("classify", "auroc", [0.25, 1.0])
    assert head["labels"]["ssl"] == "pretrained"
    assert json.loads((done / "provenance.json").read_text())["judged_patients"] == [12]


def test_only_the_judged_split_is_judged(done, discs):
    cases = open_data(discs).cases
    judged = cases.filter(pl.col("split") == "test")
    assert set(table(done, "predictions")["case_id"]) == set(judged["case_id"])
    seen = json.loads((done / "pretrain/ssl-k0/model.json").read_text())["patients_seen"]
    assert not set(seen) & {patient_digest(patient) for patient in judged["patient_id"]}


def test_every_arm_learns_from_the_same_patients_and_fractions_nest(done, discs):
    told = [json.loads(path.read_text()) for path in (done / "points").rglob("*.json")]
    subsets = {(point["fraction"], point["seed"]): set() for point in told}
    for point in told:
        subsets[point["fraction"], point["seed"]].add(point["subset"])
    assert all(len(digests) == 1 for digests in subsets.values())
    assert subsets[0.25, 0] != subsets[0.25, 1]
    curve = Curve(recipe(discs), done)
    for arm_points in (curve.points("finetune"), curve.points("probe")):
        chosen = {(p.fraction, p.seed): set(curve.labelled_cases(p)["patient_id"]) for p in arm_points}
        assert all(chosen[0.25, seed] < chosen[1.0, seed] for seed in (0, 1))


def test_a_linear_model_reads_the_brightness_off_the_pixels(done):
    points = table(done, "points").filter(pl.col("arm") == "pixels", pl.col("metric") == "auroc/Bright",
                                          pl.col("fraction") == 1.0)
    assert points["value"].min() > 0.8


def test_processes_do_the_same_points(done, discs, tmp_path):
    again = shutil.copytree(done, tmp_path / "again")
    for arm in ("scratch", "ssl"):
        shutil.rmtree(again / "points" / arm)
    run_curve(recipe(discs), again, 2, quiet)
    for name in ("predictions", "summary", "comparison", "failure_counts", "failure_cases", "failed_rates"):
        assert table(again, name).equals(table(done, name))


def test_a_lost_point_alone_is_done_again(done, discs):
    before, predictions = times(done), table(done, "predictions")
    (done / "points/scratch/k0-f0.25-s1.json").unlink()
    with pytest.raises(RunError, match="1 of 20 points are not done, scratch/k0-f0.25-s1 first"):
        conclude(Curve(recipe(discs), done))
    run_curve(recipe(discs), done, 1, quiet)
    after = times(done)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"points/scratch/k0-f0.25-s1.json", "points/scratch/k0-f0.25-s1.parquet"}
    assert table(done, "predictions").equals(predictions)


@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_a_damaged_point_is_named_and_what_its_remedy_says_helps(done, discs, tmp_path, ending):
    again = shutil.copytree(done, tmp_path / "again")
    path = again / "points/scratch/k0-f0.25-s1"
    damaged = path.with_name(f"{path.name}.{ending}")
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(RunError, match=r"point scratch/k0-f0.25-s1 is damaged.*delete .*k0-f0.25-s1.json and run"):
        run_curve(recipe(discs), again, 1, quiet)
    path.with_name(f"{path.name}.json").unlink()
    run_curve(recipe(discs), again, 1, quiet)
    assert table(again, "summary").equals(table(done, "summary"))


def test_a_point_that_predicted_no_number_is_named(done, discs, tmp_path):
    again = shutil.copytree(done, tmp_path / "again")
    path = again / "points/scratch/k0-f0.25-s1.parquet"
    pl.read_parquet(path).with_columns(prediction=np.nan).write_parquet(path)
    with pytest.raises(RunError, match=r"Arm 'scratch' at 25 % of the labels, seed 1, fold 0.*remove that point"):
        conclude(Curve(recipe(discs), again))
    assert table(again, "summary").equals(table(done, "summary")), "nothing is written before all is reckoned"


def test_the_protocol_counts_the_labelled_and_says_what_was_done(done, discs, tmp_path):
    said = json.loads((done / "curve.json").read_text())["protocol"]
    assert said.startswith("discs: 24 labelled training patients, judged on 12 of the test split; 2 draws")
    assert "every finetuned arm 8 steps of 8" in said
    manifest = open_data(discs).manifest
    few = pl.when(pl.col("patient_id").is_in(sorted(set(manifest.cases["patient_id"]))[::2])).then("label.Bright")
    path = tmp_path / "few.parquet"
    replace(manifest, cases=manifest.cases.with_columns(few.alias("label.Bright"))).save(path)
    config = recipe(discs.model_copy(update={"manifest": path}), arms={"pixels": {"how": "pixels"}},
                    task={"name": "classify", "labels": ["Bright"]}, fractions=[1.0],
                    protocol={"name": "cross_validation", "folds": 2})
    run_curve(config, tmp_path / "few", 1, quiet)
    said = json.loads((tmp_path / "few/curve.json").read_text())["protocol"]
    labelled = manifest.cases.filter(few.is_not_null(), pl.col("split") == "train")["patient_id"].n_unique()
    assert said == (f"discs: 2-fold cross-validation by patient over {labelled} labelled training patients; the test "
                    "split stayed unopened; 2 draws of the labelled patients.")
    assert 0 < labelled < 24


@pytest.mark.parametrize(("changes", "key"), [
    ({"train": SMALL["train"] | {"steps": 3}}, "train.steps"),
    ({"train": SMALL["train"] | {"precision": "bf16"}}, "train.precision"),
    ({"task": CLASSIFY | {"balance": True}}, "task.balance"),
    ({"protocol": {"name": "holdout", "judge": ["validation"]}}, "protocol.judge"),
    ({"arms": {"pixels": {"how": "pixels", "size": 5}}}, "arms.pixels.size"),
])
def test_what_would_change_a_point_is_refused(done, discs, changes, key):
    with pytest.raises(RunError, match=f"another recipe .differs in {key}"):
        run_curve(recipe(discs, **changes), done, 1, quiet)


def test_a_curve_grows_and_is_told_otherwise_without_anything_done_twice(done, discs, tmp_path):
    arms = recipe(discs).model_dump()["arms"]
    task = CLASSIFY | {"specificity": 0.5}
    grown = recipe(discs, seeds=3, fractions=[0.25, 0.5, 1.0], subgroup=None, title="Grown", task=task, arms={
        "scratch": arms["scratch"] | {"label": "the same, fresh"}, "ssl": arms["ssl"], "frozen": arms["frozen"],
        "random": arms["random"], "pixels": arms["pixels"] | {"baseline": "random"},
        "nearest": {"how": "knn", "weights_of": "ssl"}})
    again = shutil.copytree(done, tmp_path / "again")
    before, shown = times(again), (again / "examples/ssl.npz").read_bytes()
    run_curve(grown, again, 1, quiet)
    assert before.items() <= times(again).items()
    assert (again / "examples/ssl.npz").read_bytes() == shown, "pictures are all of the fraction that was begun with"
    run_curve(grown, tmp_path / "fresh", 1, quiet)
    for name in ("predictions", "summary", "comparison"):  # probes are solved together: their sums are in another order
        assert_frame_equal(table(again, name), table(tmp_path / "fresh", name), abs_tol=1e-3)
    assert not (again / "subgroups.parquet").exists()
    head = json.loads((again / "curve.json").read_text())
    assert (head["title"], head["labels"]["scratch"], head["specificity"]) == ("Grown", "the same, fresh", 0.5)
    (move,) = json.loads((again / "provenance.json").read_text())["went_on"]
    assert set(move["with"]) == {"arms.nearest", "arms.pixels.baseline", "arms.scratch.label", "fractions", "seeds",
                                 "subgroup", "task.specificity", "title"}


def test_an_arm_may_leave_and_come_back_as_it_was(done, discs, tmp_path):
    again = shutil.copytree(done, tmp_path / "again")
    before = times(again)
    some = {"arms": {"random": {"how": "probe", "encoder": SMALL["encoder"]}}}
    with pytest.raises(RunError, match="differs in arms.random"):
        run_curve(recipe(discs, **some), again, 1, quiet)
    arms = recipe(discs).model_dump()["arms"]
    few = {name: arms[name] for name in ("scratch", "ssl")}
    run_curve(recipe(discs, arms=few), again, 1, quiet)
    assert table(again, "summary")["arm"].unique().sort().to_list() == ["scratch", "ssl"]
    report_runs([again], tmp_path / "report.html", "Two arms")
    with pytest.raises(RunError, match="points of an earlier arm 'pixels', which differs in arms.pixels.size"):
        run_curve(recipe(discs, arms=few | {"pixels": {"how": "pixels", "size": 7}}), again, 1, quiet)
    run_curve(recipe(discs), again, 1, quiet)
    assert times(again) == before
    assert table(again, "summary").equals(table(done, "summary"))


def test_points_that_learnt_from_others_than_the_recipe_draws_are_refused(done, discs, tmp_path):
    again = shutil.copytree(done, tmp_path / "again")
    path = again / "points/scratch/k0-f0.25-s1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"subset": "0123456789ab"}))
    with pytest.raises(RunError, match="k0-f0.25-s1 learnt from other patients .digest 0123456789ab"):
        conclude(Curve(recipe(discs), again))


def test_cross_validation_judges_every_training_patient_and_opens_no_other(discs, tmp_path, monkeypatch):
    data = open_data(discs)
    opened: set[str] = set()
    for name in ("array", "mask"):
        reader = getattr(Cache, name)

        def watched(cache: Cache, case_id: str, reader=reader) -> np.ndarray:
            opened.add(case_id)
            return reader(cache, case_id)

        monkeypatch.setattr(Cache, name, watched)
    config = recipe(discs, protocol={"name": "cross_validation", "folds": 2}, seeds=1, fractions=[0.5],
                    train={**SMALL["train"], "steps": 2})
    run_curve(config, tmp_path, 1, quiet)
    train = data.cases.filter(pl.col("split") == "train")
    assert opened == set(train["case_id"])
    predictions = table(tmp_path, "predictions")
    assert set(predictions["case_id"]) == set(train["case_id"])
    for fold in range(2):
        judged = set(predictions.filter(pl.col("fold") == fold)["patient_id"])
        seen = json.loads((tmp_path / f"pretrain/ssl-k{fold}/model.json").read_text())["patients_seen"]
        assert len(judged) == len(seen) == 12
        assert not set(seen) & set(map(patient_digest, judged))
    assert predictions.group_by("patient_id").agg(pl.col("fold").n_unique())["fold"].max() == 1
    assert "the test split stayed unopened" in json.loads((tmp_path / "curve.json").read_text())["protocol"]


def test_what_pretrains_is_done_for_each_pretraining_and_all_else_once(done, discs, tmp_path):
    run_curve(recipe(discs, pretrainings=2), tmp_path, 1, quiet)
    points = table(tmp_path, "points").filter(metric="auroc")
    again = dict(points.group_by("arm").agg(pl.col("pretraining").n_unique()).iter_rows())
    assert again == {"scratch": 1, "ssl": 2, "frozen": 2, "random": 1, "pixels": 1}
    one = table(done, "predictions")
    assert table(tmp_path, "predictions").filter(pretraining=0).equals(one), "the first is what a single one was"
    seeds = [json.loads((tmp_path / f"pretrain/ssl-k0{again}/provenance.json").read_text())["seed"]
             for again in ("", "-p1")]
    assert seeds == [0, 1]
    for arm in ("ssl", "frozen"):
        first, second = (points.filter(arm=arm, pretraining=again)["value"].to_list() for again in (0, 1))
        assert first != second
    told = dict(table(tmp_path, "summary").filter(metric="auroc").select("arm", "pretrainings").unique().iter_rows())
    assert told == again
    assert "2 pretrainings" in json.loads((tmp_path / "curve.json").read_text())["protocol"]


def test_neighbours_vote_on_the_features_of_each_pretraining_and_one_arm_may_pretrain_once(discs, tmp_path):
    arms = recipe(discs).arms["ssl"].model_dump()
    ssl = {"how": "probe", "pretrain": arms["pretrain"]}
    config = recipe(discs, pretrainings=2, seeds=1, arms={
        "ssl": ssl, "nearest": {"how": "knn", "weights_of": "ssl"},
        "single": {**ssl, "once": True}, "its": {"how": "knn", "weights_of": "single"}})
    run_curve(config, tmp_path, 1, quiet)
    points = table(tmp_path, "points")
    again = dict(points.group_by("arm").agg(pl.col("pretraining").n_unique()).iter_rows())
    assert again == {"ssl": 2, "nearest": 2, "single": 1, "its": 1}
    assert len(list((tmp_path / "pretrain").iterdir())) == 3
    nearest, its = (table(tmp_path, "predictions").filter(arm=arm, pretraining=0).drop("arm") for arm in
                    ("nearest", "its"))
    assert nearest.equals(its), "both start from the same seed"
    assert nearest["prediction"].n_unique() > 4
    assert nearest["prediction"].is_between(0, 1).all()


def test_once_is_refused_of_an_arm_that_does_not_pretrain(discs):
    with pytest.raises(ConfigError, match="frozen: once is of an arm with `pretrain`"):
        recipe(discs, arms={"ssl": {"pretrain": {"step": "pretrain", **SMALL, "data": discs.model_dump()}},
                            "frozen": {"how": "probe", "weights_of": "ssl", "once": True}})


def test_a_curve_of_before_pretrainings_were_counted_goes_on(done, discs, tmp_path):
    old = shutil.copytree(done, tmp_path / "old")
    for path in (old / "points").rglob("*.json"):
        told = json.loads(path.read_text())
        del told["pretraining"]
        path.write_text(json.dumps(told))
        pl.read_parquet(path.with_suffix(".parquet")).drop("pretraining").write_parquet(path.with_suffix(".parquet"))
    kept = [line for line in (old / "recipe.yaml").read_text().splitlines() if not line.startswith("pretrainings:")]
    (old / "recipe.yaml").write_text("\n".join(kept))
    before = times(old)
    run_curve(recipe(discs), old, 1, quiet)
    assert times(old) == before
    for name in TABLES:
        expected = table(done, name)
        assert table(old, name).select(expected.columns).equals(expected)


@pytest.mark.parametrize("task", [{"name": "segment"}, {"name": "regress", "label": "Radius"}])
def test_other_tasks_on_pictures(discs, tmp_path, task):
    arms = recipe(discs).model_dump()["arms"]
    arms = {name: arms[name] for name in ("scratch", "ssl")}
    arms["ssl"]["decoder"] = task["name"] == "segment"
    config = recipe(discs, task=task, arms=arms, fractions=[1.0], seeds=1, subgroup=None,
                    train={**SMALL["train"], "steps": 2})
    run_curve(config, tmp_path, 1, quiet)
    assert table(tmp_path, "points")["value"].is_finite().all()
    if task["name"] == "regress":
        limits = table(tmp_path, "agreement").filter(arm="ssl")
        errors = table(tmp_path, "predictions").filter(arm="ssl").select(pl.col("prediction") - pl.col("target"))
        assert limits["measure"].to_list() == ["bias", "lower", "upper"]
        assert limits["mean"][0] == pytest.approx(errors["prediction"].mean())
        assert limits["mean"][2] == pytest.approx(errors["prediction"].mean() + 1.96 * errors["prediction"].std())
        assert limits["low"].null_count() == 3, "one seed tells nothing of another"
    if task["name"] == "segment":
        examples = np.load(tmp_path / "examples/ssl.npz")
        assert examples["image"].shape == examples["truth"].shape == examples["prediction"].shape == (24, 24, 24)
        assert examples["truth"].max() == 1
        assert examples["regions"].tolist() == ["disc"]
        assert set(table(tmp_path, "predictions")["target"]) == {1.0}


def test_no_distances_are_measured_where_a_rate_is_chosen(discs, tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(finetuned, "choose_lr", lambda choice, task, cases, seed, attempt: measured.append(
        attempt(cases.head(6), cases.tail(4), 0.01)["name"].to_list()) or Choice(0.01, {}))
    arms = {"scratch": {"encoder": SMALL["encoder"]}}
    run_curve(recipe(discs, task={"name": "segment"}, arms=arms, fractions=[1.0], seeds=1, subgroup=None,
                     train={**SMALL["train"], "steps": 2}, choice={"lrs": [0.01, 0.1]}), tmp_path, 1, quiet)
    assert measured == [["disc"] * 4]


def test_a_pretraining_that_cannot_be_drawn_costs_no_verdict(discs, tmp_path, caplog, monkeypatch):
    def gone(*_: object) -> None:
        raise FileNotFoundError("last.ckpt")

    monkeypatch.setattr(pages, "draw_pretraining", gone)
    config = recipe(discs, arms={name: recipe(discs).model_dump()["arms"][name] for name in ("ssl", "scratch")})
    assert curve_with_report(config, tmp_path, 1)
    assert "no pictures of the pretraining ssl-k0: last.ckpt" in caplog.text
    assert (tmp_path / "report.html").is_file()


# ------------------------------------------------------------------------------------------------------- refusals

def with_init(discs: DataConfig, run: Path) -> CurveConfig:
    return recipe(discs, arms={"given": {"init": run}, "scratch": {"like": "given"}})


def refused(config: CurveConfig, out: Path) -> None:
    run_curve(config, out, 1, quiet)
    pytest.fail("nothing was refused")


def test_arms_start_from_a_foreign_file_or_from_a_pretraining_that_does(discs, tmp_path, caplog):
    state = ResNetEncoder(ResNetEncoder.Config(channels=3, blocks=(1, 1, 1, 1), widths=(4, 6, 8, 10))).net.state_dict()
    torch.save(state, tmp_path / "resnet.pth")
    short = {**SMALL["train"], "steps": 2}
    ssl = {"step": "pretrain", **SMALL, "data": discs.model_dump(), "encoder": None, "init": tmp_path / "resnet.pth",
           "objective": {"name": "simsiam", "width": 8}, "train": short}
    config = recipe(discs, fractions=[1.0], seeds=1, subgroup=None, train=short, arms={
        "given": {"init": tmp_path / "resnet.pth"}, "scratch": {"like": "given"}, "ssl": {"pretrain": ssl},
        "frozen": {"how": "probe", "weights_of": "given"}})
    verdict = run_curve(config, tmp_path / "out", 1, quiet)
    assert verdict[-2].startswith("Whom the weights that given, ssl and frozen started from had seen is unknown")
    assert len(table(tmp_path / "out", "points").select("arm").unique()) == 4
    assert "channels 3 to 1" in (tmp_path / "out/init/given/init.txt").read_text()
    assert "channels 3 to 1" in (tmp_path / "out/pretrain/ssl-k0/init.txt").read_text()
    assert "started from" in caplog.text
    caplog.clear()
    (tmp_path / "resnet.pth").unlink()
    assert run_curve(config, tmp_path / "out", 1, quiet) == verdict, "what is finished needs its start no more"
    assert "started from" not in caplog.text


def test_a_decoder_that_is_taken_over_is_accounted_for(discs, tmp_path):
    short = {**SMALL["train"], "steps": 2}
    run = pretrain(PretrainConfig.model_validate({**SMALL, "data": discs, "train": short}), tmp_path / "run")
    config = recipe(discs, task={"name": "segment"}, arms={"given": {"init": run, "decoder": True}}, fractions=[1.0],
                    seeds=1, subgroup=None, train=short)
    run_curve(config, tmp_path / "out", 1, quiet)
    account = (tmp_path / "out/init/given/init.txt").read_text()
    assert "decoder: " in account
    assert "left over in the file, not used: 0" in account


@pytest.mark.parametrize("origin", ["init", "pretrain"])
def test_a_decoder_that_nobody_has_is_refused_before_anything_is_trained(discs, tmp_path, origin):
    ssl = {"step": "pretrain", **SMALL, "data": discs.model_dump(), "train": {**SMALL["train"], "steps": 1}}
    if origin == "init":
        ssl = pretrain(validate(PretrainConfig, ssl, "recipe"), tmp_path / "run")
    arms = {"given": {origin: ssl, "decoder": True}}
    with pytest.raises(ConfigError, match="no decoder in common"):
        refused(recipe(discs, arms=arms), tmp_path / "out")
    assert not (tmp_path / "out/pretrain").exists()
    run_curve(recipe(discs, arms={"pixels": {"how": "pixels"}}), tmp_path / "out", 1, quiet)


@pytest.mark.parametrize(("changes", "told"), [
    ({"objective": {"name": "mae"}}, "vit"),  # on a U-Net
    ({"objective": {"name": "masked_reconstruction", "block": [7, 7]}}, "not tiled by blocks"),
    ({"objective": {"name": "simsiam", "width": 8}, "train": {**SMALL["train"], "batch_size": 1}}, "batch_size is 1"),
])
def test_a_pretraining_that_cannot_be_done_is_refused_before_another_arms_is(discs, tmp_path, changes, told):
    ssl = {"step": "pretrain", **SMALL, "data": discs.model_dump()}
    arms = {"good": {"pretrain": ssl}, "bad": {"pretrain": {**ssl, **changes}}}
    with pytest.raises(ConfigError, match=told):
        refused(recipe(discs, arms=arms), tmp_path / "out")
    assert not (tmp_path / "out/pretrain").exists()


def test_weights_that_saw_a_judged_patient_are_refused_before_anything_is_trained(discs, tmp_path):
    data = open_data(discs)
    everyone = data.cases["patient_id"].unique().to_list()
    run = pretrain(PretrainConfig.model_validate({**SMALL, "data": discs}), tmp_path / "all", everyone, data)
    with pytest.raises(LeakageError, match="trained on 12 of the 12 patients"):
        refused(with_init(discs, run), tmp_path / "out")
    assert not (tmp_path / "out/points").exists()
    with pytest.raises(LeakageError, match="trained on 12 of the 12 patients"):
        refused(with_init(discs, run).model_copy(update={"protocol": recipe(
            discs, protocol={"name": "cross_validation", "folds": 2}).protocol}), tmp_path / "cv")


def test_weights_under_another_key_or_preparation_are_refused(discs, tmp_path):
    run = pretrain(PretrainConfig.model_validate({**SMALL, "data": discs}), tmp_path / "run")
    renamed = write_discs(tmp_path / "renamed", key=bytes(range(1, 33)))
    with pytest.raises(LeakageError, match="by another key"):
        refused(with_init(renamed, run), tmp_path / "key")
    other = discs.model_copy(update={"prepare": discs.prepare.model_copy(update={"intensity": "percentile"})})
    prepare(open_data(discs).manifest, other.cache, other.prepare, workers=0)
    with pytest.raises(ConfigError, match=r"prepared differently \(intensity\)"):
        refused(with_init(other, run), tmp_path / "prepared")
    arms = recipe(discs).model_dump()["arms"]
    with pytest.raises(ConfigError, match="Two recipes prepare the same scans differently"):
        refused(recipe(other, arms=arms), tmp_path / "both")


def test_fractions_of_so_few_patients_that_they_come_to_the_same_are_left_out_and_told(discs, tmp_path, caplog):
    arms = {"pixels": {"how": "pixels", "size": 6}}
    run_curve(recipe(discs, arms=arms, fractions=[0.01, 0.08, 0.1, 0.25, 1.0], subgroup=None), tmp_path, 1, quiet)
    assert dict(table(tmp_path, "points").select("fraction", "train_patients").unique().rows()) == {
        0.08: 2, 0.25: 6, 1.0: 24}
    assert json.loads((tmp_path / "curve.json").read_text())["fractions"] == [0.08, 0.25, 1.0]
    assert "left out: the fractions 0.01, 0.1, which of so few labelled patients" in caplog.text
    with pytest.raises(ConfigError, match="0.01, 0.02 come to less than two of 24 labelled training patients"):
        Curve(recipe(discs, arms=arms, fractions=[0.01, 0.02], subgroup=None), tmp_path)


def test_all_mistakes_of_the_arms_and_the_fractions_are_listed_at_once(discs):
    encoder = SMALL["encoder"]
    with pytest.raises(ConfigError) as caught:
        recipe(discs, fractions=[0.1, 1.5], seeds=0, arms={
            "a": {"encoder": encoder, "like": "b"}, "b": {"encoder": encoder, "baseline": "nobody"}, "c": {},
            "d": {"weights_of": "b"}, "e": {"like": "f"}, "f": {"like": "e"}, "g": {"how": "pixels", "like": "b"}})
    told = str(caught.value)
    for part in ("3 mistakes", "fractions.1", "less than or equal to 1", "seeds", "a: give exactly one of",
                 "not like, encoder", "b: baseline names 'nobody'; the other arms are a, c", "c: give exactly one",
                 "d: weights_of names 'b', which has no pretrained", "e: like names 'f', which has no architecture",
                 "g: give exactly one"):
        assert part in told


def test_fractions_out_of_range_are_not_called_too_few(discs):
    with pytest.raises(ConfigError) as caught:
        recipe(discs, fractions=[0, 2])
    assert "fractions.0" in str(caught.value)
    assert "fractions.1" in str(caught.value)
    assert "at least 1 item" not in str(caught.value)


@pytest.mark.parametrize(("changes", "told"), [
    ({"task": {"name": "segment"}}, "arms frozen, random, pixels: only finetuned arms can segment"),
    ({"fractions": [0.5, 0.5]}, "name one twice"),
    ({"fractions": [0.5, 0.5000001]}, "name one twice"),
    ({"fractions": []}, "fractions"),
    ({"protocol": {"name": "cross_validation", "folds": 1}}, "folds"),
    ({"protocol": {"name": "holdout", "judge": []}}, "judge"),
    ({"arms": {"../up": {"how": "pixels"}}}, "arms"),
    ({"arms": {}}, "arms"),
])
def test_a_recipe_that_cannot_be_done_says_why(discs, changes, told):
    with pytest.raises(ConfigError, match=told):
        recipe(discs, **changes)


def test_what_the_data_lack_is_said_before_the_first_point(discs, tmp_path):
    with pytest.raises(ConfigError, match="subgroup names the attribute 'sex'.*one of view"):
        Curve(recipe(discs, subgroup="sex"), tmp_path)
    data = open_data(discs)
    for split in ("train", "test"):
        rest = replace(data, cases=data.cases.filter(pl.col("split") != split))
        with pytest.raises(ManifestError, match="one side is empty"):
            Curve(recipe(discs), tmp_path, rest)


@pytest.mark.parametrize(("scaling", "told"), [
    ({"modle": ["ssl", "frozen"]}, "scaling.modle: unknown key; did you mean 'model'?"),
    ({"model": ["ssl", "nobody"]}, "scaling.model: names 'nobody'; the arms are scratch, ssl, frozen, random, pixels"),
    ({"patients": ["ssl", "scratch"]}, "scaling.patients: names 'scratch', which does not pretrain"),
    ({"batch": ["ssl"]}, "scaling.batch: names ssl; name two arms or more, each once"),
    ({"batch": ["ssl", "ssl"]}, "scaling.batch: names ssl, ssl; name two arms or more"),
])
def test_what_scaling_names_must_be_arms_that_pretrain(discs, scaling, told):
    with pytest.raises(ConfigError) as caught:
        recipe(discs, scaling=scaling)
    assert told in str(caught.value)


def test_studies_uncertain_labels_and_a_teacher_in_every_kind_of_arm(discs, tmp_path):
    manifest, path = open_data(discs).manifest, tmp_path / "studies.parquet"
    study = pl.lit("s") + pl.col("patient_id").str.slice(1)
    replace(manifest, cases=manifest.cases.with_columns(study_id=study)).save(path)
    task = {**CLASSIFY, "uncertain_by_label": {"Vague": "self_trained"}, "scored_by": "study", "pool": "max"}
    arms = {"scratch": {"encoder": SMALL["encoder"]}, "random": {"how": "probe", "like": "scratch"},
            "pixels": {"how": "pixels", "size": 6}}
    config = recipe(discs.model_copy(update={"manifest": path}), task=task, arms=arms, seeds=1, fractions=[1.0])
    run_curve(config, tmp_path / "run", 1, quiet)
    predictions = table(tmp_path / "run", "predictions")
    judged = {arm: set(rows.select("case_id", "name").iter_rows()) for (arm,), rows in predictions.group_by("arm")}
    assert judged["scratch"] == judged["random"] == judged["pixels"]
    assert len(judged["scratch"]) < 2 * 12
    assert all(case_id.startswith("s") for case_id, _ in judged["scratch"])
    assert "judged by the max of its images" in json.loads((tmp_path / "run/curve.json").read_text())["protocol"]
    assert not list((tmp_path / "run").rglob("teacher"))
    assert set(table(tmp_path / "run", "summary")["test_cases"]) == {len({case for case, _ in judged["scratch"]})}


@pytest.mark.parametrize(("key", "allowed"), [
    ("seeds", True), ("task.below", True), ("task.labels", False), ("train.workers", True), ("train.precision", False),
    ("arms", False), ("arms.mae", True), ("arms.precision", True), ("arms.mae.label", True), ("arms.mae.lr", False),
    ("arms.online.lr", False), ("arms.train.workers", False), ("arms.mae.pretrain.train.workers", True),
    ("arms.mae.pretrain.train.steps", False), ("arms.mae.pretrain.train.precision", False),
])
def test_what_no_point_depends_on_may_change_whatever_an_arm_is_called(key: str, allowed: bool):
    assert may_change(key) == allowed
