"""medssl.train.checkpoint: whole or not at all, and never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from medssl.errors import RunError
from medssl.train.checkpoint import EARLIER, NAME, Progress, load_checkpoint, save_checkpoint
from medssl.train.launch import alone


def parts(width: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    module = nn.Linear(width, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, width)).sum().backward()
    optimizer.step()
    return module, optimizer


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module, torch.optim.Optimizer]:
    module, optimizer = parts()
    save_checkpoint(tmp_path, alone(), module, optimizer, Progress(7, 1.5, [0.25, 0.5]))
    return tmp_path, module, optimizer


def test_everything_comes_back(saved):
    folder, module, optimizer = saved
    other, its_optimizer = parts()
    assert load_checkpoint(folder, alone(), other, its_optimizer) == Progress(7, 1.5, [0.25, 0.5])
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))
    states = zip(optimizer.state_dict()["state"].values(), its_optimizer.state_dict()["state"].values(), strict=True)
    assert all(torch.equal(a[key], b[key]) for a, b in states for key in ("exp_avg", "exp_avg_sq", "step"))
    assert [path.name for path in folder.iterdir()] == [NAME]


def test_without_a_checkpoint_it_begins_at_the_beginning(tmp_path):
    assert load_checkpoint(tmp_path, alone(), *parts()) is None


@pytest.mark.parametrize("damage", [
    lambda whole: b"", lambda whole: b"no checkpoint", lambda whole: whole[: len(whole) // 2],
    lambda whole: whole[100:],
], ids=["empty", "other", "cut short", "beginning lost"])
def test_a_damaged_file_is_a_run_error_with_a_remedy(saved, damage):
    path = saved[0] / NAME
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RunError, match="cannot be read.*Remedy: delete it") as caught:
        load_checkpoint(saved[0], alone(), *parts())
    assert "weights_only" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_a_run_error(saved):
    with pytest.raises(RunError, match="does not fit"):
        load_checkpoint(saved[0], alone(), *parts(width=4))


def test_a_checkpoint_cannot_run_code(saved):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save(Evil(), saved[0] / NAME)
    with pytest.raises(RunError, match="cannot be read"):
        load_checkpoint(saved[0], alone(), *parts())


def test_one_flipped_bit_is_found_and_the_one_before_goes_on(saved, caplog, monkeypatch):
    folder, module, optimizer = saved
    save_checkpoint(folder, alone(), module, optimizer, Progress(8))
    content = bytearray((folder / NAME).read_bytes())
    place = content.find(module.weight.detach().numpy().tobytes())
    assert place > 0
    content[place] ^= 1
    (folder / NAME).write_bytes(content)
    assert load_checkpoint(folder, alone(), *parts()).step == 7
    assert "goes on from the one before it" in caplog.text

    def full(state, file) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(folder, alone(), module, optimizer, Progress(8))
    assert load_checkpoint(folder, alone(), *parts()).step == 7, "a full disk must not cost the good one"


def test_a_fault_that_may_pass_is_not_told_as_damage(saved, monkeypatch):
    def fail(error: Exception) -> Progress | None:
        def read(path: Path) -> None:
            raise error

        monkeypatch.setattr("medssl.train.checkpoint.read_state", read)
        return load_checkpoint(saved[0], alone(), *parts())

    with pytest.raises(RunError, match=r"cannot be read now \(Permission denied\)"):
        fail(PermissionError(13, "Permission denied"))
    with pytest.raises(MemoryError):
        fail(MemoryError())
    assert (saved[0] / NAME).is_file()
    assert fail(FileNotFoundError(2, "No such file")) is None, "another process has removed a damaged one"


def test_a_full_disk_keeps_the_last_one_and_gives_up_the_one_before(saved, monkeypatch):
    folder, module, optimizer = saved
    save_checkpoint(folder, alone(), module, optimizer, Progress(8))
    write = torch.save

    def save(state, file) -> None:
        if (folder / EARLIER).is_file():
            raise OSError(28, "No space left on device")
        write(state, file)

    monkeypatch.setattr(torch, "save", save)
    save_checkpoint(folder, alone(), module, optimizer, Progress(9))
    assert load_checkpoint(folder, alone(), *parts()).step == 9
