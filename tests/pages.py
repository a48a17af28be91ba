"""The papers of the repository as tests read them: blocks, commands, links, headings."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
SITE = SimpleNamespace(**runpy.run_path(str(ROOT / "docs/site_hooks.py")))

_FENCED = re.compile(r"^(`{3,})([\w-]*)\n(.*?)^\1 *$", re.M | re.S)
_WRITTEN = re.compile(r"^cat > (\S+) <<'END'\n(.*?)^END$", re.M | re.S)


class Block(NamedTuple):
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    return [Block(language, text) for _, language, text in _FENCED.findall(page.read_text())]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCED.sub("", page.read_text())


def written(page: Path) -> dict[str, str]:
    """The files that a reader who pastes the page's blocks writes: `cat > name <<'END'`."""
    return {name: text for block in blocks(page) for name, text in _WRITTEN.findall(block.text)}


def commands(page: Path) -> list[list[str]]:
    """The words of each `medssl …` line of the page's blocks, comments and the reference's lines of usage left out."""
    found = []
    for block in blocks(page):
        lines = _WRITTEN.sub("", block.text).replace("\\\n", " ").splitlines()  # a command may take several lines
        found += [shlex.split(line, comments=True) for line in lines if line.startswith("medssl ")]
    return [words for words in found if not any(word.startswith("[") for word in words)]


def anchors(page: Path) -> set[str]:
    """What a link's `#…` may name on the page, as forges and the site make it of a heading."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
