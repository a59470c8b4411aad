"""Blurs, shrinking and expanding against SimpleITK and SciPy, on synthetic and real volumes; rows for `parity`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

import gpuresample as gr
from benchmarks import real
from gpuresample.bench import cases
from gpuresample.bench.cases import Array
from gpuresample.bench.contract import DOUBLE, DOUBLE_DISCRETE, RECURSIVE, SINGLE, Row

# Names of the rows, for the README's families.
BLURS = ("blur, discrete", "blur, recursive", "blur, sampled (SciPy)")
EXACT = ("shrink", "block means")
EXPANSIONS = ("expand, linear", "expand, bspline")

# Sigma of x, y, z in voxels. ITK's own kernel is right up to 6.
SIGMAS = ((1.0, 1.0, 1.0), (0.5, 2.0, 0.8), (4.0, 3.0, 6.0))
WIDE = (15.0, 12.0, 9.0)
FACTORS = ((2, 2, 2), (3, 1, 2), (4, 5, 3))


def _wide(array: Array) -> bool:
    return array.dtype.itemsize == 8 or (array.dtype.kind in "iu" and array.dtype.itemsize > 2)


def _close(what: str, name: str, where: str, ours: Array, theirs: Array, array: Array, bound: float) -> Row:
    span = float(np.ptp(array.astype(np.float64)))
    error = float(np.abs(ours.astype(np.float64) - theirs).max()) / span
    return Row(what, name, where, error, bound, 0, 0.0, error <= bound)


def _equal(what: str, name: str, where: str, ours: Array, theirs: Array) -> Row:
    differ = float((ours != theirs).mean())
    return Row(what, name, where, float(differ > 0), 0.0, 0, differ, differ == 0)


def blurs(name: str, array: Array, image: sitk.Image, sigmas: Sequence[tuple[float, ...]]) -> Iterator[Row]:
    """The three kinds of Gaussian; SimpleITK's and SciPy's in float64."""
    floats = np.float64 if _wide(array) else np.float32
    bound = DOUBLE if _wide(array) else SINGLE
    doubles = sitk.Cast(image, sitk.sitkFloat64)
    calls: dict[str, Callable[[Any], Array]] = {
        "blur, discrete": lambda s: sitk.GetArrayFromImage(
            sitk.DiscreteGaussian(doubles, [v * v for v in s], 32, 0.01, True)
        ),
        "blur, recursive": lambda s: sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(doubles, s)),
    }
    for sigma in sigmas:
        where = f"sigma {', '.join(f'{v:g}' for v in sigma)}"
        physical = [v * s for v, s in zip(sigma, image.GetSpacing(), strict=True)]
        for what, call in calls.items():
            kind = what.split()[1]
            if kind == "discrete" and sigma == WIDE:
                continue
            options: dict[str, Any] = {"max_error": 0.01, "max_radius": 32} if kind == "discrete" else {}
            ours = sitk.GetArrayFromImage(gr.gaussian(image, physical, kind=kind, dtype=floats, **options))
            limit = RECURSIVE if kind == "recursive" else DOUBLE_DISCRETE if _wide(array) else SINGLE
            yield _close(what, name, where, ours, call(physical), array, limit)
        ours = gr.gaussian(array, sigma[::-1], kind="sampled", dtype=floats)
        theirs = ndimage.gaussian_filter(array.astype(np.float64), sigma[::-1])
        yield _close("blur, sampled (SciPy)", name, where, ours, theirs, array, bound)


def factors(name: str, array: Array, image: sitk.Image) -> Iterator[Row]:
    """Shrink, BinShrink and Expand."""
    bound = DOUBLE if _wide(array) else SINGLE
    floats = np.float64 if _wide(array) else np.float32
    doubles = sitk.Cast(image, sitk.sitkFloat64)
    for f in FACTORS:
        where = f"by {', '.join(map(str, f))}"
        for what, ours, theirs in (
            ("shrink", gr.shrink, sitk.Shrink),
            ("block means", gr.bin_shrink, sitk.BinShrink),
        ):
            mine, other = ours(image, f), theirs(image, f)
            if not np.allclose(mine.GetOrigin(), other.GetOrigin(), rtol=1e-12, atol=1e-9):
                raise AssertionError(f"{what}, {name}, {where}: origin {mine.GetOrigin()}, not {other.GetOrigin()}")
            yield _equal(what, name, where, sitk.GetArrayFromImage(mine), sitk.GetArrayFromImage(other))
    for word, enumerator in (("linear", sitk.sitkLinear), ("bspline", sitk.sitkBSpline)):
        mine = gr.expand(sitk.Cast(image, sitk.sitkFloat32) if floats is np.float32 else doubles, 2, interpolation=word)
        other = sitk.Expand(doubles, (2, 2, 2), enumerator)
        yield _close(
            f"expand, {word}", name, "by 2, 2, 2", sitk.GetArrayFromImage(mine), sitk.GetArrayFromImage(other), array,
            bound,
        )  # fmt: skip


def rows(quick: bool) -> Iterator[Row]:
    """All comparisons, in the table's order."""
    types = (np.int16, np.float64) if quick else (np.uint8, np.int16, np.int32, np.float32, np.float64)
    volumes = [(np.dtype(t).name, cases.ct_like(cases.SMALL_SHAPE, t), cases.small_grid()) for t in types]
    volumes += [(f"{name}, real", array, grid) for name, array, grid in real.real_crops()]
    found: list[Row] = []
    for name, array, grid in volumes:
        image = cases.image(array, grid)
        found += blurs(name, array, image, SIGMAS[:1] if quick else (*SIGMAS, WIDE))
        found += factors(name, array, image)
    names = [*BLURS, *EXACT, *EXPANSIONS]
    order = {name: k for k, (name, _, _) in enumerate(volumes)}
    yield from sorted(found, key=lambda row: (names.index(row.interpolation), order[row.volume]))
