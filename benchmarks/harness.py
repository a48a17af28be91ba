"""What every benchmark shares: peers timed in turns within one run, cold files, rows of JSON, and their table."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from meter import milliseconds, peak_mib
from rich.console import Console
from rich.table import Table

from medssl.files import write_whole
from medssl.train.run import cpu_model

RESULTS = Path(__file__).parent / "results"

Work = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One line of a result. peer and ratio are None where the peer is not installed, and `note` says so.

    ratio: peer / ours, so that 3 is three times faster, or smaller, than the peer; low, high: its quartiles over the
    repeats; target: the least ratio that is asked for; ours_mib, peer_mib: the most memory that each held at once while
    it worked, in MiB beyond what was there before, None where that could not be measured; machine: what it ran on, to
    which `main` adds the computer.
    """

    name: str
    ours: float
    peer: float | None
    peer_name: str
    ratio: float | None
    unit: str = "ms"
    repeats: int = 1
    low: float | None = None
    high: float | None = None
    target: float | None = None
    note: str = ""
    machine: str = ""
    ours_mib: float | None = None
    peer_mib: float | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """Another way to the same result. package: what must be installed; same: whether its result is ours; before: called
    before its work, untimed."""

    name: str
    work: Work
    package: str
    target: float | None = None
    same: Callable[[Any, Any], bool] | None = None
    before: Callable[[], None] | None = None

    @property
    def version(self) -> str | None:
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None

    @property
    def remedy(self) -> str:
        return "pip install medssl[bench]"

    def milliseconds(self) -> float:
        """The time that one piece of work takes."""
        self._prepare()
        return milliseconds(self.work)

    def mib(self) -> float | None:
        """The most memory that it holds meanwhile."""
        self._prepare()
        return peak_mib(self.work)

    def _prepare(self) -> None:
        if self.before:
            self.before()


@dataclass(frozen=True)
class Settings:
    """tiny: as small as still runs, for the tests. scratch: where data are made. out: where results stay, or None."""

    tiny: bool
    repeats: int
    scratch: Path
    out: Path | None


def compare(name: str, ours: Work, peers: Sequence[Peer], repeats: int, before: Work | None = None) -> list[Row]:
    """Times everybody `repeats` times, in turns that begin with another one each time; a row a peer.

    before: called, untimed, before every piece of work of those who bring none of their own. Everybody works once
    beforehand, untimed, and a peer whose result is not ours ends the run: what did other work has no time. At the end
    everybody works once more, untimed, for the peak of memory.
    """
    present = [peer for peer in peers if peer.version]
    _agree(name, ours, present)
    everybody = [replace(peer, before=peer.before or before) for peer in (Peer("medssl", ours, "medssl"), *present)]
    times: list[list[float]] = [[] for _ in everybody]
    for repeat in range(repeats):
        for place in range(len(everybody)):
            who = (place + repeat) % len(everybody)
            times[who].append(everybody[who].milliseconds())
    ours_mib, *theirs_mib = (peer.mib() for peer in everybody)
    rows = [_row(name, times[0], taken, peer, mib)
            for peer, taken, mib in zip(present, times[1:], theirs_mib, strict=True)]
    rows += [Row(name, statistics.median(times[0]), None, peer.name, None, repeats=repeats, target=peer.target,
                 note=f"{peer.package} is not installed: {peer.remedy}") for peer in peers if not peer.version]
    return [replace(row, ours_mib=ours_mib) for row in rows]


def _agree(name: str, ours: Work, peers: Sequence[Peer]) -> None:
    expected = ours()
    for peer in peers:
        found = peer.work()
        if peer.same and not peer.same(expected, found):
            raise SystemExit(f"{name}: {peer.name} gave another result")
        del found


def _row(name: str, ours: list[float], theirs: list[float], peer: Peer, mib: float | None) -> Row:
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    low, high = quartiles(ratios)
    mine, its = statistics.median(ours), statistics.median(theirs)
    return Row(name, mine, its, peer.name, its / mine, repeats=len(ours), low=low, high=high, target=peer.target,
               peer_mib=mib, versions={peer.package: peer.version})


def quartiles(ratios: list[float]) -> tuple[float, float]:
    """The first and the third; of a single ratio, itself."""
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return low, high


def in_a_fresh_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns: for memory that earlier work must have no part in."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


# -------------------------------------------------------------------------------------------------------- cold files

def evict(paths: Iterable[Path]) -> None:
    """Asks the kernel to forget what it keeps of these files; needs no rights, and reaches no other file."""
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def is_cold(paths: Iterable[Path]) -> bool:
    """Whether a read of each file's first bytes would have to wait for the disk."""
    return not any(_is_kept(path) for path in paths)


def _is_kept(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(512)], 0, os.RWF_NOWAIT) > 0
        except BlockingIOError:
            return False
        except OSError:  # the file system cannot say
            return True


def temperature(paths: Sequence[Path]) -> str:
    """"cold" where eviction works on the disk that these files are on, else "warm"."""
    evict(paths)
    return "cold" if is_cold(paths) else "warm"


# ----------------------------------------------------------------------------------------------------- the command line

def main(topic: str, about: str, measure: Callable[[Settings], list[Row]], repeats: int = 9) -> None:
    """Runs one topic: prints its table, and writes `<topic>.json`."""
    parser = argparse.ArgumentParser(prog=f"python benchmarks/{topic}.py", description=about)
    parser.add_argument("--tiny", action="store_true", help="the smallest size: whether it runs, not how fast")
    parser.add_argument("--repeats", type=int, help=f"how often everybody works; {repeats} by default")
    parser.add_argument("--out", type=Path, help="folder of the JSON; benchmarks/results by default, none with --tiny")
    parser.add_argument("--scratch", type=Path, help="folder on the disk to be measured; a temporary one by default")
    given = parser.parse_args()
    out = given.out or (None if given.tiny else RESULTS)
    with _scratch(given.scratch) as scratch:
        rows = measure(Settings(given.tiny, given.repeats or (2 if given.tiny else repeats), scratch, out))
    rows = [_signed(row) for row in rows]
    show(topic, rows)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / f"{topic}.json", json.dumps([asdict(row) for row in rows], indent=1) + "\n")
        print(out / f"{topic}.json")


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        yield Path(scratch)


def _signed(row: Row) -> Row:
    packages = ("medssl", "numpy", "torch")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores, {gib:.0f} GiB"
    return replace(row, machine=", ".join(filter(None, [machine, row.machine])),
                   versions={name: version(name) for name in packages} | row.versions)


HEAD = ("", "medssl", "memory", "peer", "", "memory", "ratio", "quartiles", "target")


def show(topic: str, rows: Sequence[Row]) -> None:
    table = Table(*HEAD, title=topic)
    for row in rows:
        table.add_row(*cells(row))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def cells(row: Row) -> tuple[str, ...]:
    """A row in words, under `HEAD`."""
    ours = (row.name, f"{figure(row.ours)} {row.unit}", _memory(row.ours_mib), row.peer_name)
    target = f"≥ {row.target:.3g}" if row.target else ""
    if row.peer is None:
        return *ours, row.note, "", "", "", target
    spread = f"{row.low:.3g} to {row.high:.3g}" if row.low is not None and row.repeats > 1 else ""
    return *ours, f"{figure(row.peer)} {row.unit}", _memory(row.peer_mib), f"{row.ratio:.3g}", spread, target


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _memory(mib: float | None) -> str:
    return "" if mib is None else f"{figure(mib)} MiB"
