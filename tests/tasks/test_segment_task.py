"""medssl.tasks.segment: the loss against an independent reference, nested regions, thresholds."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from monai.losses import DiceLoss

from medssl.errors import ManifestError
from medssl.metrics.segment import dice
from medssl.models import ViT, build_encoder
from medssl.models.cnn import UNetEncoder
from medssl.tasks import Segment, build_task
from medssl.types import Features, Views

REGIONS = {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}


def task(**config) -> Segment:
    torch.manual_seed(0)
    encoder = build_encoder(UNetEncoder.Config(dims=2, widths=(4, 8)))
    return build_task(Segment.Config(**config), encoder, REGIONS)


def test_regions_may_nest():
    mask = torch.tensor([[[0, 1], [2, 4]]])
    regions = task().split_regions(mask)
    assert regions.shape == (1, 3, 2, 2)
    assert regions[0].int().tolist() == [[[0, 1], [1, 1]], [[0, 1], [0, 1]], [[0, 0], [0, 1]]]


def test_loss_is_monais_batch_dice_plus_cross_entropy(monkeypatch):
    model = task()
    torch.manual_seed(3)
    logits, mask = torch.randn(4, 3, 6, 6), torch.randint(0, 5, (4, 6, 6))
    monkeypatch.setattr(model, "outputs", lambda features, size: logits)
    loss, figures = model(Features([], torch.zeros(4, 8)), Views(images=(torch.zeros(4, 1, 6, 6),), mask=mask))
    truth = torch.stack([torch.isin(mask, torch.tensor(values)) for values in REGIONS.values()], 1).float()
    soft = DiceLoss(sigmoid=True, batch=True, smooth_nr=1.0, smooth_dr=1.0)(logits, truth)
    p = torch.sigmoid(logits.double())
    entropy = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean()
    assert float(loss.detach()) == pytest.approx(float(soft + entropy), rel=1e-5)
    assert float(figures["soft_dice"]) == pytest.approx(1 - float(soft), rel=1e-5)


def test_a_perfect_drawing_costs_nothing_and_a_wrong_one_much(monkeypatch):
    model, mask = task(), torch.randint(0, 5, (2, 6, 6), generator=torch.Generator().manual_seed(1))
    views = Views(images=(torch.zeros(2, 1, 6, 6),), mask=mask)
    right = (model.split_regions(mask).float() - 0.5) * 60
    losses = []
    for logits in (right, -right):
        monkeypatch.setattr(model, "outputs", lambda features, size, logits=logits: logits)
        losses.append(float(model(Features([], torch.zeros(2, 8)), views)[0].detach()))
    assert losses[0] < 1e-4
    assert losses[1] > 10


def test_outputs_have_the_pictures_size():
    model = task()
    encoder = build_encoder(UNetEncoder.Config(dims=2, widths=(4, 8)))
    assert model.outputs(encoder(torch.rand(2, 1, 9, 11)), (9, 11)).shape == (2, 3, 9, 11)


def test_judge_scores_each_region_over_the_whole_case():
    mask = np.zeros((2, 4, 4), np.uint8)
    mask[0, :2], mask[1, 0, 0] = 2, 4  # WT 9 voxels, TC 1, ET 1
    logits = np.full((3, 2, 4, 4), -5.0)
    logits[0, 0, :2], logits[1, 1, 0, :3] = 5, 5  # WT: 8 of 9; TC: 1 right, 2 wrong; ET: nothing
    rows = task().judge({"case_id": "c", "patient_id": "p"}, logits, mask)
    assert [(row.name, row.target) for row in rows] == [("WT", 1.0), ("TC", 1.0), ("ET", 1.0)]
    assert [row.prediction for row in rows] == pytest.approx([16 / 17, 2 / 4, 0.0])
    assert task().judge({"case_id": "c", "patient_id": "p"}, np.full((3, 2, 4, 4), -5.0), mask * 0)[0].prediction == 1


@pytest.mark.parametrize(("spacing", "measured"), [((2.0, 1.0, 0.5), True), ((1.0, 0.5), False), (None, False)])
def test_judge_measures_in_mm_where_every_axis_has_a_spacing(spacing, measured):
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[0, 0, 0] = 4
    logits = np.full((3, 4, 4, 4), -5.0)
    logits[:2, 3, 0, 0] = 5  # 3 slices off; ET is missed
    case = {"case_id": "c", "patient_id": "p", "spacing": spacing}
    found = {row.name: row.prediction for row in task().judge(case, logits, mask)}
    if not measured:
        assert found.keys() == REGIONS.keys()
        return
    missed = np.hypot(np.hypot(8, 4), 2)
    assert {name: found[name] for name in found if "/" in name} == pytest.approx({
        "hd95/WT": 6, "hd95/TC": 6, "hd95/ET": missed, "assd/WT": 6, "assd/TC": 6, "assd/ET": missed})
    assert task(distances=False).judge(case, logits, mask) == task().judge(case | {"spacing": None}, logits, mask)


def test_threshold_is_a_probability():
    logits = np.log(np.array([0.2, 0.6, 0.8]) / np.array([0.8, 0.4, 0.2]))[:, None, None]
    assert task(threshold=0.5).drawn(logits).ravel().tolist() == [False, True, True]
    assert task(threshold=0.7).drawn(logits).ravel().tolist() == [False, False, True]
    with pytest.raises(ValueError, match="less than 1"):
        Segment.Config(threshold=1.0)


def test_cases_without_a_mask_are_not_labelled_and_cards_without_regions_refused():
    cases = pl.DataFrame({"case_id": ["a", "b"], "has_mask": [True, False]})
    assert Segment.labelled(Segment.Config(), cases)["case_id"].to_list() == ["a"]
    assert len(set(Segment.strata(Segment.Config(), cases))) == 1
    with pytest.raises(ManifestError, match="names no regions"):
        build_task(Segment.Config(), build_encoder(UNetEncoder.Config(dims=2, widths=(4, 8))), {})


def test_skips_are_a_matter_of_vits_alone():
    plain, asked = task(), task(skips=True)
    assert asked.pyramid is None
    assert all(torch.equal(asked.state_dict()[name], tensor) for name, tensor in plain.state_dict().items())
    encoder = build_encoder(ViT.Config(size=(16, 16), patch=(4, 4), width=24, depth=2, heads=2))
    vit = build_task(Segment.Config(skips=True), encoder, REGIONS).eval()
    features = encoder(torch.rand(1, 1, 16, 16))
    drawn = vit.outputs(features, (16, 16))
    for place in range(len(features.skips)):
        other = [skip + torch.randn_like(skip) * (number == place) for number, skip in enumerate(features.skips)]
        assert not torch.allclose(vit.outputs(Features(features.maps, features.pooled, other), (16, 16)), drawn)


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize(("size", "patch"), [((32, 32), (8, 8)), ((4, 16, 16), (2, 8, 4))])
def test_a_vit_learns_to_draw_finer_than_its_patches(size, patch, skips):
    torch.manual_seed(0)
    encoder = build_encoder(ViT.Config(size=size, patch=patch, width=48, depth=1, heads=3))
    model = build_task(Segment.Config(skips=skips), encoder, {"ball": [1]})
    grid = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij"))
    mask = torch.stack([((grid - at) ** 2).sum(0) < 0.4 for at in (-0.15, 0.2)])
    image = mask[:, None] + 0.1 * torch.randn(2, 1, *size)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *model.parameters()], lr=3e-3)
    for _ in range(60):
        loss, _ = model(encoder(image), Views(images=(image,), mask=mask.long()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    drawn = model.drawn(model.outputs(encoder(image), size).detach().numpy())[:, 0]
    patches = mask.reshape(2, *(n for pair in zip(encoder.grid, patch, strict=True) for n in pair)).float()
    coarse = patches.mean(tuple(range(2, patches.ndim, 2)), keepdim=True) > 0.5
    best = dice(coarse.expand_as(patches).reshape(mask.shape).numpy(), mask.numpy())
    assert dice(drawn, mask.numpy()) > best + 0.05
