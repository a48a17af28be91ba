"""What does not fit is refused in the recipe's own keys, and what the message says to do helps."""

from __future__ import annotations

import re

import pytest

from medssl.augment.mask import BlockMask
from medssl.errors import ConfigError
from medssl.objectives.fitting import draw_some, require_tiled, resized
from medssl.rng import stream


def hidden(ratio, size, block, tube=False):
    return draw_some(BlockMask(ratio, block, tube), stream("test"), (1, *size), "encoder.patch")["hidden"]


@pytest.mark.parametrize(("size", "block", "tube"), [
    ((64, 64), (8, 8), False), ((16, 32), (16, 16), False), ((48, 16), (16, 16), False), ((8, 32, 32), (2, 8, 8), True),
])
@pytest.mark.parametrize("ratio", [0.001, 0.999])
def test_a_mask_that_leaves_nothing_to_learn_is_refused(ratio, size, block, tube):
    with pytest.raises(ConfigError, match=rf"objective.ratio {ratio} hides (0|\d+) of the \d+ blocks") as error:
        hidden(ratio, size, block, tube)
    for end in re.search(r"objective.ratio between (\S+) and (\S+),", str(error.value)).groups():
        drawn = hidden(float(end), size, block, tube)
        assert drawn.any()
        assert not drawn.all()


def test_a_single_block_cannot_be_hidden_in_part():
    with pytest.raises(ConfigError, match=r"Remedy: make encoder.patch smaller"):
        hidden(0.75, (8, 16, 16), (2, 16, 16), tube=True)


@pytest.mark.parametrize(("size", "block", "remedy"), [
    ((50, 64), (16, 16), "set augment.size=[48, 64] (to segment, data.box.size), or change objective.block"),
    ((9, 64, 64), (2, 16, 16), "set data.box.size=[8, 64, 64] and augment.size=null, or change objective.block"),
    ((64, 64), (2, 16, 16), "give objective.block a number for each"),
])
def test_blocks_that_do_not_fill_the_view_are_refused(size, block, remedy):
    with pytest.raises(ConfigError) as error:
        require_tiled(size, block, "objective.block")
    assert error.value.remedy == remedy


def test_clips_and_volumes_get_another_remedy_than_images():
    assert resized((64, 64)) == "set augment.size=[64, 64]"
    assert resized((16, 64, 64)) == "set data.box.size=[16, 64, 64] and augment.size=null"
