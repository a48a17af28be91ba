"""Opens files with their bytes changed; run as a program by test_io_fuzz.py, so that a crash or hang ends this alone.

`python fuzz.py FOLDER SECONDS`, of computing: the whole files of FOLDER are the seeds, taken in turn; the last thing
that was opened is left in FOLDER/changed. Ends with 0 unless something came of it that is neither a Scan nor a
MedsslError.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from medssl import MedsslError, Scan, open_scan

MEMORY = 2 << 30
"""Bytes of address space beside what the libraries take: far above MEDSSL_MAX_SCAN_GIB as the test sets it."""
PATIENCE = 60
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


def opened(path: Path) -> Scan | MedsslError:
    try:
        return open_scan(path)
    except MedsslError as error:
        return error


def fuzz(seed: bytes, target: Path, until: float, rounds: int) -> Counter[str]:
    found: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=rounds == 0, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(edits, lengths)
    def one(edits: list[tuple[float, int]], length: float) -> None:
        if time.process_time() > until:
            return
        target.write_bytes(changed(seed, edits, length))
        end = opened(target)
        if isinstance(end, Scan):
            assert end.array.flags.c_contiguous
        else:
            assert "MemoryError" not in end.what
            assert str(target) not in end.what
        found["read" if isinstance(end, Scan) else "refused"] += 1

    one()
    return found


def main(folder: Path, seconds: float) -> None:
    seeds = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    target, until, rounds, found = folder / "changed", time.process_time() + seconds, 0, Counter()
    for whole in seeds.values():  # loads every decoder before memory is limited
        target.write_bytes(whole)
        assert isinstance(open_scan(target), Scan)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + int(2 * seconds) + PATIENCE,) * 2)
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    while rounds == 0 or time.process_time() < until:
        for name, whole in seeds.items():
            print(name, flush=True)
            found += fuzz(whole, target, min(until, time.process_time() + seconds / len(seeds)), rounds)
        rounds += 1
    print(*(f"{count} {end}" for end, count in found.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
