"""The page holds what the tables hold, loads nothing from outside, and says what is missing."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from medssl.errors import ConfigError, RunError
from medssl.report import write_report
from medssl.report.tables import read_curve

VOID = {"meta", "img", "source", "link", "br", "input"}


class Page(HTMLParser):
    """Tags with their attributes, text outside style, and every <data> cell as (exact value, text)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[tuple[float, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self._value: float | None = None
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == [], "every tag is closed"

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def links(self) -> list[str]:
        names = ("src", "href", "srcset", "action", "data", "poster")
        return [value or "" for _, found in self.tags for name, value in found.items() if name in names]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "data":
            self._value = float(dict(attrs)["value"])

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            return
        self.words.append(data)
        if self._open and self._open[-1] == "data":
            self.data.append((self._value, data))


@pytest.fixture
def pages(tmp_path: Path):
    return lambda *curves, **options: Page(write_report(tmp_path / "out", "A page", list(curves), **options))


def test_a_sensitivity_says_at_which_specificity(make_curve):
    folder = make_curve()
    assert read_curve(folder).metric_name("sensitivity") == "sensitivity at 90 % specificity"
    head = json.loads((folder / "curve.json").read_text())
    (folder / "curve.json").write_text(json.dumps(head | {"specificity": 0.975}))
    assert read_curve(folder).metric_name("sensitivity") == "sensitivity at 97.5 % specificity"


@pytest.mark.parametrize("task", ["classify", "segment", "regress"])
def test_every_number_of_the_tables_is_on_the_page(task, make_curve, pages):
    folder = make_curve(task)
    page = pages(folder)
    shown = {value for value, _ in page.data}
    assert set(pl.read_parquet(folder / "summary.parquet")["mean"]) <= shown
    comparison = pl.read_parquet(folder / "comparison.parquet")
    for column in ("difference", "p_holm", "multiplier"):
        assert set(comparison[column].drop_nulls()) <= shown
    numeric = [(value, text) for value, text in page.data if re.fullmatch(r"[+−]?\d+\.\d+", text)]
    assert len(numeric) > 50
    for value, text in numeric:
        digits = len(text.partition(".")[2])
        assert float(text.replace("−", "-")) == pytest.approx(value, abs=0.5 * 10**-digits * 1.001)


def test_distances_are_told_in_mm_and_the_lower_the_better(make_curve, pages):
    folder = make_curve("segment")
    for name in ("summary", "comparison"):
        rows = pl.read_parquet(folder / f"{name}.parquet")
        rows.with_columns(pl.col("metric").replace("dice/ET", "hd95/ET")).write_parquet(folder / f"{name}.parquet")
    assert "HD95 · ET in mm, with 95 % interval" in pages(folder).text
    curve = read_curve(folder)
    assert not curve.higher_is_better("hd95/ET")
    assert curve.higher_is_better("dice/WT")
    assert [curve.unit(metric) for metric in ("assd", "dice")] == ["mm", ""]


def test_loads_nothing_from_outside(make_curve, make_pretrain, pages):
    page = pages(make_curve("segment"), pretrains=[make_pretrain()])
    assert all(link.startswith(("data:", "#")) for link in page.links())
    assert not re.search(r"url\(|@import|https?://", page.source)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for link in page.links():
        if link.startswith("data:image/svg"):
            svg = base64.b64decode(link.partition(",")[2]).decode()
            assert not re.search(r"(href|src)=\"(?!#|data:)", svg)


def test_opens_with_verdict_then_picture(make_curve, pages):
    page = pages(make_curve("classify"))
    verdict = "MAE on own scans reached with 12 labelled patients what scratch training reached with 22."
    assert page.text.index(verdict) < page.text.index("Evidence:")
    assert page.source.index(verdict) < page.source.index("<img")


def test_every_picture_has_an_alternative_text_from_the_tables(make_curve, make_pretrain, pages):
    folder = make_curve("classify")
    page = pages(folder, pretrains=[make_pretrain()])
    alts = [found["alt"] for tag, found in page.tags if tag == "img"]
    assert len(alts) >= 6
    assert all(alts)
    first = pl.read_parquet(folder / "summary.parquet").filter(
        pl.col("arm") == "mae", pl.col("metric") == "auroc", pl.col("fraction") == 0.04)["mean"].item()
    assert f"MAE on own scans: {first:.3f} with 12 patients" in alts[0]


def test_downloads_hold_the_tables_unrounded(make_curve, pages):
    folder = make_curve("regress")
    page = pages(folder)
    found = {tag["download"]: tag["href"] for name, tag in page.tags if name == "a" and "download" in tag}
    summary = pl.read_csv(base64.b64decode(found["curve-1-summary.csv"].partition(",")[2]))
    assert summary["mean"].to_list() == pl.read_parquet(folder / "summary.parquet")["mean"].to_list()
    assert "curve-1-comparison.csv" in found


def test_markup_in_labels_titles_and_provenance_stays_text(make_curve, pages):
    bad = "<script>alert('x')</script> $\\frac{1}{2}$ & \"quotes\""
    folder = make_curve("classify", labels={"scratch": "From scratch", "mae": bad, "simsiam": "SimSiam", "age": "Age"},
                        title=bad, verdict=[bad], protocol=bad)
    (folder / "provenance.json").write_text(json.dumps({bad: bad}))
    page = pages(folder)
    assert "<script" not in page.source.lower()
    assert bad in page.text


def test_groups_go_by_the_attribute_that_the_recipe_named(make_curve, pages):
    folder = make_curve("classify")
    summary = pl.read_parquet(folder / "summary.parquet")
    groups = [summary.select(pl.lit(view).alias("attr.view"), pl.all()) for view in ("AP", "PA")]
    pl.concat(groups).write_parquet(folder / "subgroups.parquet")
    assert pages(folder).text.count("By view:") == 1, "of an earlier version's folder"
    comparison = pl.read_parquet(folder / "comparison.parquet")
    groups = [comparison.select(pl.lit(view).alias("attr.view"), pl.all()) for view in ("AP", "PA")]
    pl.concat(groups).write_parquet(folder / "subgroup_comparison.parquet")
    text = pages(folder).text
    assert "By view: mean AUROC: paired difference" in text
    assert "view AP · MAE on own scans vs " in text
    assert "By view: Mean AUROC" in text
    assert text.index("view AP (120 test patients, 214 cases)") < text.index("view PA (120 test patients")


def test_label_multiplier_words(make_curve, pages):
    page = pages(make_curve("classify"))
    texts = [text for value, text in page.data if value == float("inf")]
    assert texts
    assert all(re.fullmatch(r"> (25|10|4|2)×", text) for text in texts)
    assert "inf" not in page.text.split()
    assert "nan" not in page.text.lower().split()


def add_provenance(folder: Path, **facts: object) -> None:
    path = folder / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_absolute_folders_stay_off_the_page(make_curve, pages):
    """The recipe of the fixture names a folder after a person."""
    folder = make_curve("classify")
    add_provenance(folder, host_file="/mnt/Smith^John/scan.yaml", host_files=["/mnt/Smith^John/a.dcm"],
                   went_on=[{"at": "2026-11-29", "with": ["seeds"]}, {"at": "2026-11-30", "from": "/mnt/Smith^John/b"}])
    page = pages(folder)
    assert "went_on.1.with seeds" in page.text
    assert "went_on.2.from b" in page.text
    assert "Smith" not in page.source
    assert "scan.yaml" in page.text
    assert "init: mae" in page.text


def test_provenance_is_shown(make_curve, make_pretrain, pages):
    folder = make_curve("classify")
    add_provenance(folder, wall_seconds=12.34)
    page = pages(folder, pretrains=[make_pretrain()])
    for fact in ("versions.torch", "2.13.0", "manifest_digest", "9f86d081884c", "0, 1, 2, 3, 4", "1 h 13 min", "12.3 s",
                 "Pretraining: mae-run"):
        assert fact in page.text


def test_pictures_are_optional(make_curve, make_pretrain, pages):
    run = make_pretrain()
    for picture in (run / "pictures").iterdir():
        picture.unlink()
    curve = make_curve("segment")
    for example in (curve / "examples").iterdir():
        example.unlink()
    page = pages(curve, pretrains=[run])
    assert "worst cases" not in page.text
    assert "The loss and the health figures" in page.text


def test_a_curve_without_comparisons_still_has_its_page(make_curve, pages):
    folder = make_curve("classify", baselines={})
    pl.read_parquet(folder / "comparison.parquet").clear().write_parquet(folder / "comparison.parquet")
    assert "Paired differences" not in pages(folder).text


def test_same_tables_same_page(make_curve, make_pretrain, tmp_path):
    curve, run = make_curve("segment"), make_pretrain()
    first, second = (write_report(tmp_path / name, "A page", [curve], [run]) for name in ("a.html", "b.html"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", ["summary.parquet", "comparison.parquet", "curve.json", "provenance.json"])
def test_a_missing_table_is_named_with_its_remedy(name, make_curve, tmp_path):
    folder = make_curve("classify")
    (folder / name).unlink()
    with pytest.raises(RunError, match=re.escape(name)) as caught:
        write_report(tmp_path / "report.html", "A page", [folder])
    assert "medssl curve" in caught.value.remedy


@pytest.mark.parametrize("name", ["model.json", "metrics.jsonl", "provenance.json"])
def test_an_unfinished_pretrain_run_is_named_with_its_remedy(name, make_curve, make_pretrain, tmp_path):
    run = make_pretrain()
    (run / name).unlink()
    with pytest.raises(RunError, match=re.escape(name)) as caught:
        write_report(tmp_path / "report.html", "A page", [make_curve("classify")], [run])
    assert "medssl pretrain" in caught.value.remedy


@pytest.mark.parametrize(("name", "content", "told"), [
    ("curve.json", '{"title": "x"}', "primary"),
    ("curve.json", "{", "not JSON"),
    ("summary.parquet", "text", "not Parquet"),
    ("recipe.yaml", "a: [", "not YAML"),
])
def test_a_broken_file_is_named(name, content, told, make_curve, tmp_path):
    folder = make_curve("classify")
    (folder / name).write_text(content)
    with pytest.raises((RunError, ConfigError), match=told):
        write_report(tmp_path / "report.html", "A page", [folder])


def test_a_table_without_its_columns_is_told(make_curve, tmp_path):
    folder = make_curve("classify")
    pl.read_parquet(folder / "summary.parquet").drop("low").write_parquet(folder / "summary.parquet")
    with pytest.raises(RunError, match="lacks the columns low"):
        write_report(tmp_path / "report.html", "A page", [folder])


def test_no_folder(tmp_path):
    with pytest.raises(RunError, match="No folder"):
        write_report(tmp_path / "report.html", "A page", [tmp_path / "nowhere"])
