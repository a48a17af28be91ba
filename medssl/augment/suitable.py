"""Whether a policy is for such cases. Shapes cannot tell a clip from a volume, nor a z-score from a grey value: the
manifest and the preparation do."""

from __future__ import annotations

from collections.abc import Iterator

from medssl.augment.ct import SHARES, InWindow
from medssl.augment.policy import TRANSFORMS, PolicyConfig
from medssl.augment.temporal import TemporalConfig
from medssl.augment.transform import TransformConfig
from medssl.data.decode import PrepareConfig
from medssl.data.source import Data
from medssl.errors import ConfigError
from medssl.rng import stream

FANS = {"US", "BDUS", "IVUS", "OT"}
"""Modalities whose pictures may be fans, as DICOM names them. A picture file that does not tell its modality is OT."""

Fault = tuple[str, str, str]
"""What was found, what was expected, and the remedy."""


def require_suitable(policy: PolicyConfig, data: Data) -> None:
    """ConfigError for the first thing that `policy` would do to cases that it is not made for."""
    kind = "image" if data.config.box.planar else data.cases["kind"][0]
    modalities = set(data.cases["modality"].drop_nulls())
    for what, expected, remedy in _faults(policy, kind, modalities, data.config.prepare):
        raise ConfigError(what, expected=expected, remedy=remedy)


def strange(policy: PolicyConfig, data: Data) -> str:
    """Why whole cases under `policy` would be scans that no scanner makes; empty where they would not be.

    Stricter than `require_suitable`: a transform that imitates one modality is not for another.
    """
    kind, modalities = data.cases["kind"][0], set(data.cases["modality"].drop_nulls())
    reasons = [what for what, *_ in _faults(policy, kind, modalities, data.config.prepare)]
    reasons += [f"{config.name} is made for {modality}, not for {' and '.join(sorted(modalities)) or 'the unknown'}"
                for config in policy.intensity
                if (modality := TRANSFORMS[config.name].modality) and modalities != {modality}]
    return next(iter(reasons), "")


def require_drawable(policy: PolicyConfig, shape: tuple[int, ...]) -> None:
    """ConfigError where a transform is not for views of this shape (C, *S), however seldom it would act."""
    for config in policy.intensity:
        TRANSFORMS[config.name](config).draw(stream("a trial"), shape)


def _faults(policy: PolicyConfig, kind: str, modalities: set[str], prepare: PrepareConfig) -> Iterator[Fault]:
    if policy.temporal != TemporalConfig() and kind != "cine":
        yield f"augment.temporal is given, but each case is one {kind}", "clips", "leave augment.temporal out"
    if kind == "cine" and policy.spatial.axes == "volume":
        yield ("augment.spatial.axes is volume on clips, whose first axis is time", "volumes (K, J, I)",
               "set augment.spatial.axes to plane, and leave k out of augment.spatial.flip")
    if policy.spatial.keep_sector:
        yield from _no_fan(modalities, prepare)
    for config in policy.intensity:
        if kind == "cine":
            yield from _along_time(config)
        if isinstance(config, InWindow):
            yield from _other_window(config, prepare)


def _no_fan(modalities: set[str], prepare: PrepareConfig) -> Iterator[Fault]:
    if strange := sorted(modalities - FANS):
        yield (f"augment.spatial.keep_sector on cases of modality {', '.join(strange)}", "ultrasound (US)",
               "leave augment.spatial.keep_sector out; or choose cases by 'data.where={modality: [US]}', or mend the "
               "card's `modality` where it names ultrasound otherwise")
    if prepare.intensity.startswith("zscore"):
        yield (f"augment.spatial.keep_sector with data.prepare.intensity {prepare.intensity}, whose least value is not "
               "black", "values from 0, black, to 1", "set data.prepare.intensity to range")


def _along_time(config: TransformConfig) -> Iterator[Fault]:
    axes = getattr(config, "axes", ())
    if TRANSFORMS[config.name].through_slices:
        yield (f"{config.name} on clips, whose first axis is time", "volumes or images",
               f"leave {config.name} out of augment.intensity")
    if axes == "volume" or "k" in axes:
        yield (f"{config.name}.axes is {axes if axes == 'volume' else list(axes)} on clips, whose first axis is time",
               "the plane's axes", f"set {config.name}'s axes to {'plane' if axes == 'volume' else '[j, i]'}")


def _other_window(config: InWindow, prepare: PrepareConfig) -> Iterator[Fault]:
    if prepare.window is None:
        yield (f"{config.name} on cases of data.prepare.intensity {prepare.intensity}, which have no HU",
               "CT prepared by intensity: window",
               f"leave {config.name} out, or set data.prepare.intensity to window and data.prepare.window to "
               "[lowest, highest] HU")
    elif config.window not in (SHARES, prepare.window):
        yield (f"{config.name}.window is {list(config.window)}, data.prepare.window {list(prepare.window)}",
               "the same window", f"set {config.name}'s window to {list(prepare.window)}, or leave it out and give its "
               "strengths as shares of it")
