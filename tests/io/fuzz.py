"""Opens files with their bytes changed; run as a program by test_io_fuzz.py, so that a crash or hang ends this alone.

`python fuzz.py FOLDER SECONDS`, of computing: FOLDER holds a folder for each seed, which fuzz_seeds.py writes. They are
taken in turn, one file of each changed at a time; what was opened last is left in FOLDER.changed. Ends with 0 unless
something came of it that is neither a Scan nor a MedsslError.
"""

from __future__ import annotations

import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from medssl import MedsslError, Scan, find_scans, open_scan
from medssl.io import FoundMask, FoundScan, SkippedFile, open_mask

MEMORY = 2 << 30
"""Bytes of address space beside what the libraries take: far above MEDSSL_MAX_SCAN_GIB as the test sets it."""
PATIENCE = 30
"""Seconds of computing after which a file hangs its reader."""
EXAMPLES = 40
"""Changed files made of each seed before the next seed has its turn."""

places = st.floats(0, 1, exclude_max=True)
heads = st.integers(0, 400)  # where formats keep their sizes
values = st.one_of(st.sampled_from([0, 1, 127, 128, 255]), st.integers(0, 255))
edits = st.lists(st.tuples(st.one_of(heads, places), values), min_size=1, max_size=6)
lengths = st.one_of(st.just(1.0), st.floats(0, 1.5))


def changed(whole: bytes, edits: list[tuple[float, int]], length: float) -> bytes:
    """Single bytes set, then the rest cut off, or the start repeated behind the end."""
    raw = bytearray(whole)
    for place, value in edits:
        at = place if isinstance(place, int) else int(place * len(raw))
        raw[at % len(raw)] = value
    return bytes((raw + raw)[: int(length * len(raw))])


def ends(path: Path) -> list[Scan | MedsslError]:
    """What comes of a file that is named, and of all that a walk finds around it: masks on the last volume, if any."""
    found = list(find_scans(path.parent))
    assert all(isinstance(one, FoundScan | SkippedFile) for one in found)
    scans = [_end(open_scan, one) for one in (path, *found) if not isinstance(one, SkippedFile)]
    volumes = [one for one in scans if isinstance(one, Scan) and one.kind == "volume"]
    masks = [one.path for one in found if isinstance(one, FoundMask)]
    return scans + [_end(open_mask, [mask], {1: [".*"]}, *volumes[-1:]) for mask in masks]


def _end(function: Callable, *arguments: object) -> Scan | MedsslError:
    try:
        return function(*arguments)
    except MedsslError as error:
        return error


def fuzz(path: Path, until: float, rounds: int) -> Counter[str]:
    whole, found = path.read_bytes(), Counter()

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=rounds == 0, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(edits, lengths)
    def one(edits: list[tuple[float, int]], length: float) -> None:
        if time.process_time() > until:
            return
        path.write_bytes(changed(whole, edits, length))
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)  # whose signal ends the process, inside native code as well
        for end in ends(path):
            if isinstance(end, Scan):
                assert end.array.flags.c_contiguous
            else:
                assert "MemoryError" not in end.what
                assert str(path) not in end.what
            found["read" if isinstance(end, Scan) else "refused"] += 1
        signal.setitimer(signal.ITIMER_PROF, 0)

    one()
    path.write_bytes(whole)
    return found


def main(folder: Path, seconds: float) -> None:
    target = folder.with_suffix(".changed")
    shutil.rmtree(target, ignore_errors=True)
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    for seed in sorted(folder.iterdir()):  # loads every decoder before memory is limited
        shutil.copytree(seed, target / seed.name)
        whole = [end for path in files if path.parts[0] == seed.name for end in ends(target / path)]
        assert any(isinstance(end, Scan) for end in whole), (seed.name, whole)
    until, rounds, found = time.process_time() + seconds, 0, Counter()
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    while rounds == 0 or time.process_time() < until:
        for path in files:
            print(path, flush=True)
            found += fuzz(target / path, min(until, time.process_time() + seconds / len(files)), rounds)
        rounds += 1
    print(*(f"{count} {end}" for end, count in found.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
