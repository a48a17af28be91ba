"""What a model starts from: an earlier run, or a foreign checkpoint in a local file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from medssl.models import EncoderConfig
from medssl.models.adapt import Account, fill, fits, fold
from medssl.models.encoder import Encoder
from medssl.models.foreign import read_foreign, weights_file
from medssl.models.packed import is_packed
from medssl.models.weights import DESCRIPTION, PartTensors, file_sha256, known_encoder, load_parts


@dataclass(frozen=True, eq=False)
class Start:
    """Weights by part, under the names of our own modules.

    path: as the user named it, for messages on the terminal.
    layout: whose names the file had.
    sha256: of the file.
    encoder: the Config of the encoder that they are of, as plain data.
    description: the run's model.json; None for foreign weights, of which nobody here knows whom they saw.
    changed: {encoder's tensor: how} it was changed while it was read, e.g. joined from several.
    left_over: the file's names for what has no place in an encoder.
    named: {part.name: the file's name}, where that differs.
    notes: what had to be assumed, since the file does not say.
    """

    path: Path
    layout: str
    sha256: str
    encoder: dict[str, Any]
    tensors: PartTensors
    description: dict[str, Any] | None = None
    changed: dict[str, str] = field(default_factory=dict)
    left_over: tuple[str, ...] = ()
    named: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def encoder_config(self) -> EncoderConfig:
        """Of the encoder that the weights are of; RunError where this version cannot build it."""
        return known_encoder(self.encoder, self.path)

    @property
    def patients_known(self) -> bool:
        """Whether everyone that these weights ever saw is in `description`."""
        return self.description is not None and self.description.get("init", {}).get("patients") != "unknown"

    @property
    def origin(self) -> dict[str, str]:
        """For model.json."""
        return {"layout": self.layout, "sha256": self.sha256, "patients": "known" if self.patients_known else "unknown"}

    def fill_encoder(self, encoder: Encoder) -> Account:
        """Copies the weights into `encoder`; RunError with the account where they do not fit."""
        return fill(encoder, self.tensors.get("encoder", {}), "encoder", self.encoder.get("channels"), self.changed,
                    f"weights {self.path}, of layout {self.layout},")

    def fill_others(self, owner: nn.Module) -> list[Account]:
        """Copies every other part that `owner` has a module for, of the same name and shapes."""
        return [fill(getattr(owner, part), tensors, part) for part, tensors in self.tensors.items()
                if part != "encoder" and isinstance(getattr(owner, part, None), nn.Module)
                and fits(getattr(owner, part), tensors)]

    def account(self, accounts: Iterable[Account]) -> str:
        """All that became of the file, given the accounts of the parts that were filled."""
        accounts = list(accounts)
        unused = self.tensors.keys() - {account.part for account in accounts}
        names = [f"{part}.{name}" for part in unused for name in self.tensors[part]]
        left = [*self.left_over, *(self.named.get(name, name) for name in names)]
        lines = [f"weights of layout {self.layout}, sha256 {self.sha256[:12]}", *self.notes, *map(str, accounts),
                 f"left over in the file, not used: {len(left)}" + "".join(f"\n  {name}" for name in fold(left))]
        if not self.patients_known:
            lines.append("whom these weights saw is unknown: see yourself that none of them is judged here")
        return "\n".join(lines)


def check_start(init: Path | None, out: Path) -> None:
    """What `open_start` raises, before hours of preparing; a finished run in `out` needs its start no more."""
    if init and not (out / DESCRIPTION).is_file():
        open_start(init)


def open_start(path: str | Path) -> Start:
    """An earlier run, by its folder or its one file, or foreign weights.

    Raises RunError where there is neither, where the run is unfinished or damaged, or the layout is unknown.
    """
    path = Path(path)
    packed = is_packed(path)
    run = path.parent if not packed and path.is_file() and (path.parent / DESCRIPTION).is_file() else path
    if packed or any((run / name).is_file() for name in (DESCRIPTION, "recipe.yaml")):
        tensors, description = load_parts(run)
        return Start(path, "medssl", description["sha256"], description.get("encoder", {}), tensors, description)
    file = weights_file(path)
    layout, reading, left_over = read_foreign(file)
    return Start(path, layout, file_sha256(file), reading.encoder, reading.tensors, None, reading.changed,
                 tuple(left_over), reading.taken, tuple(reading.notes))
