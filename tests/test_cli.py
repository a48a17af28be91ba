"""The command line as a user meets it: help with a working example, and bad input that ends in one message."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import get_type_hints

import nibabel as nib
import numpy as np
import polars as pl
import pytest
import typer

from medssl.cli import app, main
from medssl.commands.data import manifest
from medssl.commands.judge import predict
from medssl.demo import run_demo
from medssl.errors import ConfigError
from medssl.recipe import find, load_any, load_recipe

COMMANDS = {command.callback.__name__: command.callback.__doc__ for command in app.registered_commands}
TINY = ["train.steps=2", "train.batch_size=2", "train.workers=0", "train.precision=float32"]
SMALL = ["data.prepare.size=[64,64]", "augment.size=[64,64]"]


class Terminal:
    """Runs `medssl ...` in this process, in a folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
                 caplog: pytest.LogCaptureFixture) -> None:
        self.folder, self._patch, self._capsys, self._caplog = folder, monkeypatch, capsys, caplog
        monkeypatch.chdir(folder)
        key = folder / "pseudonym.key"
        key.touch(0o600)
        key.write_bytes(bytes(range(32)))  # the same people by the same names in every run
        monkeypatch.setenv("MEDSSL_KEY_FILE", str(key))

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Exit status, standard output, standard error (with the warnings that pytest catches on their way there)."""
        self._caplog.clear()
        self._patch.setattr("sys.argv", ["medssl", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            main()
        captured = self._capsys.readouterr()
        return done.value.code or 0, captured.out, captured.err + "\n".join(self._caplog.messages)

    def refused(self, *arguments: object) -> str:
        """The one message of a command that fails as it should: what was expected, and the remedy."""
        status, _, error = self(*arguments)
        assert status == 1
        assert "Traceback" not in error
        lines = [line for line in error.splitlines() if line.startswith("medssl: ")]
        assert len(lines) == 1, error
        assert "Expected " in error
        assert "Remedy: " in error
        return error


@pytest.fixture
def medssl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
           caplog: pytest.LogCaptureFixture, one_core: None) -> Terminal:
    return Terminal(tmp_path, monkeypatch, capsys, caplog)


@pytest.fixture
def xray(phantoms: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(phantoms["xray"], tmp_path / "CheXpert", ignore=shutil.ignore_patterns("dicom"))


@pytest.fixture
def brain(phantoms: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(phantoms["brain"], tmp_path / "BraTS")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_carries_an_example(command: str, medssl: Terminal):
    status, out, _ = medssl(command, "--help")
    assert status == 0
    assert "Example: medssl" in " ".join(out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_example_names_what_there_is(command: str):
    (example,) = [line.split("Example: ")[1] for line in COMMANDS[command].splitlines() if "Example: " in line]
    program, called, *words = shlex.split(example)
    assert (program, called) == ("medssl", command)
    for word in words:
        if word.startswith("pipelines/"):
            assert load_any(word, [other for other in words if "=" in other])
        if word.startswith("data_manifests/"):
            assert find(word, "data_manifests").is_file()


def test_version_and_unknown_option(medssl: Terminal):
    assert medssl("--version")[1].strip()
    assert medssl("check", "--depe")[0] == 2


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"pretrain", "finetune"}))
def test_what_one_process_does_is_not_done_by_two(command: str, medssl: Terminal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert f"2 processes were started for medssl {command}" in medssl.refused(command, "anything")


def test_unreadable_file_is_an_error_of_check_and_a_listed_skip_of_prepare(medssl: Terminal, xray: Path):
    broken = sorted((xray / "train").rglob("*.jpg"))[0]
    broken.write_bytes(broken.read_bytes()[:200])
    assert medssl("manifest", "data_manifests/chexpert.yaml", xray, "--out", "x.parquet")[0] == 0
    status, out, _ = medssl("check", "x.parquet", "--deep")
    assert status == 1
    assert "error: 1 case(s): image:" in out
    assert "remedy:" in out
    assert str(broken) in out
    status, out, error = medssl("prepare", "pipelines/chexpert/simsiam.yaml", "data.manifest=x.parquet", *SMALL)
    assert status == 0
    assert "1 of 32 cases skipped" in error
    assert "Remedy: " in error
    assert str(broken.parent.name) not in error


def test_a_pretraining_is_watched_by_labels_and_by_pictures(medssl: Terminal, xray: Path):
    assert medssl("manifest", "data_manifests/chexpert.yaml", xray, "--out", "x.parquet")[0] == 0
    small = [*TINY, *SMALL, "encoder.width=24", "encoder.depth=1", "encoder.heads=2",
             "objective.decoder={width: 24, depth: 1, heads: 2}"]
    recipe = ("pretrain", "pipelines/chexpert/mae.yaml", "data.manifest=x.parquet", "--out", "run", *small)
    assert "'Malady' cannot be probed" in medssl.refused(*recipe, "online.labels=[Malady]")
    assert medssl(*recipe)[0] == 0
    told = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert all(0 <= line["knn"] <= 1 for line in told)
    assert {name for line in told for name in line if name.startswith("knn.")}
    assert Path("run/reconstructions.png").is_file()


def test_missing_column(medssl: Terminal, xray: Path):
    for table in (xray / "train.csv", xray / "valid.csv"):
        table.write_text(table.read_text().replace("Sex,", "Gender,", 1))
    assert "'Sex'" in medssl.refused("manifest", "data_manifests/chexpert.yaml", xray, "--out", "x.parquet")


def test_row_without_image_and_mask_without_image_are_listed(medssl: Terminal, xray: Path, brain: Path):
    sorted((xray / "train").rglob("*.jpg"))[0].unlink()
    status, out, error = medssl("manifest", "data_manifests/chexpert.yaml", xray, "--out", "x.parquet")
    assert status == 0
    assert "1 skipped:" in error
    assert "Remedy: " in error
    for path in (brain / "BraTS2021_00000").glob("*_[ft]*.nii.gz"):
        path.unlink()
    status, out, error = medssl("manifest", "data_manifests/brats2021.yaml", brain, "--out", "b.parquet")
    assert status == 0
    assert "1 skipped:" in error
    assert "Remedy: " in error


def test_patient_in_two_splits(medssl: Terminal, xray: Path):
    row = (xray / "train.csv").read_text().splitlines()[1]
    path = row.split(",")[0]
    moved = path.replace("/train/", "/valid/")
    source, target = (xray / p.split("/", 1)[1] for p in (path, moved))
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    with open(xray / "valid.csv", "a") as file:
        file.write(row.replace(path, moved) + "\n")
    message = medssl.refused("manifest", "data_manifests/chexpert.yaml", xray, "--out", "x.parquet")
    assert "more than one split" in message
    assert path.split("/")[2] not in message


def test_mask_on_another_grid(medssl: Terminal, brain: Path):
    mask = brain / "BraTS2021_00001/BraTS2021_00001_seg.nii.gz"
    image = nib.load(mask)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), mask)
    assert medssl("manifest", "data_manifests/brats2021.yaml", brain, "--out", "b.parquet")[0] == 0
    status, out, _ = medssl("check", "b.parquet", "--deep")
    assert status == 1
    assert "mask lies on another grid than the first file: shape" in out
    status, _, error = medssl("prepare", "pipelines/phantom_brain/curve.yaml", "data.manifest=b.parquet")
    assert status == 0
    assert "the mask lies on another grid" in error
    assert "Remedy: " in error


def test_misspelt_key_names_the_nearest(medssl: Terminal):
    status, _, error = medssl("pretrain", "pipelines/chexpert/mae.yaml", "train.stesp=5", "data.prepare.intensty=range")
    assert status == 1
    assert "Traceback" not in error
    assert "2 mistakes" in error
    assert "did you mean 'steps'?" in error
    assert "did you mean 'intensity'?" in error
    assert "Remedy: " in error


def test_empty_folder(medssl: Terminal, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for card in ("chexpert", "brats2021", "echonet_dynamic", "dicom_folder", "nifti_folder"):
        medssl.refused("manifest", f"data_manifests/{card}.yaml", "empty", "--out", "x.parquet")


def test_what_is_not_there(medssl: Terminal, manifests: dict[str, Path], tmp_path: Path):
    medssl.refused("manifest", "data_manifests/chexpert.yaml", "nowhere", "--out", "x.parquet")
    medssl.refused("check", "nowhere.parquet")
    assert "simsiam.yaml" in medssl.refused("pretrain", "pipelines/chexpert/simsam.yaml")
    medssl.refused("evaluate", "nowhere")
    medssl.refused("report", tmp_path)
    manifest = f"data.manifest={manifests['xray']}"
    medssl.refused("finetune", "pipelines/chexpert/finetune.yaml", manifest, *SMALL)
    where = "data.where={sight: [AP]}"
    assert "'sight'" in medssl.refused("pretrain", "pipelines/chexpert/simsiam.yaml", manifest, where, *SMALL)


def test_folder_that_may_not_be_written(medssl: Terminal, manifests: dict[str, Path], tmp_path: Path):
    (tmp_path / "file").write_text("")
    status, _, error = medssl("phantom", "echo", tmp_path / "file" / "echo", "--patients", "4")
    assert status == 1
    assert "Traceback" not in error
    assert "Remedy: " in error


def test_model_is_not_judged_on_a_patient_it_saw(medssl: Terminal, xray: Path, tmp_path: Path):
    card = find("data_manifests/chexpert.yaml", "data_manifests").read_text()
    (tmp_path / "all_train.yaml").write_text(card.replace("valid.csv, split: test", "valid.csv, split: train"))
    medssl("manifest", "all_train.yaml", xray, "--out", "all.parquet")
    medssl("manifest", "data_manifests/chexpert.yaml", xray, "--out", "x.parquet")
    small = ["--out", "seen", *SMALL, *TINY]
    assert medssl("pretrain", "pipelines/chexpert/mae.yaml", "data.manifest=all.parquet", *small)[0] == 0
    message = medssl.refused("probe", "pipelines/chexpert/finetune.yaml", "data.manifest=x.parquet", "init=seen",
                             "--split", "test", *SMALL, *TINY)
    assert "was trained on 3 of the 3 patients" in message


def test_masks_lie_beside_the_table_and_are_called_patient_data(
    medssl: Terminal, manifests: dict[str, Path], tmp_path: Path
):
    (tmp_path / "segment.yaml").write_text(f"""
step: finetune
data: {{manifest: {manifests["brain"]}, prepare: {{size: [20, 32, 32]}}, box: {{size: [16, 16, 16]}}}}
task: {{name: segment}}
encoder: {{name: unet, widths: [4, 8]}}
train: {{steps: 1, batch_size: 1, precision: float32}}
""")
    assert medssl("finetune", "segment.yaml", "--out", "tuned")[0] == 0
    status, out, _ = medssl("predict", "tuned", manifests["brain"], "--out", "p.csv", "--masks", "m")
    assert status == 0
    assert "patient data" in out
    cases = pl.read_csv(tmp_path / "p.csv")
    assert set(cases["name"]) == {"WT", "TC", "ET"}
    assert {path.name for path in (tmp_path / "m").iterdir()} == {f"{case}.nii.gz" for case in cases["case_id"]}


def test_finetune_evaluate_predict(medssl: Terminal, manifests: dict[str, Path], tmp_path: Path):
    manifest = f"data.manifest={manifests['xray']}"
    scratch = ["init=null", "encoder={name: resnet, blocks: [1,1,1,1], widths: [8,8,8,8]}"]
    arguments = ["pipelines/chexpert/finetune.yaml", manifest, "task.labels=[Male]", "task.uncertain_by_label={}",
                 *scratch, *SMALL, *TINY]
    assert medssl("finetune", *arguments, "--out", "tuned")[0] == 0
    status, out, _ = medssl("evaluate", "tuned", "--split", "test")
    assert status == 0
    assert out.startswith("auroc")
    status, out, _ = medssl("robustness", "tuned")
    assert status == 0
    assert out.startswith("AUROC on clean scans")
    assert "left out: ghosting, since ghosting is made for MR, not for DX" in out
    assert out.endswith("tuned/robustness.png\n")
    status, out, _ = medssl("predict", "tuned", manifests["xray"], "--out", "p.csv")
    assert status == 0
    assert (tmp_path / "p.csv").read_text().startswith("case_id,patient_id,name,prediction\n")
    assert "in p.csv" in out
    assert "task.name=classify" in medssl.refused("predict", "tuned", manifests["xray"], "--masks", "m")
    assert medssl("preview", "pipelines/chexpert/curve.yaml", manifest, *SMALL, "--out", "v.png")[0] == 0
    assert (tmp_path / "v.png").read_bytes().startswith(b"\x89PNG")
    preview = ["preview", "pipelines/chexpert/simsiam.yaml", manifest, *SMALL, "--strengths", "recipe"]
    assert medssl(*preview, "--out", "s.png")[:2] == (0, "s.png\n")
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert "does not augment" in medssl.refused(*preview, "augment.spatial={}", "augment.intensity=[]")
    assert "keep_sector on cases of modality" in medssl.refused(*preview, "augment.spatial.keep_sector=true")


def test_a_mistyped_arm_names_the_nearest(medssl: Terminal):
    with pytest.raises(ConfigError, match="no arm 'simsam'.*did you mean 'simsiam'"):
        load_recipe("pipelines/phantom_xray/curve.yaml", "curve", ["arms.simsam.lr=0.1"])


def test_a_date_in_an_override_stays_text():
    assert load_recipe("pipelines/phantom_xray/curve.yaml", "curve", ["title=2024-01-01"]).title == "2024-01-01"


def test_the_demo_tells_a_mistake_before_it_does_anything(medssl: Terminal, tmp_path: Path):
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        run_demo(tmp_path / "demo", 1.0, None, ["train.stps=3"])
    assert not (tmp_path / "demo").exists()


def test_no_secret_is_given_on_the_command_line():
    """Other users of a machine see every process's words, and a shell keeps them: --key names the key's file."""
    options = {(name, option) for name, command in typer.main.get_command(app).commands.items()
               for parameter in command.params for option in parameter.opts}
    assert len(options) > 40
    secret = {(name, option) for name, option in options if re.search("key|secret|token|password", option)}
    assert secret == {("manifest", "--key"), ("predict", "--key")}
    assert all(get_type_hints(command)["key"] == Path | None for command in (manifest, predict))
