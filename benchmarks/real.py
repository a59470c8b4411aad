"""Real volumes for parity, where there are some."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import SimpleITK as sitk

from gpuresample import Grid
from gpuresample.bench.cases import SMALL_SHAPE, Array

REAL = {
    "MR, int16": ("MNI152_2009_template.nii.gz", (60, 70, 50)),
    "CT, float32": ("shear.nii.gz", (120, 150, 8)),
    "MR, uint8": ("FLAIR.nii.gz", (30, 40, 40)),
    "labels, uint8": ("torsoLabel.nii.gz", (150, 120, 30)),
}


def data_folder() -> Path | None:
    """Where real volumes lie: `GPURESAMPLE_DATA`, or `shared/data` beside the repository; None without either."""
    given = os.environ.get("GPURESAMPLE_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


def real_crops() -> Iterator[tuple[str, Array, Grid]]:
    """Crops of real volumes, about as large as the synthetic one: name, voxels, grid."""
    folder = data_folder()
    for name, (file, corner) in REAL.items():
        if folder is None or not (folder / file).is_file():
            continue
        whole = sitk.ReadImage(str(folder / file))
        size = [min(s, n - c) for s, n, c in zip(SMALL_SHAPE[::-1], whole.GetSize(), corner, strict=True)]
        crop = sitk.RegionOfInterest(whole, size, corner)
        grid = Grid(crop.GetSize(), crop.GetSpacing(), crop.GetOrigin(), crop.GetDirection())
        yield name, sitk.GetArrayFromImage(crop), grid
