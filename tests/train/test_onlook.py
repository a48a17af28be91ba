"""medssl.train.onlook: what is asked of a run beside its loss costs it neither its life nor its memory."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest
from torch import nn

from medssl.train.onlook import Onlookers, Sight


def test_an_onlooker_that_fails_is_told_of_once_and_asked_no_more(caplog):
    asked = []

    def fails(module: nn.Module, step: int) -> Sight:
        asked.append(step)
        raise ValueError("no such case\nand more")

    onlookers = Onlookers([fails, lambda module, step: Sight(figures={"knn": float(step)})])
    with caplog.at_level(logging.WARNING):
        seen = [onlookers.look(nn.Identity(), step).figures for step in (1, 2)]
    assert seen == [{"knn": 1.0}, {"knn": 2.0}]
    assert asked == [1]
    assert caplog.text.count("(no such case)") == 1


@pytest.mark.parametrize("times", [1, 5])
def test_what_an_onlooker_drew_on_is_not_kept_although_it_holds_itself(times):
    class Figure:
        def __init__(self) -> None:
            self.canvas = self

    drawn = []

    def draws(module: nn.Module, step: int) -> Sight:
        drawn.append(weakref.ref(Figure()))
        return Sight()

    onlookers = Onlookers([draws])
    gc.disable()
    try:
        for step in range(times):
            onlookers.look(nn.Identity(), step)
        assert [figure() for figure in drawn] == [None] * times
    finally:
        gc.enable()
