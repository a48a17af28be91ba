"""What a segmentation drew, as files that viewers open: on the voxels of the input itself, a file a case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medssl.data.origin import Origin
from medssl.data.source import Data
from medssl.errors import ConfigError
from medssl.files import write_whole
from medssl.tasks import Segment


def require_drawing(task: str, kind: str | None) -> None:
    """ConfigError for tasks and kinds of cases of which no masks can be written."""
    if task != "segment":
        raise ConfigError(f"--masks of a run with task.name={task}", expected="a run with task.name=segment",
                          remedy="leave --masks out")
    if kind == "cine":
        raise ConfigError("--masks of clips", expected="images or volumes", remedy="leave --masks out")


def require_writable(task: str, data: Data) -> None:
    """As `require_drawing`; ManifestError where nobody knows the files, too."""
    require_drawing(task, data.cases["kind"][0])
    data.manifest.files_of(data.cases["case_id"][0])


def write_masks(folder: Path, case_id: str, output: np.ndarray, task: Segment, data: Data) -> Path:
    """Puts a case's drawings (R, *S) of logits back on its own voxels and writes them, atomically; returns the file.

    DICOM becomes a DICOM segmentation, <case_id>.dcm, whose segments are the regions; any other volume a label map,
    <case_id>.nii.gz; any other image one as <case_id>.png. Where an image says by EXIF how it is to be turned, the mask
    is stored as the image is and says the same, so that it lies on it for viewers that turn both and for programs that
    turn neither.
    """
    from medssl.io import is_dicom
    from medssl.io.write_segmentation import write_segmentation

    files = data.manifest.files_of(case_id)
    origin = Origin.of(files, data.config.prepare)
    regions = {name: origin.put_back(task.drawn(origin.resized(logits[None]))[0])
               for name, logits in zip(task.names, output, strict=True)}
    folder.mkdir(parents=True, exist_ok=True)
    sources = files.paths[files.channels[0]]
    if is_dicom(sources[0]):
        path = folder / f"{case_id}.dcm"
        write_segmentation(path, regions, sources, origin.scan.affine)
        return path
    return _write_labels(folder / case_id, painted(regions, task.regions), origin, sources[0])


def label_values(regions: Mapping[str, list[int]]) -> dict[str, int]:
    """The value that stands for each region in a label map, in the order in which they are painted.

    Regions of many of the file's values come first, those of one last, else as the card has them, so that what lies
    within another region stays visible. A region's value is the first of its own that none painted later has: of
    BraTS's WT [1, 2, 4], TC [1, 4] and ET [4] these are 2, 1 and 4, the file's own.
    """
    order = sorted(regions, key=lambda name: -len(regions[name]))
    values = {}
    for place, name in enumerate(order, start=1):
        later = {value for other in order[place:] for value in regions[other]}
        values[name] = next((value for value in regions[name] if value not in later), regions[name][0])
    return values


def painted(drawn: Mapping[str, np.ndarray], regions: Mapping[str, list[int]]) -> np.ndarray:
    """Bool masks of one shape by region -> uint8 labels, as `label_values` says."""
    labels = np.zeros(next(iter(drawn.values())).shape, dtype=np.uint8)
    for name, value in label_values(regions).items():
        labels[drawn[name]] = value
    return labels


def _write_labels(stem: Path, labels: np.ndarray, origin: Origin, source: Path) -> Path:
    from medssl.io.raster import orientation_of
    from medssl.io.write import nifti_bytes, png_bytes

    if labels.ndim == 2:
        path, content = stem.with_name(f"{stem.name}.png"), png_bytes(labels, orientation_of(source))
    else:
        path = stem.with_name(f"{stem.name}.nii.gz")
        content = nifti_bytes(labels, origin.scan.affine, origin.scan.spacing)
    write_whole(path, content, mode=0o600)
    return path
