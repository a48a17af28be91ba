"""medssl.report.live: what a painting objective makes of the same few training cases, at every look."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from small_sets import SMALL, discs  # noqa: F401 (fixture)

from medssl.data.source import DataConfig, open_data
from medssl.report import live
from medssl.report.live import live_pictures
from medssl.report.scans import reconstructions_picture
from medssl.train.pretrain import PretrainConfig, fitted_objective

MAE = {"encoder": {"name": "vit", "width": 12, "depth": 1, "heads": 2, "patch": [8, 8]},
       "objective": {"name": "mae", "decoder": {"width": 12, "depth": 1, "heads": 2}}}


def config(discs: DataConfig, **other) -> PretrainConfig:  # noqa: F811
    return PretrainConfig.model_validate({**SMALL, **other, "data": discs})


@pytest.mark.parametrize("other", [{}, MAE], ids=["masked_reconstruction", "mae"])
def test_a_painting_objective_is_seen_to_paint(discs, other):  # noqa: F811
    recipe, data = config(discs, **other), open_data(discs)
    look = live_pictures(recipe, data, data.cases.filter(pl.col("split") == "train"))
    torch.manual_seed(0)
    module, _ = fitted_objective(recipe, data, None)
    module.eval()

    def seen() -> np.ndarray:
        torch.manual_seed(0)
        sight = look(module, 5)
        assert sight.figures == {}
        return sight.pictures["reconstructions"]

    first = seen()
    assert first.dtype == np.uint8
    assert first.shape[2] == 3
    np.testing.assert_array_equal(seen(), first)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    width = first.shape[1] // 3
    changed = (seen() != first).any(axis=2)
    assert changed[:, 2 * width:].any(), "the reconstructions"
    assert not changed[:, : 2 * width].any(), "the cases and what is hidden of them stay"


def test_only_the_cases_given_are_shown(discs, monkeypatch):  # noqa: F811
    data, recipe, shown = open_data(discs), config(discs), []
    few = data.cases.filter(pl.col("split") == "train").head(7)

    def record(module, batch, config):
        shown.extend(batch.case_ids)
        return [np.zeros((2, 8, 8))] * 3

    monkeypatch.setattr(live, "reconstructions", record)
    live_pictures(recipe, data, few)(torch.nn.Linear(1, 1), 0)
    assert len(shown) == 6
    assert set(shown) <= set(few["case_id"])


def test_an_objective_that_paints_nothing_shows_nothing(discs):  # noqa: F811
    recipe, data = config(discs, objective={"name": "rotation"}), open_data(discs)
    assert live_pictures(recipe, data, data.cases) is None
    unwanted = config(discs, online={"pictures": False})
    assert live_pictures(unwanted, data, data.cases) is None
    assert live_pictures(config(discs), data, data.cases)


def test_a_clip_is_shown_in_three_frames():
    one, clip = (reconstructions_picture(*[np.zeros(shape)] * 3) for shape in ((1, 8, 8), (1, 9, 8, 8)))
    assert clip.shape[1] == one.shape[1]
    assert clip.shape[0] > 2 * one.shape[0]
