"""The picture of each transform at three strengths: what stands in its rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_sets import SMALL, discs  # noqa: F401 (fixture)

from medssl.augment import TRANSFORMS, PolicyConfig, SpatialConfig
from medssl.data.loader import Loader
from medssl.data.source import DataConfig, open_data
from medssl.errors import ConfigError
from medssl.report import preview
from medssl.report.scans import StrengthRow, save_strengths, save_views
from medssl.train.pretrain import PretrainConfig, learnt_from, pretrain

JITTER = TRANSFORMS["jitter"].Config(brightness=0.6, contrast=0.0, probability=0.5)
POLICY = PolicyConfig(size=(20, 16), spatial=SpatialConfig(rotate=30, flip={"i": 0.5}), intensity=[JITTER])


@pytest.fixture
def rows(discs: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    """The rows that are drawn for a policy."""
    data = open_data(discs)

    def drawn(policy: PolicyConfig, every: bool = False) -> list[StrengthRow]:
        found = []
        monkeypatch.setattr(preview, "save_strengths", lambda path, rows, heading: found.extend(rows))
        preview.draw_strengths(SimpleNamespace(data=discs, augment=policy, seed=0), tmp_path / "s.png", data, every)
        return found

    return drawn


def test_each_transform_of_the_recipe_has_a_row_of_its_own_at_growing_strength(rows):
    rotate, flip, jitter = rows(POLICY)
    assert [rotate.title, flip.title, jitter.title] == ["rotate", "flip i", "jitter"]
    assert rotate.captions == ["as prepared", "rotate 10", "rotate 20", "rotate 30"]
    assert jitter.captions[1] == "brightness 0.2\ncontrast 0"
    assert jitter.notes[0] == "on 50 % of the samples"
    assert "in degrees" in " ".join(rotate.notes)
    original, third, two_thirds, whole = jitter.images
    change = [float(np.abs(image - original).mean()) for image in (third, two_thirds, whole)]
    assert 0 < change[0] < change[1] < change[2]
    assert original.shape == (20, 16)
    assert flip.images[1:3] == [None, None]
    np.testing.assert_array_equal(flip.images[3], flip.images[0][:, ::-1])


def test_only_cases_that_are_learnt_from_are_shown(discs, tmp_path, monkeypatch):  # noqa: F811
    config, data, shown = PretrainConfig.model_validate({**SMALL, "data": discs, "share": 0.1}), open_data(discs), []
    monkeypatch.setattr(preview, "first_batch", lambda config, data, cases: shown.extend(cases["case_id"]) or
                        Loader(data.cache, shown, config.data.box, 2, 0).batch(0))
    preview.draw_views(config, tmp_path / "views.png", data)
    assert sorted(shown) == sorted(learnt_from(config, data)["case_id"])
    assert 0 < len(shown) < len(data.training) / 4


def test_all_adds_what_the_recipe_does_not_use(rows, caplog):
    shown = rows(POLICY, every=True)
    left_out = caplog.text.count(" is left out: ")  # such as colours of a grey image
    assert left_out < len(TRANSFORMS) / 4
    assert len(shown) == 3 + len(TRANSFORMS) - 1 - left_out
    assert shown[-1].notes[0] == "not in the recipe; a typical strength"
    assert not [note for row in shown for note in row.notes if "`" in note]
    assert "hu_shift is left out: hu_shift on cases of data.prepare.intensity" in caplog.text
    with pytest.raises(ConfigError, match="does not augment"):
        rows(PolicyConfig())


def test_a_mistake_of_the_recipe_s_own_is_no_row_that_is_left_out(rows):
    seldom = TRANSFORMS["colour_drop"].Config(share=1.0, probability=0.001)
    with pytest.raises(ConfigError, match="colour_drop on images of 1 channel"):
        rows(PolicyConfig(intensity=[seldom, JITTER]))


def test_a_clip_shows_its_middle_frame_and_its_middle_column_over_time():
    clip = torch.arange(4 * 6 * 10.0).reshape(1, 1, 4, 6, 10)
    picture = preview._plane_and_section(clip, colour=False)
    np.testing.assert_array_equal(picture[:, :10], clip[0, 0, 2])
    assert np.isnan(picture[:, 10:12]).all()
    np.testing.assert_array_equal(picture[:, 12:], clip[0, 0, :, :, 5].T)
    coloured = torch.cat([clip, clip + 1, clip + 2], dim=1)
    in_colour = preview._plane_and_section(coloured, colour=True)
    np.testing.assert_array_equal(in_colour, np.stack([picture, picture + 1, picture + 2], axis=-1))


def test_a_picture_in_colour_is_drawn_in_its_colours(tmp_path):
    red = np.zeros((30, 30, 3), np.float32)
    red[..., 0], red[:3] = 1, np.nan
    save_views(tmp_path / "views.png", [red[None], red[None]])
    drawn = np.asarray(Image.open(tmp_path / "views.png").convert("RGB")).reshape(-1, 3)
    shares = {colour: (drawn == colour).all(axis=1).mean() for colour in ((255, 0, 0), (133, 147, 160))}
    assert shares[255, 0, 0] > 0.3
    assert shares[133, 147, 160] > 0.03, "where there is no value, it is a mid grey"


def test_a_run_is_drawn_with_the_network_that_it_started_from(discs, tmp_path):  # noqa: F811
    run = pretrain(PretrainConfig.model_validate({**SMALL, "data": discs}), tmp_path / "first")
    again = PretrainConfig.model_validate({**SMALL, "data": discs, "encoder": None, "init": run})
    preview.draw_pretraining(pretrain(again, tmp_path / "again"), again, open_data(discs))
    assert {path.name for path in (tmp_path / "again/pictures").iterdir()} == {"views.png", "reconstruction.png"}


def test_what_reconstructs_nothing_needs_no_checkpoint(discs, tmp_path):  # noqa: F811
    config = PretrainConfig.model_validate({**SMALL, "data": discs, "objective": {"name": "simsiam"}})
    run = pretrain(config, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    preview.draw_pretraining(run, config, open_data(discs))
    assert [path.name for path in (run / "pictures").iterdir()] == ["views.png"]


def test_the_picture_is_a_grid_with_a_row_a_transform(tmp_path):
    image = np.linspace(0, 1, 20 * 16).reshape(20, 16)
    row = StrengthRow("blur", ["sigma: in voxels"], [image, None, None, 1 - image], ["as prepared", "", "", "blur 1"])
    save_strengths(tmp_path / "new" / "one.png", [row], "heading")
    save_strengths(tmp_path / "three.png", [row] * 3, "heading")
    one, three = (np.asarray(Image.open(tmp_path / name).convert("L")) for name in ("new/one.png", "three.png"))
    assert one.shape[1] == three.shape[1]
    assert three.shape[0] > 2 * one.shape[0]
    assert one.std() > 30
