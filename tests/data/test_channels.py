"""Layout scan: the series of a study as the channels of one case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from data_folders import skips, write_volume

from medssl.data.build import build
from medssl.data.card import Card
from medssl.data.manifest import Manifest
from medssl.data.prepare import PrepareConfig, prepare
from medssl.errors import ConfigError, ManifestError
from medssl.io.write import write_dicom

CARD = {
    "name": "mr", "about": "x", "layout": "scan", "kind": "volume", "patient": "{patient}", "study": "{study}",
    "split": {"shares": {"train": 1}}, "attributes": {"echo": {"source": "{echo_time}", "unit": "number"}},
    "channels": {"flair": {"description": ".*(flair|dark.?fluid).*"},
                 "t1": {"description": "t1.*", "mr_acquisition": "3D"}},
}


def write_series(folder: Path, study: str, name: str, value: int, patient: str = "P1", acquisition: str = "3D") -> None:
    """Three slices (4, 5) of MR, everywhere `value`."""
    uid = f"1.2.{abs(hash_of(study, name))}"
    for k in range(3):
        write_dicom(folder / f"{study}{name[:2]}{k}{value}.dcm", np.full((4, 5), value, np.uint16), patient_id=patient,
                    study_uid=study, series_uid=uid, instance_uid=f"{uid}.{k}", modality="MR", spacing=(1.0, 1.0),
                    position=(0.0, 0.0, 2.0 * k), orientation=(1, 0, 0, 0, 1, 0), instance_number=k + 1,
                    header={"SeriesDescription": name, "MRAcquisitionType": acquisition, "EchoTime": value})


def hash_of(*texts: str) -> int:
    return int.from_bytes("".join(texts).encode(), "big") % 10**9


def read(folder: Path, **changes: object) -> Manifest:
    return build(Card.from_yaml(yaml.safe_dump({**CARD, **changes}, sort_keys=False)), folder, bytes(range(32)))


def test_a_study_is_one_case_whose_channels_are_its_series_in_the_cards_order(tmp_path: Path) -> None:
    write_series(tmp_path / "in", "1.7", "T1 MPRAGE", 10)
    write_series(tmp_path / "in", "1.7", "t2 tirm tra Dark-Fluid", 90)
    write_series(tmp_path / "in", "1.7", "DWI", 50)
    manifest = read(tmp_path / "in")
    (case,) = manifest.cases["case_id"]
    assert manifest.channels == ["flair", "t1"]
    assert {role: len(files) for role, files in manifest.all_paths(case).items()} == {"flair": 3, "t1": 3}
    assert manifest.case(case).attributes == {"echo": 90.0}  # the first channel's
    assert skips(manifest) == {"scan that no channel of the card names": 1}
    cache, _ = prepare(manifest, tmp_path / "cache", PrepareConfig(intensity="window", window=(0, 100)), workers=0)
    np.testing.assert_allclose(cache.array(case)[:, 0, 0, 0], [0.9, 0.1], atol=1e-3)
    swapped = read(tmp_path / "in", channels=dict(reversed(CARD["channels"].items())))
    assert swapped.case(swapped.cases["case_id"][0]).attributes == {"echo": 10.0}


def test_studies_that_do_not_fit_are_listed_each_with_its_reason(tmp_path: Path) -> None:
    for study, names in {"1.1": ["FLAIR", "T1"], "1.2": ["FLAIR"], "1.3": ["T1"], "1.4": ["FLAIR", "ax flair", "T1"],
                         "1.5": ["T1 flair"]}.items():
        for number, name in enumerate(names):
            write_series(tmp_path, study, name, 10 + number)
    write_series(tmp_path, "1.6", "FLAIR", 1)
    write_series(tmp_path, "1.6", "T1", 2, acquisition="2D")
    write_series(tmp_path, "1.8", "FLAIR", 1, patient="")
    manifest = read(tmp_path)
    assert len(manifest) == 1
    assert skips(manifest) == {
        "no scan for channel t1": 2, "no scan for channel flair": 1, "several scans for channel flair": 1,
        "a scan fits several channels of the card": 1, "scan that no channel of the card names": 1,
        "no patient or study id, so that its channels cannot be put together": 1,
    }
    assert not any("FLAIR" in str(value) for value in manifest.skipped["reason"])


def test_two_patients_of_one_study_number_and_two_studies_of_one_patient_are_cases_of_their_own(tmp_path: Path) -> None:
    for patient, study in (("P1", "1.1"), ("P2", "1.1"), ("P1", "1.2")):
        write_series(tmp_path / patient, study, "FLAIR" + patient, 1, patient)
        write_series(tmp_path / patient, study, "T1" + patient, 2, patient)
    cases = read(tmp_path).cases
    assert (len(cases), cases["patient_id"].n_unique(), cases["study_id"].n_unique()) == (3, 2, 3)


def test_nifti_files_are_put_together_by_what_their_paths_say(tmp_path: Path) -> None:
    for path in ("anna/ses1/a_flair.nii", "anna/ses1/a_T1w.nii", "berta/ses1/b_flair.nii"):
        write_volume(tmp_path / path, np.ones((3, 3, 3)))
    manifest = read(tmp_path, attributes={}, patient="{owner}", study="{visit}",
                    extract={"path": "(?P<owner>[^/]+)/(?P<visit>[^/]+)/.*"},
                    channels={"flair": {"path": ".*_flair.nii"}, "t1": {"path": ".*_t1w.nii"}})
    assert (len(manifest), skips(manifest)) == (1, {"no scan for channel t1": 1})


def test_a_table_is_joined_to_the_study(tmp_path: Path) -> None:
    write_series(tmp_path, "1.7", "T1", 10)
    write_series(tmp_path, "1.7", "FLAIR", 90)
    (tmp_path / "labels.csv").write_text("StudyInstanceUID,relapse\n1.7,1\n")
    manifest = read(tmp_path, join={"path": "labels.csv", "match": {"study": "StudyInstanceUID"}},
                    labels={"columns": ["relapse"]})
    assert manifest.cases["label.relapse"].to_list() == [1.0]


@pytest.mark.parametrize(("changes", "message"), [
    ({"kind": None}, "layout scan with `channels` needs `kind`"),
    ({"study": None}, "layout scan with `channels` needs `study`"),
    ({"channels": {"mask": {"path": ".*"}}}, "a channel cannot be called mask"),
    ({"channels": {"t1": {}}}, "at least 1 item"),
    ({"channels": {"t1": {"description": "("}}}, "no regular expression"),
    ({"layout": "pattern", "modality": "MR", "files": {"t1": "{case}.nii"}}, "pattern has no use for `channels`"),
])
def test_mistakes_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Card.from_yaml(yaml.safe_dump({**CARD, **changes}, sort_keys=False))
    assert message in str(error.value)


def test_a_misspelt_field_is_named_with_its_nearest(tmp_path: Path) -> None:
    write_series(tmp_path, "1.7", "T1", 10)
    with pytest.raises(ManifestError, match="'descripton' .nearest: 'description'"):
        read(tmp_path, channels={"t1": {"descripton": "T1"}})


def test_a_study_may_lack_an_optional_channel_which_is_then_nought(tmp_path: Path) -> None:
    write_series(tmp_path / "in", "1.7", "T1 MPRAGE", 10)
    write_series(tmp_path / "in", "1.7", "flair", 90)
    write_series(tmp_path / "in", "1.8", "flair", 80, patient="P2")
    write_series(tmp_path / "in", "1.9", "T1 MPRAGE", 20, patient="P3")
    manifest = read(tmp_path / "in", optional=["t1"])
    assert skips(manifest) == {"no scan for channel flair": 1}
    config = PrepareConfig(intensity="window", window=(0, 100), size=(6, 6))
    cache, _ = prepare(manifest, tmp_path / "cache", config, workers=0)
    found = sorted(cache.array(case)[:, 0, 0, 0].tolist() for case in cache.case_ids)
    np.testing.assert_allclose(found, [[0.8, 0], [0.9, 0.1]], atol=1e-3)
    assert skips(read(tmp_path / "in")) == {"no scan for channel t1": 1, "no scan for channel flair": 1}


def test_a_path_that_leads_nowhere_is_an_optional_channel_that_is_missing(tmp_path: Path) -> None:
    for case, name, value in (("a", "t1", 1), ("a", "t2", 2), ("b", "t1", 3), ("c", "t2", 4)):
        write_volume(tmp_path / f"{case}/{name}.nii", np.full((4, 5, 6), value))
    card = {"layout": "pattern", "modality": "MR", "patient": "{case}", "study": None, "channels": {}, "attributes": {},
            "files": {"t2": "{case}/t2.nii", "t1": "{case}/t1.nii"}}
    manifest = read(tmp_path, **card, optional=["t1"])
    cache, _ = prepare(manifest, tmp_path / "cache", PrepareConfig(intensity="window", window=(0, 10)), workers=0)
    found = sorted(cache.array(case)[:, 0, 0, 0].tolist() for case in cache.case_ids)
    np.testing.assert_allclose(found, [[0.2, 0.1], [0.4, 0]], atol=1e-3)
    assert skips(manifest) == {"no file for: t2": 1}


@pytest.mark.parametrize("optional", [["flair"], ["t3"]])
def test_only_another_channel_than_the_first_is_optional(optional: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"`optional` names '{optional[0]}'; channels that may be so are t1"):
        read(tmp_path, optional=optional)
