"""Files that mean harm run nothing, lead nowhere and fill no memory: each is refused, and told why."""

from __future__ import annotations

import ast
import gzip
import io
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from small_sets import SMALL, discs, one_thread  # noqa: F401 (fixtures)
from typer.testing import CliRunner

import medssl
from medssl.archives import ALWAYS, read_arrays
from medssl.cli import app
from medssl.config import read_yaml
from medssl.data import index
from medssl.data.card import Card
from medssl.data.manifest import Manifest
from medssl.data.table import read_table
from medssl.errors import ConfigError, ManifestError, RunError, UnreadableScan
from medssl.files import append_whole, write_table, write_whole
from medssl.io import open_scan
from medssl.io.write import write_nifti
from medssl.models.start import open_start
from medssl.models.weights import load_encoder
from medssl.recipe import load_recipe
from medssl.report.style import new_figure, save_figure
from medssl.train.checkpoint import _last_good, read_state
from medssl.train.finetune import FinetuneConfig, finetune
from medssl.train.run import open_run

SOURCES = sorted(Path(medssl.__file__).parent.rglob("*.py"))
HUGE = (10**6, 10**6)
"""A shape whose array would take terabytes."""


class Evil:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    """What no test may leave behind."""
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists()


# -------------------------------------------------------------------------------------------------------- our own code

def dangers(tree: ast.AST) -> list[str]:
    """Calls that run what a file or a text says, by line."""
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if (name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.unsafe_load",
                     "yaml.full_load", "joblib.load", "torch.jit.load", "torch.hub.load", "shelve.open")
                or name.startswith(("pickle.", "cPickle.", "dill.", "cloudpickle.", "marshal."))
                or name == "torch.load" and given.get("weights_only") != "True"
                or name.endswith("np.load") and given.get("allow_pickle") != "False"
                or name.endswith((".extractall", ".unpack_archive"))
                or name == "yaml.load" or given.get("shell", "False") != "False"
                or given.get("allow_pickle", "False") != "False"):
            found.append(f"{call.lineno}: {ast.unparse(call)}")
    return found


@pytest.mark.parametrize("text", [
    "pickle.load(f)", "pickle.loads(b)", "torch.load(p)", "torch.load(p, weights_only=False)", "yaml.load(t, L)",
    "yaml.unsafe_load(t)", "eval(t)", "exec(t)", "subprocess.run(t, shell=True)", "os.system(t)", "np.load(p)",
    "np.load(p, allow_pickle=True)", "np.save(p, a, allow_pickle=anything)", "torch.jit.load(p)", "joblib.load(p)",
    "zipped.extractall(p)",
])  # fmt: skip
def test_a_danger_is_found(text: str):
    assert dangers(ast.parse(f"def f():\n    return {text}")) == [f"2: {text}"]


def test_nothing_of_ours_runs_what_it_reads():
    assert len(SOURCES) > 100
    found = {path.name: dangers(ast.parse(path.read_text())) for path in SOURCES}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_no_module_of_ours_unpickles_or_calls_out():
    """Neither under another name, for which the calls above would not be found."""
    forbidden = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "urllib", "http", "requests", "socket", "ftplib",
                 "smtplib"}
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not forbidden & {name.partition(".")[0] for name in names}, path


# ------------------------------------------------------------------------------------------------ pickles and archives

def test_a_pickle_is_refused_as_weights_whatever_it_is_called(tmp_path: Path, trace: Path):
    for ending in (".pt", ".pth", ".ckpt", ".bin"):
        torch.save({"state_dict": {"a": torch.zeros(2)}, "extra": Evil(trace)}, tmp_path / f"a{ending}")
        (tmp_path / f"b{ending}").write_bytes(pickle.dumps(Evil(trace)))
        for name in "ab":
            with pytest.raises(RunError, match="nothing in a file is ever run.*safetensors"):
                open_start(tmp_path / f"{name}{ending}")


def test_a_pickle_is_refused_as_a_run_s_checkpoint(tmp_path: Path, trace: Path):
    torch.save({"format": 2, "module": Evil(trace)}, tmp_path / "last.ckpt")
    with pytest.raises(RunError, match="last.ckpt cannot be read"):
        _last_good(tmp_path)
    with pytest.raises(pickle.UnpicklingError):
        read_state(tmp_path / "last.ckpt")


def test_objects_among_arrays_are_refused(tmp_path: Path, trace: Path):
    np.savez(tmp_path / "a.npz", image=np.array([Evil(trace)], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_arrays(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.array([Evil(trace)], dtype=object))
    with pytest.raises(UnreadableScan):
        open_scan(tmp_path / "a.npy")


def test_a_run_s_model_is_no_pickle_under_another_name(tmp_path: Path, trace: Path):
    import hashlib
    import json

    torch.save({"encoder.weight": Evil(trace)}, tmp_path / "model.safetensors")
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    (tmp_path / "model.json").write_text(json.dumps({"format": 1, "sha256": digest, "encoder": {"name": "vit"}}))
    with pytest.raises(RunError, match="model.safetensors cannot be read"):
        load_encoder(tmp_path)


def write_npz(path: Path, shape: tuple[int, ...], content: bytes) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", header.getvalue() + content)


def test_an_array_that_claims_more_than_it_has_is_refused_before_it_takes_memory(tmp_path: Path):
    write_npz(tmp_path / "a.npz", HUGE, bytes(64))
    with pytest.raises(ValueError, match=r"image.npy claims the shape \(1000000, 1000000\)"):
        read_arrays(tmp_path / "a.npz")
    with pytest.raises(RunError, match="cannot be read"):
        open_start(tmp_path / "a.npz")


@pytest.mark.parametrize("ending", [".npz", ".pth"])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("medssl.archives.ALWAYS", 1 << 20)
    assert ALWAYS > 1 << 20
    path = tmp_path / f"bomb{ending}"
    if ending == ".npz":
        write_npz(path, (1 << 20,), bytes(4 << 20))
    else:
        torch.save({"cls_token": torch.zeros(1 << 20)}, tmp_path / "stored.pth")
        with zipfile.ZipFile(tmp_path / "stored.pth") as stored, zipfile.ZipFile(path, "w", 8) as packed:
            for part in stored.infolist():
                packed.writestr(part.filename, stored.read(part))
        assert read_state(tmp_path / "stored.pth")["cls_token"].shape == (1 << 20,)
    assert path.stat().st_size < 50_000
    with pytest.raises(RunError, match=r"would unpack to 4\d{6}"):
        open_start(path)


@pytest.mark.parametrize("precision", [torch.float32, torch.float16])  # which would be brought to float32
def test_a_tensor_that_claims_more_than_is_stored_of_it_is_refused(tmp_path: Path, precision: torch.dtype):
    torch.save({"cls_token": torch.zeros(1, dtype=precision).as_strided(HUGE, (0, 0))}, tmp_path / "a.pth")
    with pytest.raises(RunError, match="cls_token claims to be larger than what is stored of it"):
        open_start(tmp_path / "a.pth")
    torch.save({"cls_token": torch.zeros(4, 4).to_sparse()}, tmp_path / "a.pth")
    with pytest.raises(RunError, match="cls_token is not stored as a whole"):
        open_start(tmp_path / "a.pth")
    save_file({"cls_token": torch.zeros(4)}, tmp_path / "a.safetensors")
    raw = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(raw.replace(b"[4]", b"[9]"))
    with pytest.raises(RunError, match="cannot be read"):
        open_start(tmp_path / "a.safetensors")


def test_names_in_an_archive_are_no_paths(tmp_path: Path):
    """Archives are read, never unpacked into a folder."""
    np.savez(tmp_path / "a.npz", **{"../escaped": np.zeros(2)})
    assert list(read_arrays(tmp_path / "a.npz")) == ["../escaped"]
    assert {path.name for path in tmp_path.parent.iterdir()} >= {tmp_path.name}
    assert not (tmp_path.parent / "escaped.npy").exists()


def test_gzip_that_hides_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MEDSSL_MAX_SCAN_GIB", str(2**-10))
    write_nifti(tmp_path / "a.nii", np.zeros((4, 4, 4), np.int16), np.eye(4))
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()  # dim[1:4]
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(raw))
    with pytest.raises(UnreadableScan, match="would take .* GiB"):
        open_scan(tmp_path / "a.nii.gz")
    monkeypatch.setattr("medssl.data.table.MOST", 1 << 20)
    (tmp_path / "labels.csv.gz").write_bytes(gzip.compress(b"Path,Sick\n" + b"a.png,1\n" * (1 << 18)))
    with pytest.raises(ManifestError, match="holds more than 1 MiB"):
        read_table(tmp_path / "labels.csv.gz")


@pytest.mark.parametrize("pack", [gzip.compress, *(partial(zlib.compress, level=level) for level in (0, 1, 6, 9))],
                         ids=["gzip", "zlib 0", "zlib 1", "zlib 6", "zlib 9"])
def test_a_table_that_is_packed_under_another_name_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]):
    table = tmp_path / "labels.csv"
    table.write_bytes(pack(b"case_id,Sick\n" + b"a,1\n" * 9))
    with pytest.raises(ManifestError, match="packed, though its name does not say so"):
        read_table(table)
    (tmp_path / "labels.manifest.json").write_text("{}")
    with pytest.raises(ManifestError, match="packed, though its name does not say so"):
        Manifest.load(table)


# ---------------------------------------------------------------------------------------------------------------- YAML

def bomb() -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for one, other in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{other}: &{other} [{', '.join(['*' + one] * 10)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(("text", "told"), [
    ("step: !!python/object/apply:pathlib.Path.touch [{trace}]", "could not determine a constructor for the tag"),
    ("!!python/object/new:pathlib.Path [{trace}]", "could not determine a constructor"),
    ("step: !!python/name:os.system ''", "could not determine a constructor"),
    (bomb(), "more than 100000 values"),
    ("step: &a [*a]", "more than 100000 values"),
    ("step: " + "[" * 1500, "nested too deep"),
    ("step: " + "9" * 6000, "not what it claims to be"),
    ("step: !!bool maybe", "not what it claims to be"),
], ids=["apply", "new", "name", "aliases", "itself", "deep", "digits", "bool"])  # fmt: skip
def test_yaml_that_asks_for_more_than_plain_values_is_refused(tmp_path: Path, trace: Path, text: str, told: str):
    path = tmp_path / "a.yaml"
    path.write_text(text.replace("{trace}", f"{trace}"))
    for read in (read_yaml, Card.read, lambda path: load_recipe(path, "pretrain", [])):
        with pytest.raises(ConfigError, match=f"(?s)a.yaml is not YAML: .*{told}.*Expected plain YAML"):
            read(path)
    with pytest.raises(ConfigError, match="the card in x"):
        Card.from_yaml(path.read_text(), "the card in x")


def test_a_recipe_in_a_run_folder_is_read_as_strictly(tmp_path: Path, trace: Path):
    from medssl.train.how import HowConfig

    open_run(tmp_path / "run", HowConfig())
    (tmp_path / "run/recipe.yaml").write_text(f"a: !!python/object/apply:pathlib.Path.touch [{trace}]")
    (tmp_path / "run/provenance.json").write_text('{"begun": "now"}')
    with pytest.raises(ConfigError, match="recipe.yaml is not YAML"):
        open_run(tmp_path / "run", HowConfig())


# ------------------------------------------------------------------------------------------------ manifests and caches

@pytest.fixture
def manifest(manifests: dict[str, Path], tmp_path: Path) -> Path:
    """One of one's own, to be spoilt."""
    for path in manifests["echo"].parent.glob("echo.*"):
        shutil.copy2(path, tmp_path)
    return tmp_path / "echo.parquet"


def spoil(path: Path, *change: pl.Expr, **told: str) -> None:
    """Changes columns of a table, and what it says of itself."""
    known = {name: text for name, text in pl.read_parquet_metadata(path).items() if name.startswith("medssl")}
    pl.read_parquet(path).with_columns(*change).write_parquet(
        path, metadata=known | {f"medssl.{name}": text for name, text in told.items()})


@pytest.mark.parametrize(("change", "told", "error"), [
    ({"path": "/etc/passwd"}, {}, "lead outside of the data set's folder"),
    ({"path": "/etc/passwd"}, {"folder": "/"}, "lead outside of the data set's folder"),
    ({"path": 7}, {}, "by an older medssl, or by hand"),
    ({"part": "x"}, {}, "by an older medssl, or by hand"),
    ({"case_id": b"x"}, {}, "by an older medssl, or by hand"),
], ids=["outside", "everywhere", "numbers", "text", "bytes"])  # fmt: skip
def test_a_files_table_that_is_not_as_it_should_be_is_refused(manifest: Path, change, told, error):
    spoil(manifest.with_name("echo.files.parquet"), *(pl.lit(value).alias(name) for name, value in change.items()),
          **told)
    with pytest.raises(ManifestError, match=error):
        Manifest.load(manifest)


@pytest.mark.parametrize(("column", "value", "error"), [
    ("case_id", pl.lit("../../elsewhere"), "case_id is no pseudonym"),
    ("patient_id", pl.lit([["a"]]), "(of another type|no pseudonym)"),
    ("label.EF", pl.lit("high"), "of another type"),
    ("split", pl.lit("everyone"), "unknown split"),
    ("__class__", pl.lit("x"), "unknown ones.*__class__"),
])  # fmt: skip
def test_a_manifest_of_absurd_types_is_refused(manifest: Path, column: str, value: pl.Expr, error: str):
    spoil(manifest, value.alias(column))
    with pytest.raises(ManifestError, match=error):
        Manifest.load(manifest)


@pytest.mark.parametrize(("told", "error"), [
    ({"card": "!!python/object/apply:os.system [id]"}, ConfigError), ({"card": "[]"}, ConfigError),
    ({"skipped": "{"}, ManifestError), ({"skipped": "7"}, ManifestError),
])  # fmt: skip
def test_a_manifest_that_says_nonsense_of_itself_is_refused(manifest: Path, told: dict, error: type[Exception]):
    spoil(manifest, **told)
    with pytest.raises(error, match="echo.parquet"):
        Manifest.load(manifest)


@pytest.mark.parametrize("name", ["echo.parquet", "echo.files.parquet"])
def test_a_table_that_claims_more_rows_than_bytes_is_refused_unread(manifest: Path, name: str, monkeypatch):
    table = manifest.with_name(name)
    row = pl.read_parquet(table)[:1]
    told = {key: text for key, text in pl.read_parquet_metadata(table).items() if key.startswith("medssl")}
    row.select(pl.all().repeat_by(1_000_000).explode()).write_parquet(table, metadata=told)
    assert table.stat().st_size < 100_000
    read = pl.read_parquet
    monkeypatch.setattr(pl, "read_parquet", lambda path, **how: pytest.fail("read") if path == table else
                        read(path, **how))
    with pytest.raises(ManifestError, match="claims 1000000 rows in"):
        Manifest.load(manifest)


def test_a_damaged_table_is_refused(manifest: Path):
    raw = manifest.read_bytes()
    for spoilt in (b"", b"PAR1", raw[: len(raw) // 2], raw[:-40] + bytes(36) + b"PAR1", b"PAR1" + bytes(50) + b"PAR1"):
        manifest.write_bytes(spoilt)
        with pytest.raises(ManifestError, match="echo.parquet cannot be read"):
            Manifest.load(manifest)


@pytest.mark.parametrize("row", [{"address": "../../elsewhere"}, {"address": "/etc/passwd"}, {"address": 7}, [1], "x"])
def test_a_cache_s_index_leads_to_its_own_arrays_alone(tmp_path: Path, row: object):
    row = dict.fromkeys(index.COLUMNS) | {"case_id": "c1", "stamp": "s"} | row if isinstance(row, dict) else row
    index.append(tmp_path, row)
    with pytest.raises(RunError, match="index of the cache .* cannot be used"):
        index.read(tmp_path)


# ------------------------------------------------------------------------------------------------------ links, folders

def test_what_is_written_replaces_a_link_and_never_follows_it(tmp_path: Path):
    (tmp_path / "mine").write_text("kept")
    for name in ("whole", "appended", "table.csv", "table.parquet", "picture.png"):
        (tmp_path / name).symlink_to("mine")
    write_whole(tmp_path / "whole", "new")
    for name in ("table.csv", "table.parquet"):
        write_table(tmp_path / name, pl.DataFrame({"a": [1]}))
    save_figure(tmp_path / "picture.png", new_figure(1, 1))
    with pytest.raises(OSError, match="appended"):
        append_whole(tmp_path / "appended", b"new")
    assert (tmp_path / "mine").read_text() == "kept"
    for name in ("whole", "table.csv", "table.parquet", "picture.png"):
        assert not (tmp_path / name).is_symlink()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_tables_and_pictures_are_drafts_before_they_have_a_name(source: Path):
    for call in (node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("write_parquet", "write_csv", "savefig"):
            written = [ast.unparse(argument) for argument in call.args]
            assert written in ([], ["draft"], ["buffer"]), f"{source.name}, line {call.lineno}: {ast.unparse(call)}"


def test_what_evaluate_and_predict_leave_follows_no_link(tmp_path: Path, discs):  # noqa: F811
    run = finetune(FinetuneConfig.model_validate({
        "data": discs, **{part: SMALL[part] for part in ("encoder", "augment", "train")},
        "task": {"name": "classify", "labels": ["Bright"]}}), tmp_path / "run")
    (tmp_path / "mine").write_text("kept")
    for path in (run / "predictions.parquet", tmp_path / "said.csv"):
        path.symlink_to(tmp_path / "mine")
    for words in (["evaluate", run], ["predict", run, discs.manifest, "--out", tmp_path / "said.csv"]):
        told = CliRunner().invoke(app, [str(word) for word in words])
        assert told.exit_code == 0, told.output
    assert (tmp_path / "mine").read_text() == "kept"
    assert pl.read_parquet(run / "predictions.parquet")["name"].unique().to_list() == ["Bright"]


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "recipe.yaml"])
def test_what_a_link_in_a_run_folder_leads_to_is_not_quoted(tmp_path: Path, name: str):
    (tmp_path / "private").write_text("a-name: [of a patient\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/model.json").write_text('{"format": 1, "sha256": "0"}')
    (tmp_path / "run" / name).unlink(missing_ok=True)
    (tmp_path / "run" / name).symlink_to(tmp_path / "private")
    with pytest.raises((RunError, ConfigError)) as caught:
        read_yaml(tmp_path / "run" / name) if name == "recipe.yaml" else load_encoder(tmp_path / "run")
    assert "patient" not in str(caught.value)


def test_a_relative_checkpoint_is_as_little_trusted_as_any(tmp_path: Path, trace: Path, monkeypatch):
    """A recipe may start from a file anywhere that its user may read; what is there is data, wherever a link leads."""
    (tmp_path / "far").mkdir()
    (tmp_path / "here").mkdir()
    torch.save({"state_dict": Evil(trace)}, tmp_path / "far/evil.pth")
    (tmp_path / "here/model.safetensors").symlink_to("../far/evil.pth")
    (tmp_path / "here/config.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "here")
    for init in ("../far/evil.pth", "."):
        with pytest.raises(RunError, match="cannot be read"):
            open_start(init)
