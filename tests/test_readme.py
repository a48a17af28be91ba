"""README and docs/ say what is true: their commands run, their paths exist, their examples are valid."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from medssl.cli import main
from medssl.data.card import Card
from medssl.recipe import load_any, shipped_folder

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

TINY = ["train.steps=2", "train.batch_size=2", "train.workers=0", "train.precision=float32"]
SMALL = ["data.prepare.size=[32,32]", "data.box.size=[4,32,32]"]
APPENDED = {
    "manifest": [],
    "check": [],
    "preview": SMALL,
    "pretrain": [*SMALL, *TINY],
    "curve": [*SMALL, *TINY, "seeds=2", "fractions=[0.5,1.0]"],
}
"""What makes each of README's commands tiny."""
STANDS_IN = {"/data/EchoNet-Dynamic": "echo"}
"""Phantoms for the folders that README names."""


def _blocks(page: Path, language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.M | re.S)


def _commands(page: Path) -> list[list[str]]:
    blocks = [block.replace("\\\n", " ") for block in _blocks(page)]  # a command may take several lines
    lines = [line.split("  #")[0] for block in blocks for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("medssl ")]


def test_readme_has_the_five_commands():
    assert [words[1] for words in _commands(ROOT / "README.md")] == list(APPENDED)


def test_readme_commands_run(phantoms: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_core: None,
                             capsys: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDSSL_KEY_FILE", str(tmp_path / "pseudonym.key"))
    for words in _commands(ROOT / "README.md"):
        arguments = [str(phantoms[STANDS_IN[word]]) if word in STANDS_IN else word for word in words]
        monkeypatch.setattr("sys.argv", [*arguments, *APPENDED[words[1]]])
        with pytest.raises(SystemExit) as done:
            main()
        assert not done.value.code, f"{' '.join(words)}: {capsys.readouterr().err}"
    assert (tmp_path / "views.png").is_file()
    assert (tmp_path / "runs/echonet_dynamic/curve/report.html").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        assert not path.startswith("http"), "the pages are to be read without a network"
        place = page.parent / path if path else page
        assert place.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text(), flags=re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target


def test_map_of_folders_agrees_with_the_tree():
    text = (ROOT / "README.md").read_text().split("## The folders")[1].split("\n## ")[0]
    told = set(re.findall(r"^\| \[(\S+?)/\]", text, flags=re.M))
    packages = {f"medssl/{path.parent.name}" for path in (ROOT / "medssl").glob("*/__init__.py")}
    assert told == packages | {"pipelines", "data_manifests", "docs", "benchmarks", "tests"}
    modules = {path.name for path in (ROOT / "medssl").glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"\[(\w+\.py)\]\(medssl/", text)) == modules


def test_table_of_datasets_is_complete():
    text = (ROOT / "README.md").read_text()
    for card in shipped_folder("data_manifests").glob("*.yaml"):
        assert f"(data_manifests/{card.name})" in text
    for folder in shipped_folder("pipelines").iterdir():
        assert folder.name.startswith("phantom_") or f"(pipelines/{folder.name})" in text


def test_commands_of_the_other_pages_name_what_there_is():
    words = [words for page in PAGES[1:] if page.name != "reference.md" for words in _commands(page)]
    recipes = [each for each in words if each[2].startswith("pipelines/")]
    assert recipes
    for each in recipes:
        assert load_any(each[2], [word for word in each[3:] if "=" in word])


def test_examples_of_cards_and_recipes_are_valid(tmp_path: Path):
    cards = [block for block in _blocks(ROOT / "docs/own_data.md", "yaml") if "layout:" in block]
    assert len(cards) == 5
    for block in cards:
        Card.from_yaml(block)
    recipe, choice = _blocks(ROOT / "docs/recipes.md", "yaml")
    mine = tmp_path / "mine.yaml"
    mine.write_text(recipe.replace("../", f"{shipped_folder('pipelines')}/"))
    assert load_any(mine).data.manifest == Path("ours.parquet")
    mine.write_text(f"extends: {shipped_folder('pipelines')}/nih_cxr/curve.yaml\n{choice}")
    assert load_any(mine).choice


def test_reference_is_up_to_date():
    made = runpy.run_path(str(ROOT / "docs/make_reference.py"))["reference"]()
    assert (ROOT / "docs/reference.md").read_text() == made, "run `make docs`"
