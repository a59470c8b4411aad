"""Transforms in files of other programs: our result against antspyx and transformix (itk-elastix), on an oblique image.

    python -m benchmarks.foreign_transforms [--json FILE]

Both programs register two small images, in processes of their own; what they wrote is read, and each volume is
resampled by them and by us. Printed: voxels that differ, those beyond 2e-6 of the range, the largest difference, and
voxels that are outside for one and inside for the other. Exit code 1 if a voxel is beyond, or on another side.
Programs that are not installed are listed as absent. They are no part of an extra: antspyx asks for older NumPy and
SciPy than other tests.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from gpuresample.bench.bounds import SINGLE
from gpuresample.bench.cases import Array

SIZE = (56, 60, 48)
NAMES = {"linear": ("linear", "linear"), "nearest": ("nearestNeighbor", "nearest"), "bspline": ("bSpline", "bspline")}
INTERPOLATORS = {
    "bspline": "FinalBSplineInterpolator", "linear": "FinalLinearInterpolator",
    "nearest": "FinalNearestNeighborInterpolator",
}  # fmt: skip
CHAINS = {
    "affine": ["+0GenericAffine.mat"], "inverse affine": ["-0GenericAffine.mat"], "warp": ["+1Warp.nii.gz"],
    "warp, affine": ["+1Warp.nii.gz", "+0GenericAffine.mat"],
    "inverse affine, inverse warp": ["-0GenericAffine.mat", "+1InverseWarp.nii.gz"],
}  # fmt: skip


def pair(folder: Path) -> tuple[sitk.Image, sitk.Image]:
    """Two oblique images, as files and as read back."""
    noise = np.random.default_rng(0).standard_normal(SIZE[::-1]).astype(np.float32)
    fixed = sitk.RescaleIntensity(sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(noise), 4.0), 0, 1000)
    moving = sitk.Resample(fixed, sitk.AffineTransform((1.03, 0.04, 0, -0.03, 0.98, 0, 0, 0.02, 1), (2.2, -1.8, 0.5)))
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.2, -0.3, 0.15)
    for k, (name, image) in enumerate((("fixed", fixed), ("moving", moving))):
        image.SetSpacing((1.1, 0.9, 1.5))
        image.SetOrigin((5.0 + k, -7.0, 9.0 - k))
        image.SetDirection(turn.GetMatrix())
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    read = [sitk.ReadImage(str(folder / f"{name}.nii.gz")) for name in ("fixed", "moving")]
    return read[0], read[1]


def compared(what: str, ours: sitk.Image, theirs: Array) -> dict[str, Any]:
    """A row of the table."""
    mine = sitk.GetArrayFromImage(ours).astype(np.float64)
    off = np.abs(mine - theirs)
    span = float(np.ptp(theirs))
    return {
        "what": what, "voxels": mine.size, "differ": int((off > 0).sum()), "beyond": int((off > SINGLE * span).sum()),
        "largest": float(off.max()) / span, "sides": int(((mine == 0) != (theirs == 0)).sum()),
    }  # fmt: skip


def by_ants(folder: Path) -> list[dict[str, Any]]:
    """Rows of antspyx."""
    import ants

    fixed, moving = pair(folder)
    images = [ants.image_read(str(folder / f"{name}.nii.gz")) for name in ("fixed", "moving")]
    prefix = str(folder / "r_")
    ants.registration(*images, "SyN", outprefix=prefix, reg_iterations=(10, 5))
    ants.registration(*images, "SyN", outprefix=prefix, reg_iterations=(10, 5), write_composite_transform=True)
    rows = []
    for words, (theirs, name) in NAMES.items():
        for what, chain in CHAINS.items():
            files, back = [prefix + c[1:] for c in chain], [c[0] == "-" for c in chain]
            wanted = ants.apply_transforms(*images, files, interpolator=theirs, whichtoinvert=back).numpy().T
            transform = gr.read_transform(list(zip(files, back, strict=True)))
            made = gr.resample(moving, like=fixed, transform=transform, interpolation=name)
            rows.append(compared(f"{what}, {words}", made, wanted))
    for file in ("Composite.h5", "InverseComposite.h5"):
        wanted = ants.apply_transforms(*images, [prefix + file]).numpy().T
        made = gr.resample(moving, like=fixed, transform=gr.read_transform(prefix + file), interpolation="linear")
        rows.append(compared(f"{file}, linear", made, wanted))
    series = sitk.JoinSeries([moving + 100 * k for k in range(3)])
    directions = np.eye(4)
    directions[:3, :3] = images[1].direction
    four = ants.from_numpy(
        np.ascontiguousarray(sitk.GetArrayFromImage(series).T), origin=(*images[1].origin, 0.0),
        spacing=(*images[1].spacing, 1.0), direction=directions,
    )  # fmt: skip
    files = [prefix + "1Warp.nii.gz", prefix + "0GenericAffine.mat"]
    wanted = ants.apply_transforms(images[0], four, files, imagetype=3).numpy().T
    made = gr.resample(series, like=fixed, transform=gr.read_transform(files), interpolation="linear")
    rows.append(compared("4-D: warp, affine, linear", made, wanted))
    return rows


def by_elastix(folder: Path) -> list[dict[str, Any]]:
    """Rows of itk-elastix: registrations of several stages, and transformix on what they wrote."""
    import itk

    fixed, moving = pair(folder)
    images = [itk.imread(str(folder / f"{name}.nii.gz"), itk.F) for name in ("fixed", "moving")]
    rows = []
    for stages in (
        ("rigid",),
        ("affine",),
        ("similarity",),
        ("rigid", "bspline"),
        ("translation", "affine", "bspline"),
    ):
        parameters = itk.ParameterObject.New()
        for stage in stages:
            words = parameters.GetDefaultParameterMap("rigid" if stage == "similarity" else stage, 2)
            if stage == "similarity":
                words["Transform"] = ["SimilarityTransform"]
            words["MaximumNumberOfIterations"], words["FinalGridSpacingInPhysicalUnits"] = ["40"], ["14"]
            parameters.AddParameterMap(words)
        out = folder / "-".join(stages)
        out.mkdir()
        itk.elastix_registration_method(
            *images, parameter_object=parameters, output_directory=str(out), log_to_console=False
        )
        last = out / f"TransformParameters.{len(stages) - 1}.txt"
        for name, theirs in INTERPOLATORS.items():
            asked = out / f"{name}.txt"
            asked.write_text(last.read_text().replace("FinalBSplineInterpolator", theirs))
            found = itk.ParameterObject.New()
            found.ReadParameterFile(str(asked))
            wanted = itk.array_from_image(itk.transformix_filter(images[1], found, log_to_console=False))
            made = gr.resample(moving, like=fixed, transform=gr.read_transform(last), interpolation=name)
            rows.append(compared(f"{', '.join(stages)}; {name}", made, wanted))
    return rows


PARTS = {"antspyx": ("ants", by_ants), "itk-elastix": ("itk", by_elastix)}


def main(argv: list[str] | None = None) -> int:
    """Run both, each in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if asked.part:
            print("\n" + json.dumps(PARTS[asked.part][1](Path(folder))))
            return 0
    report: dict[str, Any] = {}
    for name, (module, _) in PARTS.items():
        if util.find_spec(module) is None:
            print(f"{name}: absent")
            continue
        command = [sys.executable, "-m", "benchmarks.foreign_transforms", "--part", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name}: failed: {done.stderr.strip().splitlines()[-1:]}")
            return 1
        rows = report[f"{name} {metadata.version(name)}"] = json.loads(done.stdout.splitlines()[-1])
        print(f"{name} {metadata.version(name)}")
        print(f"{'':48} {'voxels':>9} {'differ':>9} {'beyond':>7} {'largest':>9} {'sides':>6}")
        for row in rows:
            print(
                f"{row['what']:48} {row['voxels']:>9} {row['differ']:>9} {row['beyond']:>7} {row['largest']:>9.1e} "
                f"{row['sides']:>6}"
            )
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=2))
    return int(any(row["beyond"] or row["sides"] for rows in report.values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
