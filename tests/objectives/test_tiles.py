"""Tiles: where they may lie, and that what is cut out lies there."""

from __future__ import annotations

from ast import literal_eval

import numpy as np
import pytest
import torch

from medssl.errors import ConfigError
from medssl.models import ENCODERS
from medssl.objectives.tiles import Tiles, cut

JIGSAW, NEIGHBOURS = {"tile": 64 / 75, "gap": 0.0}, {"tile": 96 / 110, "gap": 34 / 110}


def places(tiles, size, draws=400):
    """First voxels (draws, N, axes)."""
    return np.stack([tiles.draw(np.random.default_rng(seed), size) for seed in range(draws)])


def test_the_jigsaw_papers_numbers():
    tiles = Tiles((3, 3), **JIGSAW, multiple=(1, 1), least=(1, 1))
    assert tiles.size((225, 225)) == (64, 64)
    firsts = places(tiles, (225, 225))
    cells = np.stack(np.meshgrid([0, 75, 150], [0, 75, 150], indexing="ij"), -1).reshape(9, 2)
    assert (firsts - cells).min() == 0
    assert (firsts - cells).max() == 75 - 64


def test_the_context_prediction_papers_numbers():
    tiles = Tiles((3, 3), **NEIGHBOURS, multiple=(1, 1), least=(1, 1))
    assert tiles.size((398, 398)) == (96, 96)  # 3 tiles, 2 gaps of 48, and 7 pixels to either side
    firsts = places(tiles, (398, 398))
    middle = np.stack(np.meshgrid([7, 151, 295], [7, 151, 295], indexing="ij"), -1).reshape(9, 2)  # 144 apart
    assert (firsts - middle).min() == -7
    assert (firsts - middle).max() == 7


@pytest.mark.parametrize("layout", [JIGSAW, NEIGHBOURS])
@pytest.mark.parametrize("grid", [(3, 3), (2, 4), (3, 3, 3), (2, 2, 2)])
@pytest.mark.parametrize("patch", [1, 8])
def test_tiles_lie_inside_and_apart(layout, grid, patch):
    size = (61, 83, 72)[: len(grid)]
    tiles = Tiles(grid, **layout, multiple=(patch,) * len(grid), least=(patch,) * len(grid))
    sides = np.array(tiles.size(size))
    assert not (sides % patch).any()
    firsts = places(tiles, size, 100)
    assert firsts.min() >= 0
    assert (firsts + sides <= size).all()
    apart = np.abs(firsts[:, :, None] - firsts[:, None]) >= sides  # (draws, N, N, axes)
    assert (apart.any(-1) | np.eye(np.prod(grid), dtype=bool)).all()
    assert (firsts.min(0) < firsts.max(0)).all(), "every tile moves along every axis"


def test_a_vits_tiles_are_of_whole_patches():
    vit = ENCODERS["vit"](ENCODERS["vit"].Config(size=(96, 96), patch=(16, 8), width=8, depth=1, heads=1))
    assert Tiles.of(vit, (3, 3), 0.85).size((96, 96)) == (16, 24)


@pytest.mark.parametrize("layout", [JIGSAW, NEIGHBOURS])
def test_a_view_that_is_too_small_is_refused_and_the_remedy_helps(layout):
    tiles = Tiles((3, 3), **layout, multiple=(8, 8), least=(8, 8))
    with pytest.raises(ConfigError, match="cells larger than") as error:
        tiles.size((20, 20))
    needed = literal_eval(str(error.value).split("augment.size=")[1].split(" or more")[0])
    assert tiles.size(tuple(needed)) == (8, 8)
    assert not any(side % 8 for side in needed), "the encoder has to fill the view with its patches, too"


def test_a_tile_is_as_large_as_the_encoder_asks():
    unet = ENCODERS["unet"](ENCODERS["unet"].Config(widths=(2, 2, 2, 2, 2)))
    tiles = Tiles.of(unet, (3, 3, 3), **NEIGHBOURS)
    assert tiles.size((128, 128, 128)) == (32, 32, 32)  # 31 by its share
    assert unet(torch.zeros(1, 1, 32, 32, 32)).pooled.shape == (1, 2)
    with pytest.raises(ConfigError, match=r"larger than \(32, 32, 32\).*data.box.size=\[120, 120, 120\]"):
        tiles.size((96, 96, 96))


def test_a_resnet_is_given_no_tile_below_a_cell_of_its_finest_map():
    resnet = ENCODERS["resnet"](ENCODERS["resnet"].Config(blocks=(1, 1, 1, 1), widths=(4, 4, 4, 4)))
    with pytest.raises(ConfigError, match=r"larger than \(4, 4\)"):
        Tiles.of(resnet, (3, 3), **JIGSAW).size((12, 12))
    assert Tiles.of(resnet, (3, 3), **JIGSAW).size((15, 15)) == (4, 4)


@pytest.mark.parametrize("size", [(20, 17), (9, 11, 8)])
def test_what_is_cut_out_lies_there(size):
    image = torch.randn(3, 2, *size)
    sides = (4, 5, 3)[: len(size)]
    firsts = torch.from_numpy(np.random.default_rng(0).integers(0, 5, (3, 6, len(size))))
    tiles = cut(image, firsts, sides)
    assert tiles.shape == (3, 6, 2, *sides)
    for sample in range(3):
        for n in range(6):
            box = tuple(slice(int(f), int(f) + s) for f, s in zip(firsts[sample, n], sides, strict=True))
            torch.testing.assert_close(tiles[sample, n], image[sample][(slice(None), *box)], rtol=0, atol=0)
