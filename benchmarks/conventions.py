"""How far from each library is its convention: every row of `gpuresample.conventions`, measured.

    python -m benchmarks.conventions [--json FILE]

Each library that is installed makes its own call on a real volume (or a synthetic one, where there are none), finer and
coarser, and `gr.resample(..., convention=...)` the same. Printed are library, version, call, our keywords and the
largest difference, in units of the volume's range. Exit code 1 if one exceeds its tolerance.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from benchmarks import real
from gpuresample.bench import cases, measure, tables
from gpuresample.bench.cases import Array
from gpuresample.bench.peers import ENUMERATORS
from gpuresample.conventions import CONVENTIONS, Convention

Spacing = tuple[float, float, float]

# Array order z, y, x: finer here, coarser there; no sample falls halfway between voxels.
OLD: Spacing = (2.0, 0.9, 1.1)
NEW: tuple[Spacing, ...] = ((1.31, 1.37, 0.84), (3.12, 0.72, 2.3))
SHAPE = (40, 60, 50)


def order_of(interpolation: str) -> int:
    """The spline order that SciPy and its users call the interpolation by."""
    return {"nearest": 0, "linear": 1, "bspline": 3}.get(interpolation) or int(interpolation[-1:].strip("tr") or 0)


def shape_for(array: Array, old: Spacing, new: Spacing) -> tuple[int, ...]:
    """The size that libraries without spacing are given."""
    return tuple(max(1, round(n * a / b)) for n, a, b in zip(array.shape, old, new, strict=True))


def simpleitk(array: Array, old: Spacing, new: Spacing, interpolation: str) -> Array:
    """`SimpleITK.Resample`."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(old[::-1])
    size = shape_for(array, old, new)[::-1]
    out = sitk.Resample(image, size, sitk.Transform(), ENUMERATORS[interpolation], (0.0,) * 3, new[::-1])
    return sitk.GetArrayFromImage(out)


def scipy(array: Array, old: Spacing, new: Spacing, interpolation: str) -> Array:
    """`scipy.ndimage.zoom`."""
    from scipy import ndimage

    zoom = [m / n for m, n in zip(shape_for(array, old, new), array.shape, strict=True)]
    return np.asarray(ndimage.zoom(array, zoom, order=order_of(interpolation)))


def skimage(array: Array, old: Spacing, new: Spacing, interpolation: str) -> Array:
    """`skimage.transform.resize`."""
    from skimage.transform import resize

    return np.asarray(resize(array, shape_for(array, old, new), order=order_of(interpolation), preserve_range=True))


def torch(array: Array, old: Spacing, new: Spacing, interpolation: str) -> Array:
    """`torch.nn.functional.interpolate`."""
    import torch as t

    mode = {"nearest": "nearest-exact", "linear": "trilinear"}[interpolation]
    out = t.nn.functional.interpolate(t.from_numpy(array)[None, None], shape_for(array, old, new), mode=mode)
    return np.asarray(out[0, 0])


def monai(array: Array, old: Spacing, new: Spacing, interpolation: str) -> Array:
    """`monai.transforms.Spacing`."""
    import torch as t
    from monai.data import MetaTensor
    from monai.transforms import Spacing as MonaiSpacing

    image = MetaTensor(t.from_numpy(array)[None], affine=t.diag(t.tensor([*old, 1.0], dtype=t.float64)))
    mode = {"nearest": "nearest", "linear": "bilinear"}[interpolation]
    return np.asarray(MonaiSpacing(pixdim=new, mode=mode)(image)[0])


def torchio(array: Array, old: Spacing, new: Spacing, interpolation: str) -> Array:
    """`torchio.Resample`."""
    import torch as t
    import torchio as tio

    image = tio.ScalarImage(tensor=t.from_numpy(np.ascontiguousarray(array.T))[None], affine=np.diag([*old[::-1], 1.0]))
    out: Any = tio.Resample(new[::-1], image_interpolation="bspline" if interpolation == "bspline3" else interpolation)(
        image
    )
    return np.asarray(out.data[0]).T


def nibabel(array: Array, old: Spacing, new: Spacing, interpolation: str) -> Array:
    """`nibabel.processing.resample_to_output`."""
    import nibabel as nib
    from nibabel.processing import resample_to_output

    image = nib.Nifti1Image(np.ascontiguousarray(array.T), np.diag([*old[::-1], 1.0]))
    return np.asarray(resample_to_output(image, new[::-1], order=order_of(interpolation)).dataobj).T


def nnunet(array: Array, old: Spacing, new: Spacing, interpolation: str) -> Array:
    """nnU-Net's resampling of images."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    out = resample_data_or_seg_to_shape(
        array[None], shape_for(array, old, new), old, new, order=order_of(interpolation), force_separate_z=False
    )
    return np.asarray(out[0])


LIBRARIES: dict[str, Callable[[Array, Spacing, Spacing, str], Array]] = {
    "simpleitk": simpleitk, "scipy": scipy, "skimage": skimage, "torch": torch, "monai": monai, "torchio": torchio,
    "nibabel": nibabel, "nnunet": nnunet,
}  # fmt: skip


def ours(name: str, array: Array, old: Spacing, new: Spacing, interpolation: str) -> Array:
    """The same by convention."""
    out = gr.resample(array, spacing=new, input_spacing=old, interpolation=interpolation, convention=name)
    return np.asarray(out)


def installed(c: Convention) -> str | None:
    """The library's version, if it is there."""
    try:
        return version(c.package)
    except PackageNotFoundError:
        return None


def volume(dtype: Any) -> Array:
    """The real volume that all are compared on, or a synthetic one."""
    folder = real.data_folder()
    if folder is not None and (path := folder / "FLAIR.nii.gz").is_file():
        whole = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        z, y, x = SHAPE
        array: Array = np.ascontiguousarray(whole[50 : 50 + z, 40 : 40 + y, 30 : 30 + x]).astype(dtype)
        return array
    return cases.ct_like(SHAPE, dtype)


@dataclass(frozen=True)
class Row:
    """One library and interpolation: largest difference over the range, and of int16 in units."""

    convention: str
    interpolation: str
    error: float
    units: int
    differ: float
    ok: bool


def compare(name: str, interpolation: str, floats: Array, integers: Array) -> Row:
    """Both results on both grids, as floats and as integers where the library takes them."""
    c = CONVENTIONS[name]
    error, units, differ, same = 0.0, 0, 0.0, True
    for new in NEW:
        if name == "skimage" and interpolation == "nearest":
            theirs, mine = (f(integers, OLD, new, interpolation) for f in (LIBRARIES[name], _by(name)))
        else:
            theirs, mine = (f(floats, OLD, new, interpolation) for f in (LIBRARIES[name], _by(name)))
        same = same and theirs.shape == mine.shape and theirs.dtype == mine.dtype
        if not same:
            break
        apart = np.abs(theirs.astype(np.float64) - mine.astype(np.float64))
        error = max(error, float(apart.max()) / float(np.ptp(floats)))
        if name == "torch":
            continue  # it takes no int16
        theirs, mine = (f(integers, OLD, new, interpolation) for f in (LIBRARIES[name], _by(name)))
        same = same and theirs.dtype == mine.dtype
        apart = np.abs(theirs.astype(np.float64) - mine.astype(np.float64))
        units, differ = max(units, int(apart.max())), max(differ, float((apart >= 1).mean()))
    return Row(name, interpolation, error, units, differ, same and error <= c.tolerance and units <= 1)


def _by(name: str) -> Callable[[Array, Spacing, Spacing, str], Array]:
    return lambda *args: ours(name, *args)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether all tolerances hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conventions", description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write all rows to FILE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    floats, integers = volume(np.float32), volume(np.int16)
    found: list[Row] = []
    lines = []
    for name, c in CONVENTIONS.items():
        there = installed(c)
        if there is None:
            lines.append([name, f"{c.package} {c.tested}", c.call, c.keywords, "not installed", "", ""])
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = [compare(name, i, floats, integers) for i in c.interpolations if "label" not in i]
        found += rows
        worst = max(rows, key=lambda r: (not r.ok, r.error))
        lines.append([
            name, f"{c.package} {there}", c.call, c.keywords, f"{worst.error:.1e} ({worst.interpolation})",
            f"{c.tolerance:.0e}", "ok" if all(r.ok for r in rows) else "FAILS",
        ])  # fmt: skip
    header = ("convention", "library", "its call", "our keywords", "largest difference", "tolerance", "verdict")
    note = (
        "In units of the volume's range, float32, over all interpolations that the library offers; int16: by at most 1."
    )
    tables.table("Conventions", header, lines, note)
    broken = [r for r in found if not r.ok]
    for r in broken:
        print(f"out of bounds: {r.convention}, {r.interpolation}: {r.error:.2e}, integers off by {r.units}")
    info = measure.machine(gr.get_num_threads())
    content = {"machine": info, "rows": [asdict(r) for r in found], "ok": not broken}
    measure.save(options.json, "conventions", given, content)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
