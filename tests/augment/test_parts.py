"""A policy taken apart: every transform of the table and all geometry, by no name where that can be."""

import pytest
import torch
from pydantic import Field

from medssl.augment import TRANSFORMS, PolicyConfig, Spatial, SpatialConfig, TemporalConfig, ViewPolicy
from medssl.augment.parts import other_transforms, parts
from medssl.augment.transform import TYPICAL, Strength, TransformConfig
from medssl.rng import stream, torch_seed
from medssl.types import Batch, ViewSpec

GEOMETRY = SpatialConfig(scale=(0.3, 0.9), ratio=(0.75, 1.33), rotate=30, translate=0.2, flip={"i": 0.5, "j": 0.0})
TIME = TemporalConfig(frames=7, speed=0.5, shift=1.0)
BLEND = TRANSFORMS["sobel"].Config(share=0.8, least=0.6)
POLICIES = [PolicyConfig(spatial=GEOMETRY), PolicyConfig(temporal=TIME),
            PolicyConfig(temporal=TIME, spatial=SpatialConfig(padding="border"), intensity=[BLEND]),
            PolicyConfig(spatial=SpatialConfig(scale=(0.4, 0.6), keep_sector=True))]
ALL = [*(part for policy in POLICIES for part in parts(policy)), *other_transforms(PolicyConfig())]
EACH = pytest.mark.parametrize("part", ALL, ids=[part.name for part in ALL])


def test_a_policy_falls_into_its_parts_in_order():
    blur = TRANSFORMS["blur"].Config(sigma=1.5, probability=0.3)
    found = parts(PolicyConfig(size=(8, 8), spatial=GEOMETRY, intensity=[blur]))
    assert [(part.name, part.chance) for part in found] == [
        ("crop", 1), ("rotate", 1), ("translate", 1), ("flip i", 0.5), ("blur", 0.3)]
    assert all(part.policy.size == (8, 8) for part in found)
    assert found[0].values(0.5)["scale"] == pytest.approx((0.65, 0.95))
    assert found[0].values(0.5)["ratio"] == pytest.approx((0.875, 1.165))
    assert found[-1].at(0.5).intensity[0] == blur.model_copy(update={"sigma": 0.75, "probability": 1.0})
    assert [part.name for part in parts(PolicyConfig(temporal=TIME))] == ["speed", "phase"]
    assert parts(PolicyConfig()) == []


def test_what_a_recipe_does_not_use_is_the_rest_of_the_table():
    assert [part.name for part in other_transforms(PolicyConfig())] == list(TRANSFORMS)
    first = next(iter(TRANSFORMS.values()))
    used = PolicyConfig(intensity=[first.Config(**first.Config.typical())])
    assert [part.name for part in other_transforms(used)] == list(TRANSFORMS)[1:]


@EACH
def test_a_part_at_its_whole_strength_is_itself_and_at_none_does_nothing(part):
    assert part.at(1.0) == part.policy
    if part.neutral:
        # a volume of three channels: no transform refuses it
        generator = torch.Generator().manual_seed(torch_seed("part"))
        batch = Batch(["a", "b"], 0.1 + 0.9 * torch.rand(2, 3, 9, 13, 18, generator=generator))
        (view,) = ViewPolicy(part.at(0.0), ViewSpec(), seed=1)(batch).images
        (plain,) = ViewPolicy(part.policy.still(), ViewSpec(), seed=1)(batch).images
        torch.testing.assert_close(view, plain, atol=1e-6, rtol=0)
        (view,) = ViewPolicy(part.policy, ViewSpec(), seed=1)(batch).images
        assert not torch.equal(view, plain)


@pytest.mark.parametrize("share", [0.0, 1 / 3, 1.0])
def test_a_blend_s_least_share_shrinks_with_its_share(share):
    (part,) = parts(PolicyConfig(intensity=[BLEND]))
    assert part.values(share) == pytest.approx({"share": 0.8 * share, "least": 0.6 * share})
    batch = Batch(["a"], torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(torch_seed("part"))))
    ViewPolicy(part.at(share), ViewSpec(), seed=1)(batch)


def test_each_part_keeps_to_the_fan_and_pads_as_the_policy_does():
    spatial = SpatialConfig(scale=(0.4, 0.6), rotate=5, keep_sector=True, padding="border")
    found = parts(PolicyConfig(spatial=spatial, intensity=[BLEND]))
    assert {(part.policy.spatial.keep_sector, part.policy.spatial.padding) for part in found} == {(True, "border")}
    assert [part.config.name for part in found if part.place == "intensity"] == ["sobel"]


def test_the_same_draw_goes_as_far_as_the_strength():
    rotate = next(part for part in ALL if part.name == "rotate")
    third, whole = (Spatial(rotate.at(share).spatial).draw(stream("case"), (1, 20, 20)) for share in (1 / 3, 1))
    assert third["angle"] == pytest.approx(whole["angle"] / 3)


def test_a_strength_without_a_typical_value_has_a_default():
    class Some(TransformConfig):
        told: Strength = Field(examples=[0.2])
        untold: Strength
        mode: str = "plain"

    assert Some.typical() == {"told": 0.2, "untold": TYPICAL}
    assert Some.model_fields["told"].is_required()
