"""A small hospital on disk: archives of DICOM, X-rays with a table, volumes and clips, with canaries wherever they fit.

Names of files and folders hold canaries of their own, "the name of …", which the terminal may show.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import av
import nibabel
import numpy as np
from PIL import Image, PngImagePlugin
from privacy_canaries import PROFILE, TIMESTAMP, Canaries
from pydicom import dcmread
from pydicom.dataset import Dataset

from medssl.io.phi import FIELDS
from medssl.io.write import write_avi, write_dicom
from medssl.rng import stream

SIDE = 32
PATIENTS = {"train": 8, "validation": 2, "test": 4}
SPLITS = [split for split, count in PATIENTS.items() for _ in range(count)]
ALLOWED = (*FIELDS, "PatientAge")
MESSAGES_ONLY = ("AffectedSOPInstanceUID", "RequestedSOPInstanceUID")
"""Attributes of group 0000, which no file holds (PS3.7, E.1)."""
PLANTED = [keyword for keyword in PROFILE if keyword not in ALLOWED and keyword not in MESSAGES_ONLY]


class Hospital:
    """Writes the folders. `canaries` knows afterwards what was planted where."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.canaries = folder, Canaries()
        profile = {keyword: self.canaries.value(keyword) for keyword in PLANTED}
        self._profile = {word: value for word, value in profile.items() if word != "MediaStorageSOPInstanceUID"}

    def open(self) -> Hospital:
        self.dicom_archive(self.folder / "dicom")
        self.xrays(self.folder / "xrays")
        self.volumes(self.folder / "volumes")
        self.clips(self.folder / "clips")
        for path in self.folder.rglob("*"):
            os.utime(path, (TIMESTAMP, TIMESTAMP))
        return self

    def patient(self, number: int, place: str = "PatientID") -> str:
        return self.canaries.text(f"{place} of patient {number}")

    def named(self, folder: Path, number: int, ending: str) -> Path:
        """A path that names its patient in folder and file."""
        who = self.canaries.person(f"the name of folder {number} of {folder.name}").replace("^", "_")
        return folder / who / (self.canaries.text(f"the name of file {number} of {folder.name}") + ending)

    # DICOM

    def dicom(self, path: Path, image: np.ndarray, person: int, **changes: object) -> Dataset:
        """One file with every attribute of the profile, with private attributes, overlays and a talking preamble."""
        make, number = self.canaries, f"file {path.name} of patient {person}"
        known = {"modality": "DX", "position": None, "orientation": None, "spacing": None}
        options = {name: changes.pop(name, default) for name, default in known.items()}
        header = self._profile | {
            "PatientID": self.patient(person), "PatientSex": "MF"[person % 2],
            "PatientName": make.person(f"PatientName of patient {person}"),
            "AccessionNumber": make.text(f"AccessionNumber of patient {person}"), "KVP": "120",
            "StudyInstanceUID": make.uid(f"StudyInstanceUID of patient {person}"),
            "SeriesInstanceUID": make.uid(f"SeriesInstanceUID of patient {person} in {path.parent.name}"),
            "SOPInstanceUID": make.uid(f"SOPInstanceUID of {number}"), "ViewPosition": "PA",
        } | changes  # fmt: skip
        write_dicom(path, image, patient_id="", study_uid="", series_uid="", instance_uid="1.2",
                    header=header, **options)  # fmt: skip
        data = dcmread(path)
        block = data.private_block(0x0011, make.text("a private creator"), create=True)
        block.add_new(0x10, "LO", make.text("a private LO"))
        block.add_new(0x11, "UN", make.text("a private UN").encode())
        block.add_new(0x12, "SQ", make.value("RequestAttributesSequence"))
        block.add_new(0x13, "PN", make.person("a private PN"))
        data.add_new(0x60003000, "OW", make.text("OverlayData").encode())
        data.add_new(0x60004000, "LT", make.text("OverlayComments"))
        data.add_new(0x50003000, "OW", make.text("CurveData").encode())
        data.file_meta.SourceApplicationEntityTitle = make.text("SourceApplicationEntityTitle")
        data.file_meta.PrivateInformationCreatorUID = make.uid("PrivateInformationCreatorUID")
        data.file_meta.PrivateInformation = make.text("PrivateInformation").encode()
        data.preamble = make.text("the preamble").encode().ljust(128, b"\0")
        data.save_as(path, enforce_file_format=True)
        return data

    def dicom_archive(self, folder: Path) -> None:
        lines = ["PatientID,Name,Born,Split,Sick"]
        for person, split in enumerate(SPLITS):
            image = _noise(person, SIDE, SIDE)
            for view in range(2):
                path = self.named(folder, 2 * person + view, ".dcm")
                self.dicom(path, image + 9 * view, person, **_abuse(self, person))
            name, born = self.canaries.person(f"Name in row {person}"), self.canaries.date(f"Born in row {person}")
            lines.append(f"{self.patient(person)},{name},{born},{split},{person % 2}")
        lines.append(f"{self.patient(99, 'PatientID in a row without images')},,,train,1")
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
        for k in range(3):
            self.dicom(folder / "ct" / f"{k}.dcm", _noise(k, SIDE, SIDE), 0, **_placed(5.0 * k))
            self.dicom(folder / "uneven" / f"{k}.dcm", _noise(k, SIDE, SIDE), 0, **_placed(5.0 * k**2))
        self._spoilt_dicom(folder / "spoilt")

    def _spoilt_dicom(self, folder: Path) -> None:
        """Files of which each fails in another way, so that every message about failing is seen."""
        image, make = _noise("spoilt", SIDE, SIDE), self.canaries
        region = Dataset()
        region.RegionLocationMinX0 = 0
        self.dicom(folder / "ultrasound.dcm", image, 1, modality="US", SequenceOfUltrasoundRegions=[region])
        self.dicom(folder / "slope.dcm", image, 1, RescaleSlope="0", RescaleIntercept="0")
        self.dicom(folder / "bits.dcm", image, 1, HighBit=3)
        self.dicom(folder / "report.dcm", image, 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
        self.dicom(folder / "private_class.dcm", image, 1, SOPClassUID=make.uid("a private SOP class"),
                   Modality="SR", Manufacturer=make.text("Manufacturer"))  # fmt: skip
        self.dicom(folder / "modality.dcm", image, 1, Modality=make.text("Modality"))
        self.dicom(folder / "enhanced.dcm", image, 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1", NumberOfFrames=2)
        self.dicom(folder / "photometric.dcm", image, 1, PhotometricInterpretation=make.text("Photometric"))
        self.dicom(folder / "syntax.dcm", image, 1)
        self._edit(folder / "syntax.dcm", b"1.2.840.10008.1.2.1\0", make.uid("a transfer syntax")[:19].encode() + b"\0")
        cut = self.dicom(folder / "cut.dcm", image, 1)
        (folder / "cut.dcm").write_bytes((folder / "cut.dcm").read_bytes()[:-SIDE * SIDE])
        del cut.PixelData
        cut.save_as(folder / "no_pixels.dcm")
        self.dicom(folder / "number.dcm", image, 1)
        self._edit(folder / "number.dcm", b"120 ", make.text("KVP").encode()[:4])
        self._directory(folder / "DICOMDIR")
        (folder / "half.dcm").write_bytes(b"\0" * 128 + b"DICM" + make.text("a broken file").encode() * 9)
        (folder / f"{make.text('the name of a note')}.txt").write_text(make.person("a note"))

    def _directory(self, path: Path) -> None:
        data = self.dicom(path, _noise("directory", 4, 4), 1)
        record = Dataset()
        record.PatientName, record.DirectoryRecordType = self.canaries.person("a DICOMDIR's record"), "PATIENT"
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
        data.DirectoryRecordSequence = [record]
        data.save_as(path)

    def _edit(self, path: Path, old: bytes, new: bytes) -> None:
        content = path.read_bytes()
        assert content.count(old), f"{path.name} does not hold {old!r}"
        path.write_bytes(content.replace(old, new))

    # pictures with a table

    def xrays(self, folder: Path) -> None:
        lines = ["Path,MRN,Accession,Name,Born,Study,Age,View,Split,Sick"]
        for row, split in enumerate(SPLITS):
            path = self.named(folder, row, (".png", ".jpg", ".tif")[row % 3])
            self.picture(path, _noise(row, SIDE, SIDE) // 16)
            cells = [path.relative_to(folder).as_posix(), self.patient(row, "MRN"), self.patient(row, "Accession"),
                     self.canaries.person(f"Name of MRN {row}"), self.canaries.date(f"Born of MRN {row}"),
                     self.canaries.uid(f"Study of MRN {row}"), "058Y", "AP", split, str(row % 2)]  # fmt: skip
            lines.append(",".join(cells))
        lines.append(lines[1])  # a row twice
        lines.append(lines[2].replace("058Y", "031Y"))  # and one that contradicts another
        lines.append(",".join(["absent.png", self.patient(98, "MRN"), *cells[2:]]))
        lines.append(",".join([path.relative_to(folder).as_posix(), "", *cells[2:]]))
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
        spoilt = folder / cells[0]
        spoilt.write_bytes(spoilt.read_bytes()[:300])

    def picture(self, path: Path, grey: np.ndarray) -> None:
        """A PNG with text chunks, or a JPEG or TIFF with comments and EXIF."""
        path.parent.mkdir(parents=True, exist_ok=True)
        image, make = Image.fromarray(grey.astype(np.uint8)), self.canaries
        if path.suffix == ".png":
            info = PngImagePlugin.PngInfo()
            info.add_text("Author", make.person("a PNG's tEXt"))
            info.add_text("Description", make.text("a PNG's zTXt"), zip=True)
            info.add_itxt("Title", make.text("a PNG's iTXt"))
            image.save(path, pnginfo=info)
            return
        exif = Image.Exif()
        exif[0x013B], exif[0x010E] = make.person("EXIF Artist"), make.text("EXIF ImageDescription")
        more = {} if path.suffix == ".tif" else {"comment": make.text("a JPEG's COM").encode()}
        image.save(path, exif=exif, **more)

    # volumes

    def volumes(self, folder: Path) -> None:
        for number in range(4):
            case = self.named(folder, number, "").parent
            for channel in ("t1", "flair"):
                self.volume(case / f"{case.name}_{channel}.nii.gz", _noise((number, channel), 12, 12, 8))
            self.volume(case / f"{case.name}_seg.nii.gz", np.ones((12, 12, 8 - (number == 3))))
        other = self.named(folder, 4, "").parent
        for channel in ("t1", "flair"):
            self.volume(other / f"{other.name}_{channel}.nii.gz", _noise(channel, 12, 12, 8))
        broken = other / f"{other.name}_t1.nii.gz"
        broken.write_bytes(broken.read_bytes()[:-400])
        self.volume(folder / "pair.hdr", _noise("pair", 12, 12, 8))
        (folder / "pair.img").unlink()
        analyze = bytearray(gzip.decompress((case / f"{case.name}_seg.nii.gz").read_bytes()))
        analyze[344:348] = b"\0\0\0\0"
        (folder / "old.nii").write_bytes(analyze)

    def volume(self, path: Path, voxels: np.ndarray) -> None:
        """A NIfTI file, or a pair, that talks in each of its text fields and in an extension."""
        path.parent.mkdir(parents=True, exist_ok=True)
        make = self.canaries
        kind = nibabel.Nifti1Pair if path.suffix == ".hdr" else nibabel.Nifti1Image
        image = kind(voxels.astype(np.int16), np.eye(4))
        for name in ("descrip", "aux_file", "db_name", "intent_name"):
            image.header[name] = make.text(f"NIfTI {name}").encode()
        extension = Dataset()
        extension.PatientName, extension.PatientID = make.person("a NIfTI extension"), make.text("a NIfTI extension")
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", make.person("a comment").encode()))
        image.header.extensions.append(nibabel.nifti1.Nifti1DicomExtension(2, extension))
        nibabel.save(image, path)

    # clips

    def clips(self, folder: Path) -> None:
        lines, more = ["FileName,MRN,Split"], ["MRN,EF", f"{self.patient(97, 'MRN of a clip')},50"]
        for number, split in enumerate(("TRAIN", "VAL", "TEST", "TRAIN")):
            path = self.named(folder, number, ".avi")
            self.clip(path, _noise(number, 8, 32, 32) // 16)
            lines.append(f"{path.relative_to(folder).as_posix()},{self.patient(number, 'MRN of a clip')},{split}")
            more.append(f"{self.patient(number, 'MRN of a clip')},{50 + number}")
        (folder / "FileList.csv").write_text("\n".join(lines) + "\n")
        (folder / "EF.csv").write_text("\n".join(more) + "\n")
        path.write_bytes(path.read_bytes()[:3000])

    def clip(self, path: Path, frames: np.ndarray) -> None:
        write_avi(path, frames.astype(np.uint8), 30)
        plain = path.with_suffix(".plain")
        path.rename(plain)
        with av.open(str(plain)) as source, av.open(str(path), "w", format="avi") as target:
            for key in ("title", "artist", "comment", "copyright"):
                target.metadata[key] = self.canaries.text(f"AVI {key}")
            stream_ = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream_
                    target.mux(packet)
        plain.unlink()


def _noise(name: object, *shape: int) -> np.ndarray:
    return stream("hospital", str(name)).integers(0, 4000, shape).astype(np.uint16)


def _placed(z: float) -> dict[str, object]:
    return {"modality": "CT", "position": (0, 0, z), "orientation": (1, 0, 0, 0, 1, 0), "spacing": (1, 1)}


def _abuse(hospital: Hospital, person: int) -> dict[str, object]:
    """What some sites type into fields that are on the whitelist."""
    name = hospital.canaries.person(f"PatientName of patient {person}")
    return [{}, {"ViewPosition": hospital.patient(person)}, {"BodyPartExamined": name.split("^")[0]},
            {"Manufacturer": name}, {"ManufacturerModelName": name.replace("^", ", ").title()},
            {"Manufacturer": hospital.patient(person)},
            {"ImageType": ["ORIGINAL", "PRIMARY", hospital.patient(person)]},
            {"ManufacturerModelName": hospital.canaries.date("StudyDate")}][person % 8]  # fmt: skip
