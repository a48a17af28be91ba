"""What the papers say is true: links lead somewhere, commands and settings exist, examples are valid."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import PAGES, ROOT, SITE, blocks, commands, prose, written
from pages import anchors as anchors_of
from typer.main import get_command

from medssl.cli import app
from medssl.config import parse_yaml
from medssl.data.card import Card
from medssl.recipe import find, load_any, shipped_folder
from medssl.train.finetune import FinetuneConfig

COMMANDS = get_command(app).commands
OF_RECIPES = {"prepare", "preview", "pretrain", "finetune", "probe", "curve"}
WRITTEN_BY_READERS = {"pipelines/nih_cxr/barlow_twins.yaml": "pipelines/nih_cxr/simclr.yaml"}
"""What docs/new_objective.md has its reader write, and what stands for it here."""

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@every_page
def test_links_lead_somewhere(page: Path):
    for link in SITE.links(page.read_text()):
        path, _, anchor = link.partition("#")
        assert not path.startswith("http"), "the pages are to be read without a network"
        place = page.parent / path if path else page
        assert place.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors_of(place), f"{page.name} links to {link}"


def test_links_lead_somewhere_in_the_site_too():
    places = {place for place, _ in SITE.outside_docs()}
    places |= {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.*")}
    for page in (page.relative_to(ROOT) for page in PAGES):
        place = Path(SITE.in_site(page))
        for link in SITE.links(SITE.for_site(page, (ROOT / page).read_text())):
            target = SITE.target_of(place, link)
            assert target is None or str(target) in places, f"{link} in {place}"


def test_every_page_has_its_place_in_the_site():
    listed = re.findall(r"([\w/]+\.md)", (ROOT / "mkdocs.yml").read_text().split("\nnav:")[1])
    assert sorted(name for name in listed if "/" not in name and name != "index.md") == sorted(
        page.name for page in PAGES if page.parent.name == "docs")


def test_a_page_that_would_load_from_the_web_is_noticed():
    for tag in ('<script src="https://cdn.org/x.js">', "<link rel=stylesheet href='//fonts.org/a.css'>",
                "<img alt=badge src=https://badge.org/b.svg>"):
        assert SITE.OUTSIDE.search(tag)
    assert not SITE.OUTSIDE.search('<a href="https://www.synapse.org">the terms</a><script src="../x.js"></script>')


@every_page
def test_lists_are_lists_to_every_reader_of_markdown(page: Path):
    """mkdocs joins a list to the paragraph above it where no blank line is between."""
    glued = re.findall(r"^(?![-*|#>\s]|\d+\.)[^\n]+\n(?:[-*]|\d+\.) [^\n]*", prose(page), flags=re.M)
    lists = [each for each in glued if not _within_a_list(page, each)]
    assert not lists, lists


def _within_a_list(page: Path, text: str) -> bool:
    above = prose(page).split(text)[0].rsplit("\n\n", 1)[-1]
    return bool(re.match(r"(?:[-*]|\d+\.) ", above))


@every_page
def test_commands_are_understood(page: Path):
    for words in commands(page):
        assert words[1] in COMMANDS, words
        COMMANDS[words[1]].make_context(words[1], words[2:])  # raises for an unknown option or a missing argument


@every_page
def test_commands_within_sentences_name_what_there_is(page: Path):
    for name, rest in re.findall(r"`medssl (\w+)([^`]*)`", prose(page)):
        assert name in COMMANDS, name
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts} | {"--help"}
        assert set(re.findall(r"--[\w-]+", rest)) <= known, f"medssl {name}{rest}"


@every_page
def test_recipes_and_cards_of_commands_are_valid(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    cards = {f"{card.name}.yaml": text for text, card in _cards(page)} | written(page)
    (tmp_path / "pipelines").symlink_to(shipped_folder("pipelines"))
    for name, text in cards.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for words in commands(page):
        settings = [_standing(word) for word in words[3:] if re.match(r"[\w.]+=", word)]
        if words[1] == "manifest":
            assert Card.read(find(words[2], "data_manifests"), settings)
        elif words[1] in OF_RECIPES:
            assert load_any(_standing(words[2]), settings)
        elif words[1] in ("evaluate", "robustness", "ood"):  # of a run, whose recipe is known when it is there
            assert {re.split(r"[.=]", setting)[0] for setting in settings} <= set(FinetuneConfig.model_fields)


def _standing(word: str) -> str:
    for theirs, ours in WRITTEN_BY_READERS.items():
        word = word.replace(theirs, ours)
    return word


def _cards(page: Path) -> Iterator[tuple[str, Card]]:
    for block in blocks(page):
        if block.language == "yaml" and re.search(r"^layout:", block.text, flags=re.M):
            yield block.text, Card.from_yaml(block.text)


@every_page
def test_blocks_of_yaml_are_valid(page: Path, tmp_path: Path):
    """Cards are whole; a recipe that extends another is; the rest at least is YAML."""
    list(_cards(page))
    for block in blocks(page):
        if block.language == "yaml":
            content = parse_yaml(block.text)
            if "extends" in content:
                recipe = tmp_path / "recipe.yaml"
                recipe.write_text(block.text.replace("../", f"{shipped_folder('pipelines')}/"))
                assert load_any(recipe)


@every_page
def test_blocks_of_python_compile(page: Path):
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, page.name, "exec")


def test_the_blocks_are_found():
    """The tests above hold nothing if they see nothing."""
    assert len(list(_cards(ROOT / "docs/own_data.md"))) == 5
    assert any(words[1] == "predict" for words in commands(ROOT / "docs/reference.md"))
    assert any("barlow_twins" in " ".join(words) for words in commands(ROOT / "docs/new_objective.md"))


def test_a_choice_of_rates_is_valid(tmp_path: Path):
    (choice,) = [block.text for block in blocks(ROOT / "docs/recipes.md") if block.text.startswith("choice:")]
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"extends: {shipped_folder('pipelines')}/nih_cxr/curve.yaml\n{choice}")
    assert load_any(mine).choice


def test_reference_is_up_to_date():
    made = runpy.run_path(str(ROOT / "docs/make_reference.py"))["reference"]()
    assert (ROOT / "docs/reference.md").read_text() == made, "run `make docs`"
