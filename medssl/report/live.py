"""What a run is asked while it goes on: how its features do on labels, and what it makes of the same few cases."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from medssl.data.source import Data
from medssl.evaluate.online import online_probe
from medssl.objectives import OBJECTIVES, Objective
from medssl.report.preview import first_batch, reconstructions
from medssl.report.scans import reconstructions_picture
from medssl.train.onlook import Onlooker, Sight
from medssl.train.pretrain import PretrainConfig, learnt_from


def onlookers(config: PretrainConfig, data: Data) -> list[Onlooker]:
    """The online probe and the live reconstructions, where labels and objective allow."""
    cases = learnt_from(config, data)
    offered = (online_probe(data, cases, config.augment, config.train.precision, config.online),
               live_pictures(config, data, cases))
    return [onlooker for onlooker in offered if onlooker]


def live_pictures(config: PretrainConfig, data: Data, cases: pl.DataFrame) -> Onlooker | None:
    """An onlooker with the picture `reconstructions`, of some of `cases`; None for an objective that paints nothing, or
    where the recipe wants none."""
    if not config.online.pictures or not OBJECTIVES[config.objective.name].reconstructs():
        return None
    batch = first_batch(config, data, cases)

    def look(module: Objective, step: int) -> Sight:
        device = next(module.parameters()).device
        stacks = reconstructions(module, replace(batch, image=batch.image.to(device)), config)
        return Sight(pictures={"reconstructions": reconstructions_picture(*stacks)})

    return look
