"""Hooks of mkdocs (`make site`): the pages as the repository shows them, and what they link to outside docs/.

README.md becomes the first page. Whatever else a page links to, a module, a recipe, a folder, becomes a page under
repository/, so that the site is whole without a network and without the repository.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DOCS = Path("docs")
FENCED = re.compile(r"^(```+|~~~+)[^\n]*\n.*?^\1[^\n]*$", re.M | re.S)
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
OUTSIDE = re.compile(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
AS_THEY_ARE = (".md", ".png")
UNSOUGHT = "---\nsearch: {exclude: true}\n---\n"  # what the search shall not find: code
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".sh": "bash"}


def changed_links(markdown: str, change: Callable[[str], str]) -> str:
    """The page with `change` applied to the target of each of its links, code blocks left alone."""
    parts, end = [], 0
    for block in FENCED.finditer(markdown):
        parts += [LINK.sub(lambda link: change(link[1]), markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, LINK.sub(lambda link: change(link[1]), markdown[end:])])


def links(markdown: str) -> list[str]:
    """The targets of a page's links, code blocks left out."""
    found: list[str] = []
    changed_links(markdown, lambda target: found.append(target) or target)
    return found


def in_site(path: Path) -> str:
    """Where a file or folder of the repository, as a path from its root, lies in the site's sources."""
    if path == Path("README.md"):
        return "index.md"
    if path.is_relative_to(DOCS) and path != DOCS:
        return path.relative_to(DOCS).as_posix()
    if (ROOT / path).is_dir():
        return f"repository/{path.as_posix()}/index.md"
    return f"repository/{path.as_posix()}" + ("" if path.suffix in AS_THEY_ARE else ".md")


def target_of(page: Path, link: str) -> Path | None:
    """What a link of a page leads to, as a path from the repository's root; None for an anchor and an address."""
    path = link.partition("#")[0]
    if not path or "://" in path or path.startswith("mailto:"):
        return None
    return Path(os.path.normpath(page.parent / path))


def for_site(page: Path, markdown: str) -> str:
    """A page with its links as they have to be in the site."""
    here = Path(in_site(page)).parent

    def change(link: str) -> str:
        target = target_of(page, link)
        if target is None:
            return link
        _, hash_, anchor = link.partition("#")
        return os.path.relpath(in_site(target), here) + hash_ + anchor

    return changed_links(markdown, change)


def outside_docs() -> Iterator[tuple[str, str | bytes]]:
    """(place in the site, content) of the README and of all that any page links to outside docs/, in turn."""
    waiting = [Path("README.md"), *(path.relative_to(ROOT) for path in (ROOT / DOCS).glob("*.md"))]
    seen = set()
    while waiting:
        path = waiting.pop()
        if path in seen or not (ROOT / path).exists():  # what is missing, the strict build tells
            continue
        seen.add(path)
        outside = not path.is_relative_to(DOCS) or path == DOCS
        if path.suffix != ".png":
            markdown = _as_markdown(path)
            waiting += [target for link in links(markdown) if (target := target_of(path, link))]
            if outside:
                yield in_site(path), for_site(path, markdown)
        elif outside:
            yield in_site(path), (ROOT / path).read_bytes()


def _as_markdown(path: Path) -> str:
    if (ROOT / path).is_dir():
        return _listing(path)
    text = (ROOT / path).read_text()
    if path.suffix == ".md":
        return text
    return f"{UNSOUGHT}# {path.as_posix()}\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n````\n"


def _listing(folder: Path) -> str:
    """The folder's files with the first line that each says of itself; recipes and cards, to be copied, linked."""
    lines = [f"# {folder.as_posix()}/\n"]
    for file in sorted((ROOT / folder).iterdir()):
        if file.is_dir() and any(file.glob("*.yaml")):
            lines.append(f"- [{file.name}/]({folder.name}/{file.name})")
        elif file.suffix == ".yaml":
            lines.append(f"- [{file.name}]({folder.name}/{file.name}): {_first_line(file)}")
        elif file.suffix in (".py", ".md") and file.name != "__init__.py":
            lines.append(f"- `{file.name}`: {_first_line(file)}")
    return "\n".join(lines) + "\n"


def _first_line(file: Path) -> str:
    return file.read_text().lstrip('#"\n ').partition("\n")[0].strip('" ')


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    for place, content in outside_docs():
        files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    if page.file.generated_by:  # its links were changed when it was made
        return markdown
    return for_site(DOCS / page.file.src_uri, markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    from mkdocs.exceptions import PluginError

    if found := OUTSIDE.search(output):
        raise PluginError(f"{page.file.src_uri} would load something over the network: {found[0]}")
    return output
