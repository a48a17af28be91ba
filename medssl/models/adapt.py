"""Weights put into a module that may differ from theirs in channels or grid, and an account of every tensor.

What is well defined is adapted; all else that does not fit is refused, and nothing is left out in silence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from medssl.errors import RunError
from medssl.models.encoder import Encoder
from medssl.models.vit import resize_positions

FRESH = ("num_batches_tracked", "relative_position_index")
"""Ends of names that a file may lack: the first only counts, the second follows from the architecture."""


@dataclass(frozen=True)
class Account:
    """What became of a part's tensors, by name.

    adapted: {name: how}; missing: not in the file, so kept as the module had them.
    """

    part: str
    matched: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{len(self.matched)} matched, {len(self.adapted)} adapted, {len(self.missing)} missing"
        lines = [f"{self.part}: {counts}"]
        if self.matched:
            lines.append(f"  matched: {', '.join(fold(self.matched))}")
        for how in dict.fromkeys(self.adapted.values()):
            names = fold(name for name, other in self.adapted.items() if other == how)
            lines.append(f"  adapted, {how}: {', '.join(names)}")
        if self.missing:
            lines.append(f"  missing in the file, kept fresh: {', '.join(fold(self.missing))}")
        return "\n".join(lines)


def fill(
    module: nn.Module, tensors: Mapping[str, Tensor], part: str, channels: int | None = None,
    changed: Mapping[str, str] | None = None, source: str = "weights",
) -> Account:
    """Copies `tensors` into `module`, adapted where they must be.

    Args:
        part: its name in messages.
        channels: of the pictures that the tensors were made for, where `module` is an encoder.
        changed: {name: how} of the tensors that were already adapted while they were read.
        source: what the tensors are, in messages.

    Raises:
        RunError: with the account, where one of the module's tensors is missing or of another shape, or one of
            `tensors` has no place. `module` is then as it was.
    """
    ours, changed = module.state_dict(), changed or {}
    account, state, mistakes = Account(part), dict(ours), []
    for name, tensor in ours.items():
        if name not in tensors:
            account.missing.append(name)
            continue
        adapted = _adapted(name, tensors[name], tensor.shape, module, channels)
        if adapted is None:
            mistakes.append(f"{name} is {tuple(tensors[name].shape)} in the file and {tuple(tensor.shape)} here")
            continue
        state[name], how = adapted
        how = "; ".join(each for each in (changed.get(name), how) if each)
        if how:
            account.adapted[name] = how
        else:
            account.matched.append(name)
    mistakes += [f"{name} is missing in the file" for name in fold(n for n in account.missing if not n.endswith(FRESH))]
    mistakes += [f"{name} has no place in this model" for name in fold(tensors.keys() - ours.keys())]
    if mistakes:
        raise RunError(
            f"The {source} do not fit this {part}:\n{listed(mistakes)}\n{account}",
            expected="the same architecture, save for channels and the positions' grid",
            remedy=("leave `encoder` out of the recipe to take the file's, or give its settings; where the file is not "
                    "whole, save the model's whole state_dict" if part == "encoder" else
                    f"leave `{part}` out of the recipe, so that it starts fresh"),
        )
    module.load_state_dict(state)
    return account


def fits(module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the module has these very tensors, by name and shape."""
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    return shapes == {name: tensor.shape for name, tensor in tensors.items()}


def _adapted(
    name: str, theirs: Tensor, shape: torch.Size, module: nn.Module, channels: int | None
) -> tuple[Tensor, str] | None:
    """The tensor in `shape`, and how it got there ('' where it had it); None where that is not defined."""
    if theirs.shape == shape:
        return theirs, ""
    if name.endswith("position_table"):
        return _adapt_positions(theirs, shape)
    if isinstance(module, Encoder) and len(shape) == module.dims + 2:
        return _adapt_kernel(theirs, shape, (channels, module.channels))
    return None


def _adapt_positions(theirs: Tensor, shape: torch.Size) -> tuple[Tensor, str] | None:
    """(*grid, D); a table of an image is the same for every slice of a volume."""
    if theirs.shape[-1] != shape[-1]:
        return None
    how = f"grid {_by(theirs.shape[:-1])} resized to {_by(shape[:-1])}"
    if theirs.ndim == len(shape) - 1:
        theirs = theirs.expand(shape[0], *theirs.shape)
    return (resize_positions(theirs, shape[:-1]), how) if theirs.ndim == len(shape) else None


def _adapt_kernel(theirs: Tensor, shape: torch.Size, channels: tuple[int | None, int]) -> tuple[Tensor, str] | None:
    """(out, in, *kernel), `in` from channels[0] to channels[1] where this is the layer that sees the picture."""
    how = []
    if theirs.ndim == len(shape) - 1:  # I3D, Carreira and Zisserman, CVPR 2017 (arXiv 1705.07750), section 3.1
        theirs = theirs[:, :, None].expand(-1, -1, shape[2], -1, -1) / shape[2]
        how.append(f"repeated over {shape[2]} slices")
    if theirs.ndim == len(shape) and theirs.shape[1] != shape[1] and (theirs.shape[1], shape[1]) == channels:
        how.append(f"channels {theirs.shape[1]} to {shape[1]}")
        theirs = adapt_channels(theirs, shape[1])
    return (theirs, ", ".join(how)) if theirs.shape == shape else None


def adapt_channels(kernel: Tensor, channels: int) -> Tensor:
    """(out, in, *kernel) -> (out, channels, *kernel), with the same response where all channels are equal.

    A multiple of `in` repeats the channels. Otherwise each gets an equal share of their sum, so that 1 gets the sum:
    what a grey picture shown as RGB would have given.
    """
    count = kernel.shape[1]
    if channels % count == 0:
        repeats = (1, channels // count, *(1,) * (kernel.ndim - 2))
        return kernel.repeat(repeats) * (count / channels)
    return (kernel.sum(1, keepdim=True) / channels).expand(-1, channels, *kernel.shape[2:]).clone()


def fold(names: Iterable[str]) -> list[str]:
    """Names that are alike but for their numbers as one: blocks.0-11.norm1.weight."""
    groups: dict[str, list[tuple[int, ...]]] = {}
    for name in names:
        numbers = tuple(int(number) for number in re.findall(r"\d+", name))
        groups.setdefault(re.sub(r"\d+", "#", name), []).append(numbers)
    return sorted(line for template, members in groups.items() for line in _fold_group(template, sorted(members)))


def _fold_group(template: str, members: list[tuple[int, ...]]) -> list[str]:
    values = [sorted(set(column)) for column in zip(*members, strict=True)]
    if math.prod(len(column) for column in values) == len(members):
        spans = iter([_span(column) for column in values])
        return [re.sub("#", lambda _: next(spans), template)]
    first = next(place for place, column in enumerate(values) if len(column) > 1)
    return [line for value in values[first]
            for line in _fold_group(template, [member for member in members if member[first] == value])]


def _span(values: list[int]) -> str:
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}-{values[-1]}"
    return ",".join(map(str, values))


def _by(size: Iterable[int]) -> str:
    return "×".join(map(str, size))


def listed(mistakes: list[str]) -> str:
    """The first eight, a line each."""
    more = [f"and {len(mistakes) - 8} more"] if len(mistakes) > 8 else []
    return "\n".join(f"  - {line}" for line in mistakes[:8] + more)
