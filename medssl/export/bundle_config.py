"""The texts of a MONAI bundle: how it is run, what it is, and what a person should know of it."""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import Any

from medssl import __version__

PACKAGES = ("nibabel", "pillow")
"""What MONAI reads NIfTI and pictures with."""
FIRE = "0.7.1"
"""Of the package without which `python -m monai.bundle` refuses to start; medssl itself does not need it."""
MODES = {"1": "L", "LA": "L", "La": "L",
         **dict.fromkeys(("P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"), "RGB")}
"""{mode of a picture in Pillow: the one in which its numbers are what `io.raster` reads}."""


def inference(told: dict[str, Any]) -> dict[str, Any]:
    """configs/inference.json: reads each of `inputs`, and writes `output`, and of a segmentation `masks`."""
    given, output = told["input"], told["output"]
    is_volume, is_dense = given["kind"] == "volume", output["name"] == "logits"
    order = [0, *range(3 if is_volume else 2, 0, -1)]
    load = {"_target_": "LoadImage", "image_only": True, "ensure_channel_first": True,
            "reader": "NibabelReader" if is_volume else {"_target_": "PILReader", "converter": "@plain"}}
    plain = {"modes": MODES, "plain": "$lambda picture: picture.convert(@modes.get(picture.mode, picture.mode))"}
    turn = [{"_target_": "Orientation", "axcodes": "RAS", "labels": None}] if is_volume else []
    return {
        "imports": ["$import json", "$from pathlib import Path", "$import torch",
                    "$from monai.data import MetaTensor"],
        "bundle_root": ".",
        "inputs": ["scan.nii.gz" if is_volume else "picture.png"],
        "output": "predictions.json",
        "names": output["names"],
        "device": "$torch.device('cpu')",
        "preparation": "$torch.jit.load(str(Path(@bundle_root) / 'models/preparation.ts'))",
        "network_def": "$torch.jit.load(str(Path(@bundle_root) / 'models/model.ts'), map_location=@device).eval()",
        **({} if is_volume else plain),
        "preprocessing": {"_target_": "Compose", "map_items": False, "transforms": [load, *turn]},
        "as_array": f"$lambda scan: scan.as_tensor().permute({order}).contiguous()",
        "spacing": "$lambda scan: [float(mm) for mm in reversed(scan.pixdim.tolist())]",
        "prepared": "$lambda scan: @preparation(@as_array(scan), @spacing(scan)).to(@device)",
        **(_dense(told, order) if is_dense else _whole(output)),
    }


def _whole(output: dict[str, Any]) -> dict[str, Any]:
    """Of networks that give numbers a case."""
    row = "dict(zip(@names, numbers))" if output["names"] else "numbers"
    return {
        "inferer": {"_target_": "SimpleInferer"},
        "look": "$torch.no_grad()(lambda scan: @inferer(@prepared(scan)[None], @network_def)[0].tolist())",
        "predictions": f"$lambda: [{row} for path in @inputs for numbers in [@look(@preprocessing(path))]]",
        "run": ["$Path(@output).write_text(json.dumps(@predictions(), indent=1))"],
    }


def _dense(told: dict[str, Any], order: list[int]) -> dict[str, Any]:
    """Of networks that give logits a voxel, by windows over the whole case."""
    given, output = told["input"], told["output"]
    batch, back = ("case.transpose(0, 1)", "logits.transpose(0, 1)") if given["box"]["planar"] else \
                  ("case[None]", "logits[0]")
    return {
        "masks": "masks",
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": given["size"], "sw_batch_size": 4,
                    "mode": "gaussian", "overlap": output["overlap"]},
        "look": "$torch.no_grad()(lambda scan: @slide(@prepared(scan)))",
        "slide": f"$lambda case: (lambda logits: {back}.float().cpu())(@inferer({batch}, @network_def))",
        "labels": f"$lambda logits, scan: MetaTensor(@preparation.drawn(logits, @as_array(scan)).permute({order}), "
                  "meta=scan.meta)",
        "saver": {"_target_": "SaveImage", "output_dir": "@masks", "output_postfix": "mask",
                  "output_ext": ".nii.gz" if given["kind"] == "volume" else ".png", "output_dtype": "$torch.uint8",
                  "resample": given["kind"] == "volume", "separate_folder": False, "print_log": False},
        "counted": "$lambda logits: dict(zip(@names, (logits > @threshold).flatten(1).sum(1).tolist()))",
        "threshold": math.log(output["threshold"] / (1 - output["threshold"])),
        "predictions": "$lambda: [(@saver(@labels(logits, scan)), @counted(logits))[1] for path in @inputs "
                       "for scan in [@preprocessing(path)] for logits in [@look(scan)]]",
        "run": ["$Path(@output).write_text(json.dumps(@predictions(), indent=1))"],
    }


def metadata(told: dict[str, Any]) -> dict[str, Any]:
    """configs/metadata.json, in MONAI's own terms, with our description under `medssl`."""
    given, output = told["input"], told["output"]
    image = {"type": "image", "format": "magnitude", "modality": ", ".join(given["modalities"]) or "n/a",
             "num_channels": len(given["channels"]), "spatial_shape": given["size"], "dtype": "float32",
             "value_range": [], "is_patch_data": output["name"] == "logits",
             "channel_def": {str(number): name for number, name in enumerate(given["channels"])}}
    pred = {"type": "image" if output["name"] == "logits" else "tuple", "format": output["name"],
            "num_channels": len(output["names"]) or output["size"], "dtype": "float32", "value_range": [],
            "is_patch_data": False, "channel_def": {str(n): name for n, name in enumerate(output["names"])}}
    return {
        "version": "0.1.0", "changelog": {"0.1.0": f"written by medssl {__version__}"},
        "monai_version": version("monai"), "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {name: version(name) for name in PACKAGES} | {"fire": FIRE},
        "task": told["task"], "description": output["meaning"], "authors": "", "copyright": "", "intended_use":
        told["notice"], "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}}, "medssl": told,
    }


def readme(told: dict[str, Any]) -> str:
    """docs/README.md."""
    given, output = told["input"], told["output"]
    steps = "\n".join(f"1. {step}" for step in given["preparation_in_words"])
    taken = "NIfTI volumes" if given["kind"] == "volume" else "pictures that need no turning by EXIF"
    several = f"""
A case is several files on one grid, a list in `inputs`, in the order {", ".join(given["channels"])}.
""" if given["files_a_case"] > 1 else ""
    rows = ("each region's voxels on the prepared grid; and, under `masks`, a label map an input, on its own voxels"
            if output["name"] == "logits" else output["meaning"])
    name = "scan.nii.gz" if given["kind"] == "volume" else "picture.png"
    return f"""# {told["task"]}: {", ".join(output["names"]) or "features"}

{told["notice"]} Written by {told["made_by"]}, and run without it, by MONAI, in the bundle's folder:

```
pip install monai {"nibabel" if given["kind"] == "volume" else "pillow"} fire
python -m monai.bundle run --config_file configs/inference.json --bundle_root . --inputs "['{name}']"
```

It takes {taken}, of {", ".join(given["modalities"]) or "the modality that it learnt from"}; no DICOM, of which MONAI
would read other values. It writes `predictions.json`, a row an input: {rows}.
{several}
## What is done to a scan

{steps}

MONAI reads and turns it, models/preparation.ts prepares it, models/model.ts is the network.
"""
