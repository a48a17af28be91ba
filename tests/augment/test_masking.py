"""Exact counts of hidden blocks, tubes, and the way from blocks to voxels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medssl.augment import BlockMask, block_grid
from medssl.errors import ConfigError
from medssl.rng import stream

GRIDS = st.lists(st.integers(1, 9), min_size=2, max_size=3).map(tuple)


@given(grid=GRIDS, ratio=st.floats(0, 1), seed=st.integers(0, 99))
def test_exactly_the_asked_share_is_hidden(grid, ratio, seed):
    hidden = BlockMask(ratio, (1,) * len(grid)).draw(stream(seed), (1, *grid))["hidden"]
    assert hidden.dtype == bool
    assert hidden.shape == (np.prod(grid),)
    assert hidden.sum() == round(ratio * np.prod(grid))


@given(grid=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)), ratio=st.floats(0, 1))
def test_a_tube_hides_the_same_places_at_every_time(grid, ratio):
    shape = (1, 2 * grid[0], 16 * grid[1], 16 * grid[2])
    hidden = BlockMask(ratio, (2, 16, 16), tube=True).draw(stream("tube"), shape)["hidden"].reshape(grid)
    assert (hidden == hidden[0]).all()
    assert hidden[0].sum() == round(ratio * grid[1] * grid[2])


def test_every_block_is_hidden_equally_often():
    mask = BlockMask(0.75, (16, 16))
    share = np.mean([mask.draw(stream("draw", n), (1, 96, 96))["hidden"] for n in range(2000)], axis=0)
    assert abs(share - 0.75).max() < 5 * np.sqrt(0.75 * 0.25 / 2000)


def test_blocks_become_voxels_in_row_major_order():
    hidden = torch.zeros(2, 2 * 3 * 2, dtype=torch.bool)
    hidden[0, 0 * 6 + 2 * 2 + 1] = True  # block (0, 2, 1)
    hidden[1, 1 * 6 + 0 * 2 + 0] = True  # block (1, 0, 0)
    voxels = BlockMask(0.5, (4, 2, 5)).voxels(hidden, (8, 6, 10))
    assert voxels.shape == (2, 1, 8, 6, 10)
    assert voxels.dtype == torch.bool
    assert voxels[0, 0, 0:4, 4:6, 5:10].all()
    assert voxels[1, 0, 4:8, 0:2, 0:5].all()
    assert voxels.sum() == 2 * 4 * 2 * 5


def test_blocks_that_do_not_tile_the_view_are_refused_with_a_size_that_would_do():
    assert block_grid((16, 112, 96), (2, 16, 16)) == (8, 7, 6)
    with pytest.raises(ConfigError, match=r"Remedy: set the view's size to \(96, 208\)"):
        block_grid((100, 208), (16, 16))
    with pytest.raises(ConfigError, match="give the block 3 sides"):
        block_grid((16, 112, 112), (16, 16))


@pytest.mark.parametrize(("ratio", "tube"), [(1.5, False), (-0.1, False), (0.9, True)])
def test_impossible_masking_is_refused(ratio, tube):
    with pytest.raises(ConfigError):
        BlockMask(ratio, (16, 16), tube)
