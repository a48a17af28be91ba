"""Fills the tables of docs/benchmarks.md from the JSON that the benchmarks left in benchmarks/results."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from harness import HEAD, RESULTS, Row, cells

from medssl.files import write_whole

PAGE = Path(__file__).parent.parent / "docs/benchmarks.md"


def fill(page: str, results: Path) -> str:
    """The page with whatever stands between `<!-- topic -->` and `<!-- end -->` made anew, for every topic."""
    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", lambda found: _section(found[1], results), page, flags=re.DOTALL)


def _section(topic: str, results: Path) -> str:
    path = results / f"{topic}.json"
    told = _table([Row(**row) for row in json.loads(path.read_text())]) if path.is_file() else "Not measured yet."
    if path.is_file() and path.with_suffix(".png").is_file():
        told += f"\n\n![{topic}]({os.path.relpath(path.with_suffix('.png'), PAGE.parent)})"
    return f"<!-- {topic} -->\n{told}\n<!-- end -->"


def _table(rows: list[Row]) -> str:
    lines = [_line(HEAD), "|---" * len(HEAD) + "|"]
    for row in rows:
        *words, ratio, spread, target = cells(row)
        missed = row.target is not None and row.ratio is not None and row.ratio < row.target
        lines.append(_line([*words, f"**{ratio}**" if missed else ratio, spread, target]))
    versions = {name: number for row in rows for name, number in row.versions.items()}
    told = ", ".join(f"{name} {number}" for name, number in sorted(versions.items(), key=lambda item: item[0].lower()))
    machines = "; ".join(sorted({row.machine for row in rows}))
    return "\n".join([*lines, "", f"{machines}. {told}. {max(row.repeats for row in rows)} repeats."])


def _line(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"


if __name__ == "__main__":
    write_whole(PAGE, fill(PAGE.read_text(), RESULTS))
    print(PAGE)
