"""medssl.evaluate.robustness: what is done to scans, and what that costs a score."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from small_sets import SMALL

from medssl.data.cache import Cache
from medssl.data.decode import PrepareConfig
from medssl.data.source import DataConfig, open_data
from medssl.errors import ConfigError, LeakageError
from medssl.evaluate.corruptions import SEVERITIES, SUITE, CorruptedCache
from medssl.evaluate.robustness import CLEAN, EVERY, degradations, robustness_run
from medssl.evaluate.scoring import Rows
from medssl.evaluate.single import evaluate_run
from medssl.report.robustness import draw_robustness, robustness_lines
from medssl.rng import stream
from medssl.train.finetune import FinetuneConfig, finetune

SHAPES = {"image": (1, 32, 40), "volume": (2, 12, 32, 40)}
BY_NAME = {corruption.name: corruption for corruption in SUITE}
EACH = pytest.mark.parametrize("corruption", SUITE, ids=BY_NAME)


def image(shape: tuple[int, ...] = SHAPES["image"]) -> np.ndarray:
    """A bright ball with a stripe, 0 to 1, slightly noisy."""
    places = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[1:]), indexing="ij")
    ball = (np.sqrt(sum(place**2 for place in places)) < 0.7) * (0.5 + 0.3 * np.sign(np.sin(9 * places[-1])))
    noise = stream("image").uniform(0, 0.1, shape)
    return (ball + noise).clip(0, 1).astype(np.float32)


class OneCase:
    """A cache of one case."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array.astype(np.float16)

    def array(self, case_id: str) -> np.ndarray:
        return self._array


def corrupted(array: np.ndarray, name: str, severity: int, **prepare) -> np.ndarray:
    return CorruptedCache(OneCase(array), PrepareConfig(**prepare), BY_NAME[name], severity).array("case")


@EACH
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_corruption_grows_with_its_severity_and_is_the_same_every_time(corruption, shape):
    clean = image(shape)
    worse = [corruption.apply(clean, "case", severity) for severity in SEVERITIES]
    changes = [float(np.abs(each - clean).mean()) for each in worse]
    assert changes[0] > 0
    assert changes == sorted(changes)
    assert changes[-1] > 1.5 * changes[0]
    assert all(each.shape == shape and each.dtype == np.float32 and np.isfinite(each).all() for each in worse)
    np.testing.assert_array_equal(corruption.apply(clean, "case", 3), worse[2])


@pytest.mark.parametrize("name", ["noise", "bias field", "motion", "ghosting", "occlusion"])
def test_every_case_is_drawn_for_itself(name):
    clean = image()
    assert not np.array_equal(*(BY_NAME[name].apply(clean, case, 5) for case in ("one", "other")))


def test_strengths_are_what_the_page_says():
    clean = image((1, 64, 64))
    noise = BY_NAME["noise"].apply(clean, "case", 4) - clean
    assert noise.std() == pytest.approx(0.3 * clean.std(), rel=0.03)
    faint = BY_NAME["contrast"].apply(clean, "case", 5)
    assert faint.std() == pytest.approx(0.2 * clean.std(), rel=1e-4)
    assert faint.mean() == pytest.approx(clean.mean(), rel=1e-4)
    hidden = (BY_NAME["occlusion"].apply(clean, "case", 5) != clean).mean()
    assert 0.24**2 <= hidden <= 0.51**2, "half of each side, of which half may lie outside"
    coarse = BY_NAME["resolution"].apply(clean, "case", 5)
    assert np.linalg.matrix_rank(coarse[0], tol=1e-4) <= 16, "a quarter of the rows are told apart"


@EACH
def test_what_was_prepared_to_a_range_stays_within_it(corruption):
    worse = corrupted(image(), corruption.name, 5)
    assert worse.min() >= 0
    assert worse.max() <= 1


@EACH
def test_a_background_amid_the_values_stays_and_is_dark_beneath(corruption):
    clean = image()
    background = clean < 0.15
    scored = np.where(background, 0, (clean - 0.5) * 4).astype(np.float16)
    worse = corrupted(scored, corruption.name, 5, intensity="zscore_nonzero")
    assert (worse[background] == 0).all()
    dark = np.where(background, scored[~background].min(), scored).astype(np.float32)
    np.testing.assert_array_equal(worse[~background],
                                  BY_NAME[corruption.name].apply(dark, "case", 5)[~background])


@pytest.mark.parametrize(("kind", "modality", "suited"), [
    ("image", "DX", {"noise", "blur", "contrast", "resolution", "jpeg", "occlusion"}),
    ("cine", "US", {"noise", "blur", "contrast", "resolution", "jpeg", "occlusion"}),
    ("volume", "MR", set(BY_NAME)),
    ("cine", "MR", set(BY_NAME) - {"bias field"}),
])
def test_what_no_scanner_does_is_left_out(kind, modality, suited, discs):
    data = open_data(discs)
    cases = data.cases.with_columns(kind=pl.lit(kind), modality=pl.lit(modality))
    reasons = {each.name: each.reason_against(replace(data, cases=cases)) for each in SUITE}
    assert {name for name, reason in reasons.items() if not reason} == suited
    assert all(modality in reason or "clips" in reason for reason in reasons.values() if reason)


def units(worse: list[float]) -> tuple[Rows, np.ndarray]:
    """Ages of 40 patients; what is predicted lies off by 1, then by each of `worse`."""
    number = np.arange(40)
    target = stream("ages").uniform(20, 80, 40)
    return (Rows(number, number, np.full(40, "age"), target),
            np.stack([target + off * (-1) ** number for off in (1.0, *worse)]))


def test_degradation_is_the_mean_over_severities_then_over_corruptions():
    worse = [1.0, 2.0, 3.0, 4.0, 5.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    table = degradations("regress", *units(worse), [BY_NAME["noise"], BY_NAME["blur"]])
    each = table.drop_nulls("severity")
    assert each["score"].to_list() == pytest.approx([1.0, *worse])
    assert each["degradation"].to_list() == pytest.approx([0.0, *(off - 1 for off in worse)])
    means = dict(table.filter(pl.col("severity").is_null()).select("corruption", "degradation").rows())
    assert means == {"noise": pytest.approx(2.0), "blur": pytest.approx(1.0), EVERY: pytest.approx(1.5)}
    assert table["degradation_low"].to_list() == pytest.approx(table["degradation"].to_list()), "all errors are alike"
    assert each["strength"].to_list() == [0.0, *BY_NAME["noise"].strengths, *BY_NAME["blur"].strengths]


def test_a_clean_score_of_nothing_loses_no_share():
    rows, predictions = units([2.0] * 5)
    predictions[0] = rows.target
    table = degradations("regress", rows, predictions, [BY_NAME["noise"]])
    assert table["degradation"].null_count() == len(table)
    assert table["score"][0] == 0


def test_one_patient_has_no_interval():
    rows, predictions = units([2.0] * 5)
    table = degradations("regress", replace(rows, patient=np.zeros(40, int)), predictions, [BY_NAME["noise"]])
    assert table["degradation_low"].null_count() == table["score_high"].null_count() == len(table)
    assert table["degradation"].null_count() == 0


def test_a_metric_that_the_cases_do_not_define_is_refused():
    rows, predictions = units([2.0] * 5)
    alike = replace(rows, target=np.ones(40))
    with pytest.raises(ConfigError, match="do not define auroc.*Remedy: give another --split"):
        degradations("classify", alike, predictions, [BY_NAME["noise"]])


TASKS = {"classify": {"name": "classify", "labels": ["Bright"]}, "segment": {"name": "segment"},
         "regress": {"name": "regress", "label": "Radius"}}


@pytest.fixture(scope="module", params=TASKS)
def tuned(request, tmp_path_factory: pytest.TempPathFactory, discs: DataConfig) -> Path:
    config = FinetuneConfig.model_validate({
        "encoder": SMALL["encoder"], "data": discs, "augment": SMALL["augment"], "task": TASKS[request.param],
        "train": {**SMALL["train"], "steps": 60, "optim": {"lr": 0.02}}})
    return finetune(config, tmp_path_factory.mktemp("tuned"))


def test_a_run_is_judged_under_every_corruption_that_suits_it(tuned):
    told, groups = [], tuned / "by_view.parquet"
    groups.write_bytes(b"")
    found = robustness_run(tuned, "test", [], lambda done, total: told.append((done, total)))
    assert groups.exists(), "those are of predictions.parquet"
    assert told[-1] == (31, 31)
    assert set(found.left_out) == {"bias field", "motion", "ghosting"}
    table = pl.read_parquet(tuned / "robustness.parquet")
    assert table.equals(found.table)
    assert table["patients"].unique().to_list() == [12]
    clean = table.row(by_predicate=pl.col("corruption") == CLEAN, named=True)
    scores = {row["metric"]: row for row in evaluate_run(tuned, "test", []).scores}[clean["metric"]]
    assert [clean[f"score{end}"] for end in ("", "_low", "_high")] == pytest.approx(
        [scores[end] for end in ("mean", "low", "high")])
    changed = table.drop_nulls("severity").filter(pl.col("score") != clean["score"])
    assert "occlusion" in changed["corruption"], "of bright discs and faint ones nothing else takes all"
    account = json.loads((tuned / "robustness.json").read_text())
    assert account["patients"] == 12
    every = table.row(by_predicate=pl.col("corruption") == EVERY, named=True)
    assert account["scores"][-1] == {"metric": "mean relative degradation by every corruption",
                                     "mean": every["degradation"], "low": every["degradation_low"],
                                     "high": every["degradation_high"]}
    lines = robustness_lines(found)
    assert len(lines) == 2 + 2 * (6 + 1) + 3
    assert f"{clean['score']:.3f}" in lines[0]
    assert lines[-1] == "left out: ghosting, since ghosting is made for MR, not for OT"
    assert Image.open(draw_robustness(tuned)).size[0] > 900


def test_a_run_is_not_judged_on_its_own_training_patients(tuned):
    with pytest.raises(LeakageError, match="trained on 24 of the 24"):
        robustness_run(tuned, "train", [])


def test_the_cache_s_files_are_left_alone(discs):
    data = open_data(discs)
    case_id = data.cases["case_id"][0]
    before = np.array(data.cache.array(case_id))
    worse = CorruptedCache(data.cache, discs.prepare, BY_NAME["noise"], 5).read(case_id)
    assert not np.array_equal(worse.array, before)
    np.testing.assert_array_equal(Cache.open(discs.cache, discs.prepare).array(case_id), before)
    np.testing.assert_array_equal(worse.mask, data.cache.mask(case_id))


def test_the_page_tells_the_suite_s_strengths():
    page = (Path(__file__).parents[2] / "docs" / "robustness.md").read_text()
    rows = re.findall(r"^\| ([a-z ]+) \| .* \| ([\d., ]+) \| .* \|$", page, flags=re.M)
    assert {name: tuple(map(float, strengths.split(", "))) for name, strengths in rows} == {
        each.name: each.strengths for each in SUITE}
