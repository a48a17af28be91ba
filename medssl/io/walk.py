"""Which files a folder holds, and how far its links may lead: nothing outside is read unless its owner says so."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

OUTSIDE = "A link that leads outside the folder, and not into storage named with --linked"
REPEATED = "A link to what the folder holds elsewhere"
HIDDEN = "Hidden: its name begins with a dot"
UNLISTED = "The folder cannot be read"
REMEDIES = {
    OUTSIDE: "if that storage is yours, name it with --linked",
    REPEATED: "none needed: it is met at its own place",
    HIDDEN: "none needed; rename it, if it was to be used",
}
TO_LIST = "ask for the right to read it"


class Bounds:
    """Where files may lie: in a data set's folder (which may itself be a link), and in storage that it is linked to.

    linked: further folders that links may lead into, as a hospital has whose archive spreads over several disks.
    """

    def __init__(self, folder: str | Path, linked: Sequence[str | Path] = ()) -> None:
        self.folder = os.path.realpath(folder)
        self._roots = (self.folder, *map(os.path.realpath, linked))

    def hold(self, path: str | Path) -> bool:
        """Whether a file or folder lies within, wherever `..` and the links in its path lead."""
        real = os.path.realpath(path)
        return any(_is_within(real, root) for root in self._roots)

    def hold_twice(self, path: str) -> bool:
        """Whether a link leads to what a walk through the folder meets at its own place too."""
        real = os.path.realpath(path)
        return _is_within(real, self.folder) and "/." not in real[len(self.folder) :]


def walk(folder: str | Path, bounds: Bounds, repeat: bool = False) -> Iterator[tuple[str, str | None]]:
    """Yields (path within `folder`, None), or with the reason why not, for every file below, in the order of names.

    Folders come after the files beside them. A linked folder is entered once, and never from within itself.

    Args:
        repeat: whether files and folders within are also found under the names that links give them.
    """
    pending, entered = [""], set()
    while pending:
        place = pending.pop()
        inner = []
        try:
            entries = sorted(os.scandir(os.path.join(folder, place)), key=lambda entry: entry.name)
        except OSError as error:
            yield place, f"{UNLISTED}: {error.strerror}"
            continue
        for entry in entries:
            path, reason = f"{place}{entry.name}", None
            if entry.name.startswith("."):
                reason = HIDDEN
            elif entry.is_symlink():
                reason = _refusal(entry, bounds, repeat, entered)
            if reason is None and entry.is_dir():
                inner.append(f"{path}/")
            else:
                yield path, reason
        pending += reversed(inner)


def _refusal(link: os.DirEntry[str], bounds: Bounds, repeat: bool, entered: set[str]) -> str | None:
    """Why a link is not followed; notes a folder that is."""
    if not bounds.hold(link.path):
        return OUTSIDE
    if not repeat and bounds.hold_twice(link.path):
        return REPEATED
    if link.is_dir():
        real = os.path.realpath(link.path)
        if real in entered or _is_within(os.path.realpath(os.path.dirname(link.path)), real):
            return REPEATED
        entered.add(real)
    return None


def _is_within(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)
