"""docs/augmentation.md and the table of transforms name the same things."""

from __future__ import annotations

import re
from pathlib import Path

from medssl.augment import TRANSFORMS

PAGE = Path(__file__).parents[2] / "docs" / "augmentation.md"


def test_the_page_has_a_row_for_each_transform_and_no_other():
    table = PAGE.read_text().split("## What there is")[1].split("\n## ")[0]
    told = re.findall(r"^\| `(\w+)` \|", table, flags=re.M)
    missing = [f"| `{name}` | for whom | what it does, and the values that it assumes |"
               for name in TRANSFORMS if name not in told]
    assert not missing, "add to the table of docs/augmentation.md:\n" + "\n".join(missing)
    assert told == [name for name in told if name in TRANSFORMS], "rows of docs/augmentation.md without a transform"
    assert len(told) == len(set(told))
