"""The exceptions of medssl. Every message names the value, what was expected, and the remedy.

MedsslError
├── UnreadableScan        a file that cannot become a Scan, with the reason
├── AmbiguousSeries       a folder that holds several series; the message lists them
├── GeometryError         an affine, spacing or grid that cannot be trusted
├── ManifestError         a card, table or manifest that does not fit its files
├── LeakageError          a patient in two splits, or judged by a model that saw them
├── ConfigError           every mistake in a recipe or card, reported together
├── RunError              a run folder, or weights, that are missing, unfinished or do not fit
│   └── InUse            a run folder that another process works in
├── TrainingError         a run that cannot go on: NaN, divergence, collapse, out of memory
└── Stopped               a run that was asked to stop, by a signal, and can go on
"""

from __future__ import annotations

from signal import Signals


class MedsslError(Exception):
    """Base of all errors that medssl raises on purpose.

    Args:
        what: what was found, with the offending value.
        expected: what would have been right.
        remedy: what the user can do now.
    """

    def __init__(self, what: str, *, expected: str = "", remedy: str = "") -> None:
        self.what, self.expected, self.remedy = what, expected, remedy
        parts = [what.rstrip(".") + ("" if "\n" in what else ".")]
        if expected:
            parts.append(f"Expected {expected.rstrip('.')}.")
        if remedy:
            parts.append(f"Remedy: {remedy.rstrip('.')}.")
        super().__init__(("\n" if "\n" in what else " ").join(parts))

    def __reduce__(self):  # keyword arguments survive the trip out of a worker process
        return _rebuild, (type(self), self.what, self.expected, self.remedy)


def _rebuild(kind: type[MedsslError], what: str, expected: str, remedy: str) -> MedsslError:
    return kind(what, expected=expected, remedy=remedy)


class UnreadableScan(MedsslError):
    pass


class AmbiguousSeries(MedsslError):
    pass


class GeometryError(MedsslError):
    pass


class ManifestError(MedsslError):
    pass


class LeakageError(MedsslError):
    pass


class ConfigError(MedsslError):
    pass


class RunError(MedsslError):
    pass


class InUse(RunError):
    pass


class TrainingError(MedsslError):
    pass


class Stopped(MedsslError):
    """signal: the number of the one that asked for it; step: how many are done; is_kept: whether a checkpoint is."""

    def __init__(self, signal: int, step: int, is_kept: bool = True) -> None:
        self.signal, self.step, self.is_kept = signal, step, is_kept
        kept = "with a checkpoint" if is_kept else "whose checkpoint could not be written: the last one before is kept"
        super().__init__(f"Stopped by {Signals(signal).name} after step {step}, {kept}",
                         remedy="give the same command again, and it goes on from there")

    def __reduce__(self):
        return Stopped, (self.signal, self.step, self.is_kept)
