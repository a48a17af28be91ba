"""How a curve that was done may change: more seeds, fractions, pretrainings or arms, fewer, or another way to tell it.

The points that remain are what they were, so nothing is trained twice. What changes a point is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medssl.errors import RunError
from medssl.evaluate.curve import ArmConfig, CurveConfig
from medssl.files import write_whole
from medssl.train.run import changed_keys, is_how, read_recipe

TELLING = {"title", "subgroup", "scaling", "fractions", "seeds", "pretrainings", "task.below", "task.specificity"}
"""Settings that no point depends on, with what is below them."""


def may_change(key: str) -> bool:
    """Whether a setting of a curve's recipe may differ from that of the points which are done."""
    if key.startswith("arms."):
        _, _, *setting = key.split(".")
        return setting in ([], ["label"], ["baseline"], ["once"]) or _is_how_alone(".".join(setting))
    return key.partition(".")[0] in TELLING or key in TELLING or _is_how_alone(key)


def _is_how_alone(key: str) -> bool:
    """`is_how`, but for what has a part in the figures: points are compared, so all are cut alike."""
    return is_how(key) and key.rpartition(".")[2] not in ("precision", "accumulate")


def keep_former_arms(out: Path, config: CurveConfig) -> None:
    """Notes what the arms were that the recipe has no more: should one of that name come again, its points are there.

    RunError where one does and is another, whose points they are not.
    """
    path = out / "former_arms.json"
    before = read_recipe(out, CurveConfig).get("arms", {})
    former = {name: ArmConfig.model_validate(arm).model_dump(mode="json")
              for name, arm in (json.loads(path.read_text()) if path.is_file() else {}).items()}
    for name, arm in config.arms.items():
        if name not in before and name in former and any((out / "points" / name).glob("*.json")):
            _refuse_another(out, name, former[name], arm.model_dump(mode="json"))
    if gone := {name: arm for name, arm in before.items() if name not in config.arms}:
        write_whole(path, json.dumps(former | gone, indent=1))


def _refuse_another(out: Path, name: str, former: dict[str, Any], now: dict[str, Any]) -> None:
    changed = changed_keys(former, now, f"arms.{name}.")
    if differing := [key for key in changed if not may_change(key)]:
        raise RunError(f"{out} has points of an earlier arm {name!r}, which differs in {', '.join(differing[:6])}",
                       expected="the same arm again, or another name", remedy=f"rename it, or delete points/{name} and "
                       f"pretrain/{name}-* in that folder")
