"""Our readers beside others, over every scan of the corpora that both read, and over NIfTI of every kind.

    MEDSSL_DATA=/where/the/scans/are python tests/io/compare_readers.py

writes docs/readers.md, whole. It needs the program dcm2niix (Debian's package of that name). A difference that nobody
has explained yet comes out as "not settled": settle it in WHY of compare_dicom.py or compare_nifti.py, or mend the
reader.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import warnings
from pathlib import Path

import compare_dicom
import compare_nifti
from compared import TOLERANCE, TOLERANCE_MM, Compared, counts
from make_corpus_tables import Row, read_table
from nifti_kinds import write_kinds

PAGE = Path(__file__).parents[2] / "docs" / "readers.md"
DICOM = ("dicom_corpus", "cine_sunnybrook")
NIFTI = ("nifti_corpus", "ms_lesion", "hippocampus_msd", "glioma_lgg")
KINDS = "generated kinds"
ENDS = {"scan": "make a scan", "skip": "end in a named reason"}


def page(groups: dict[str, list[Compared]], versions: dict[str, str]) -> str:
    """The whole of docs/readers.md."""
    compared = [one for group in groups.values() for one in group]
    differ = "".join(one.line() for one in compared if one.away)
    parts = [
        "# Our readers beside others",
        "Written by `tests/io/compare_readers.py` over the sets below `$MEDSSL_DATA` that the tables name, and over"
        f" {len({one.name for one in groups[KINDS]})} kinds of NIfTI that it generates.",
        "## How every file of the corpora ends",
        ends(read_table()),
        "## How many scans agree",
        f"- **DICOM**: voxels beside SimpleITK {versions['SimpleITK']}, decoded file by file in our order of slices;"
        f" geometry beside dcm2niix {versions['dcm2niix']}, given the same files: the outermost voxels of a volume, the"
        " pixel spacing of a picture or clip. Files that a walk leaves out though they can be read, such as duplicates"
        " and localizers, are compared one by one.\n"
        f"- **NIfTI**: voxels and the outermost voxels' places, beside nibabel {versions['nibabel']} and SimpleITK.\n"
        f"- Voxels agree where no value differs by more than {TOLERANCE:g}; places, where nothing is more than"
        f" {TOLERANCE_MM:g} mm apart. Nothing is to compare where a file does not say how large its pixels are or"
        " where they lie, and in voxels of 12-bit JPEG, which SimpleITK decodes for us too.",
        "| set | what, and beside whom | both read | agree | differ | we alone read | nothing to compare |\n"
        "|---|---|---|---|---|---|---|\n" + "".join(counts(name, group) for name, group in groups.items()),
        "## What differs",
        f"| scan | what | apart | who is right, and why |\n|---|---|---|---|\n{differ}" if differ else "Nothing.",
        "## What we alone read",
        _alone(compared),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def ends(rows: list[Row]) -> str:
    """Of how many files of each corpus, and by which reason; from tests/io/corpus.csv, which has them one by one."""
    lines = "| corpus | files | make a scan | end in a named reason |\n|---|---|---|---|\n"
    for corpus in dict.fromkeys(row.path.split("/")[0] for row in rows):
        files = {row.path: row.outcome for row in rows if row.path.startswith(f"{corpus}/")}
        each = [sum(outcome == end for outcome in files.values()) for end in ENDS]
        lines += f"| {corpus} | {len(files)} | {each[0]} | {each[1]} |\n"
    return f"{lines}\nOne by one, each with its reason: [tests/io/corpus.csv](../tests/io/corpus.csv)."


def _alone(compared: list[Compared]) -> str:
    names: dict[str, list[str]] = {}
    for one in compared:
        if one.missing == "we alone":
            names.setdefault(one.topic, []).append(f"`{one.name}`")
    return "\n".join(f"- **{topic}**: {'; '.join(of_topic)}" for topic, of_topic in names.items())


def _write() -> None:
    import nibabel
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    warnings.simplefilter("ignore")
    data = Path(os.environ["MEDSSL_DATA"])
    told = subprocess.run(["dcm2niix", "-h"], capture_output=True, text=True).stdout
    versions = {"SimpleITK": sitk.__version__, "nibabel": nibabel.__version__}
    versions["dcm2niix"] = re.search(r"v[\d.]+", told)[0]
    groups = {name: list(compare_dicom.folder(data / name, name)) for name in DICOM}
    groups |= {name: list(compare_nifti.folder(data / name, name)) for name in NIFTI}
    with tempfile.TemporaryDirectory() as folder:
        kinds = write_kinds(Path(folder))
        groups[KINDS] = [one for kind, path in kinds.items() for one in compare_nifti.compare(kind, path)]
    PAGE.write_text(page(groups, versions))


if __name__ == "__main__":
    _write()
