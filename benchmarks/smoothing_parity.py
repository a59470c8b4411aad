"""Blurs, shrinking and expanding against SimpleITK and SciPy, on synthetic and real volumes; rows for `parity`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

import gpuresample as gr
from benchmarks import real
from gpuresample.bench import cases, reference
from gpuresample.bench.bounds import Row, bound_of, difference, floats, is_wide
from gpuresample.bench.cases import Array
from gpuresample.containers.voxels import finite_range

# Names of the rows, for the README's families.
BLURS = ("blur, discrete", "blur, recursive", "blur, sampled (SciPy)")
EXACT = ("shrink", "block means")
EXPANSIONS = ("expand, linear", "expand, bspline")

# Sigma of x, y, z in voxels. ITK's own kernel is right up to 6.
SIGMAS = ((1.0, 1.0, 1.0), (0.5, 2.0, 0.8), (4.0, 3.0, 6.0))
WIDE = (15.0, 12.0, 9.0)
FACTORS = ((2, 2, 2), (3, 1, 2), (4, 5, 3))


def _close(what: str, name: str, where: str, ours: Array, theirs: Array, array: Array, bound: float) -> Row:
    low, high = finite_range(array)[:2]
    error = difference(ours, theirs).largest / (high - low)
    return Row(what, name, where, error, bound, 0, 0.0, error <= bound)


def _equal(what: str, name: str, where: str, ours: Array, theirs: Array) -> Row:
    differ = difference(ours, theirs).share
    return Row(what, name, where, float(differ > 0), 0.0, 0, differ, differ == 0)


def blurs(name: str, array: Array, image: sitk.Image, sigmas: Sequence[tuple[float, ...]]) -> Iterator[Row]:
    """The three kinds of Gaussian; SimpleITK's and SciPy's in float64."""
    kept = floats(array.dtype)
    doubles = sitk.Cast(image, sitk.sitkFloat64)
    calls = {"discrete": reference.gaussian_discrete, "recursive": reference.gaussian_recursive}
    for sigma in sigmas:
        where = f"sigma {', '.join(f'{v:g}' for v in sigma)}"
        physical = [v * s for v, s in zip(sigma, image.GetSpacing(), strict=True)]
        for kind, call in calls.items():
            if kind == "discrete" and sigma == WIDE:
                continue
            options: dict[str, Any] = reference.DISCRETE_LIMITS if kind == "discrete" else {}
            ours = sitk.GetArrayFromImage(gr.gaussian(image, physical, kind=kind, dtype=kept, **options))
            theirs = sitk.GetArrayFromImage(call(doubles, physical))
            yield _close(f"blur, {kind}", name, where, ours, theirs, array, bound_of(f"gaussian_{kind}", array.dtype))
        ours = gr.gaussian(array, sigma[::-1], kind="sampled", dtype=kept)
        theirs = ndimage.gaussian_filter(array.astype(np.float64), sigma[::-1])
        yield _close("blur, sampled (SciPy)", name, where, ours, theirs, array, bound_of("sampled", array.dtype))


def factors(name: str, array: Array, image: sitk.Image) -> Iterator[Row]:
    """Shrink, BinShrink and Expand."""
    bound = bound_of("expand", array.dtype)
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
        mine = gr.expand(doubles if is_wide(array.dtype) else sitk.Cast(image, sitk.sitkFloat32), 2, interpolation=word)
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
