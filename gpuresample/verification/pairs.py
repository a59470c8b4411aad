"""The same call, ours and SimpleITK's, for every interpolation and filter."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import gpuresample as gr
from gpuresample.bench import reference
from gpuresample.bench.bounds import EXACT, LABEL_MODES
from gpuresample.bench.cases import Geometry
from gpuresample.caching import cached_property
from gpuresample.containers import ImageContainer, unwrap
from gpuresample.planning.filters import get_filter
from gpuresample.planning.grid import Grid
from gpuresample.verification.samples import Sample

if TYPE_CHECKING:
    import SimpleITK

Array = npt.NDArray[Any]

# Of the blurs, in voxels: at most 6, beyond which ITK's Bessel functions are wrong. Of shrinking, on every axis.
SIGMA, FACTOR = 1.5, 2
# A voxel at which SimpleITK itself gives our answer when the grid moves by this many voxels is a tie. Votes of the
# Gaussian labels tie more widely: ITK's error function is good to 3e-8.
TIE, TIE_OF_VOTES = 1e-9, 1e-6
_UNEVEN = np.array([1.0, 0.7, 0.4])
# ITK's prefilter and its mirror read beyond axes that are shorter.
_SHORTEST = {2: 2, 3: 3, 4: 3, 5: 4}
_RECURSIVE_LEAST = 4
# Beyond, twice a number leaves 32 bits.
_ROUNDED = 2**30


@dataclass(frozen=True, eq=False)
class Pair:
    """One interpolation of a sample, by both.

    Attributes
    ----------
    name : str
    sample : Sample
    rounding : str
        Of our integers.
    """

    name: str
    sample: Sample
    rounding: str

    @property
    def exact(self) -> bool:
        """Whether voxels are copied or chosen, and must be equal."""
        return self.name in EXACT

    @property
    def default(self) -> float:
        """Value outside. For copies the image's largest, so that a voxel on the wrong side of the border shows."""
        return self.sample.span[1] if self.exact and self.sample.ranks is None else 0

    @cached_property
    def reference_sample(self) -> Sample:
        """What SimpleITK is given: without NaN where it would spread it over the whole image."""
        spreads = (get_filter(self.name).spline_order or 0) > 1
        return self.sample.filled() if spreads and not self.sample.finite else self.sample

    def obstacle(self) -> str:
        """Why the two cannot be compared, if they cannot."""
        order = get_filter(self.name).spline_order or 0
        short = [n for n in self.sample.geometry.source.size if 1 < n < _SHORTEST.get(order, 1)]
        if short:
            return f"SimpleITK reads beyond an axis of {short[0]} voxels with a spline of order {order}"
        return ""

    def run(self, device: str, dtype: npt.DTypeLike | None = None, default: float | None = None) -> Any:
        """Ours, as it comes."""
        g = self.sample.geometry
        value = self.default if default is None else default
        kind = self.sample.array.dtype.kind
        return gr.resample(
            self.sample.ours, like=g.target, transform=g.transform, interpolation=self.name, rounding=self.rounding,
            default_value=int(value) if dtype is None and kind in "biu" else value, dtype=dtype, device=device,
        )  # fmt: skip

    def run_theirs(self) -> list[SimpleITK.Image]:
        """SimpleITK's, as it comes, in the image's own type."""
        g = self.sample.geometry
        return [reference.resampled(image, g, self.name, float(self.default)) for image in self.sample.theirs]

    def ours(self, device: str, dtype: npt.DTypeLike | None = None) -> Array:
        """Our voxels; floats are NaN outside where the image has none of its own."""
        if dtype is None:
            return voxels(self.run(device))
        return voxels(self.run(device, dtype, np.nan if self.sample.finite else 0.0))

    def theirs(self) -> Array:
        """SimpleITK's voxels in the image's own type."""
        return self._copies(self.sample.geometry) if self.exact else stacked(self.sample, self.run_theirs())

    def sums(self) -> Array:
        """SimpleITK's voxels in float64, NaN outside as in `ours`."""
        return self._sums(self.sample.geometry)

    def shaken(self) -> Iterator[Array]:
        """SimpleITK's voxels when the grid moves by a billionth of a voxel, one way after another."""
        amount = TIE_OF_VOTES if self.name == "label_gaussian" else TIE
        geometry = self.sample.geometry
        for signs in itertools.product((1, -1), repeat=geometry.source.dimension):
            there = moved(geometry, amount * np.array(signs))
            yield self._copies(there) if self.exact else self._sums(there)

    def same_grid(self, result: Any) -> bool:
        """Whether our result's header is SimpleITK's; here it is what was asked for."""
        return True

    def _copies(self, geometry: Geometry) -> Array:
        sample, ranks = self.sample, self.sample.ranks
        if ranks is None:
            images = [reference.resampled(i, geometry, self.name, float(self.default)) for i in sample.theirs]
            return stacked(sample, images)
        images = [reference.resampled(i, geometry, self.name, ranks.size) for i in sample.ranked().theirs]
        return np.append(ranks, ranks.dtype.type(self.default))[stacked(sample, images)]

    def _sums(self, geometry: Geometry) -> Array:
        import SimpleITK as sitk

        default = np.nan if self.sample.finite else 0.0
        images = self.reference_sample.theirs
        return stacked(
            self.sample, [reference.resampled(i, geometry, self.name, default, sitk.sitkFloat64) for i in images]
        )


@dataclass(frozen=True, eq=False)
class FilterPair(Pair):
    """One filter of a sample, by both."""

    @property
    def sigma(self) -> tuple[float, ...]:
        """Of the blurs, in physical units."""
        return tuple(SIGMA * s for s in self.sample.geometry.source.spacing)

    @property
    def factors(self) -> tuple[int, ...]:
        """Of shrinking."""
        return tuple(min(FACTOR, n) for n in self.sample.geometry.source.size)

    @cached_property
    def reference_sample(self) -> Sample:
        """The image; without NaN for the recursive filter, which spreads it along whole lines."""
        spreads = self.name == "gaussian_recursive"
        return self.sample.filled() if spreads and not self.sample.finite else self.sample

    def obstacle(self) -> str:
        """Why the two cannot be compared, if they cannot."""
        shortest = min(self.sample.geometry.source.size)
        if self.name == "gaussian_recursive" and shortest < _RECURSIVE_LEAST:
            return f"the recursive filter needs at least {_RECURSIVE_LEAST} voxels on every axis, here are {shortest}"
        dtype, largest = self.sample.array.dtype, max(abs(v) for v in self.sample.span)
        if self.name == "bin_shrink" and self.sample.ranks is not None:
            return "SimpleITK adds up in float64, which loses integers above 2^53"
        if self.name == "bin_shrink" and dtype.kind in "iu" and dtype.itemsize == 4 and largest > _ROUNDED:
            return "SimpleITK's rounding of 32-bit integers overflows above 2^30"
        if self.name == "bin_shrink" and dtype == np.float16:
            return "SimpleITK has no 16-bit floats"
        return ""

    def run(self, device: str, dtype: npt.DTypeLike | None = None, default: float | None = None) -> Any:
        """Ours, as it comes."""
        image = self.sample.ours
        if self.name == "shrink":
            return gr.shrink(image, self.factors, device=device)
        if self.name == "bin_shrink":
            return gr.bin_shrink(image, self.factors, device=device)
        kind = self.name.removeprefix("gaussian_")
        limits: dict[str, Any] = reference.DISCRETE_LIMITS if kind == "discrete" else {}
        return gr.gaussian(image, self.sigma, kind=kind, rounding=self.rounding, dtype=dtype, device=device, **limits)

    def run_theirs(self) -> list[SimpleITK.Image]:
        """SimpleITK's, as it comes, in the image's own type."""
        return [self._filtered(image) for image in self.sample.theirs]

    def theirs(self) -> Array:
        """SimpleITK's voxels in the image's own type."""
        return stacked(self.sample, self.run_theirs())

    def sums(self) -> Array:
        """SimpleITK's voxels of the image in float64, which nothing has rounded (but the recursive filter: float32)."""
        import SimpleITK as sitk

        images = [sitk.Cast(image, sitk.sitkFloat64) for image in self.reference_sample.theirs]
        return stacked(self.sample, [self._filtered(image) for image in images]).astype(np.float64, copy=False)

    def shaken(self) -> Iterator[Array]:
        """Nothing: filters have no grid to choose voxels by."""
        return iter(())

    def same_grid(self, result: Any) -> bool:
        """Whether our result's header is SimpleITK's."""
        grid, theirs = unwrap(result).grid, self._filtered(self.sample.theirs[0])
        return all(
            np.allclose(a, b, rtol=1e-12, atol=1e-9)
            for a, b in (
                (grid.spacing, theirs.GetSpacing()),
                (grid.origin, theirs.GetOrigin()),
                (grid.direction, theirs.GetDirection()),
            )
        )

    def _filtered(self, image: SimpleITK.Image) -> SimpleITK.Image:
        import SimpleITK as sitk

        if self.name == "shrink":
            return sitk.Shrink(image, self.factors)
        if self.name == "bin_shrink":
            return sitk.BinShrink(image, self.factors)
        call = reference.gaussian_discrete if self.name == "gaussian_discrete" else reference.gaussian_recursive
        return call(image, self.sigma)


FILTERS = ("gaussian_discrete", "gaussian_recursive", "shrink", "bin_shrink")


def pair_of(name: str, sample: Sample, rounding: str) -> Pair:
    """The pair of calls behind a name; label modes get a label map, see `Sample.labels`."""
    if name in FILTERS:
        return FilterPair(name, sample, rounding)
    return Pair(name, sample.labels()[0] if name in LABEL_MODES else sample, rounding)


def voxels(result: Any) -> Array:
    """Voxels (..., z, y, x) of whatever gpuresample returned, channels first."""
    container = unwrap(result)
    # A SimpleITK image's memory goes with the image.
    return np.array(container.array, copy=isinstance(container, ImageContainer) or None)


def stacked(sample: Sample, images: Sequence[SimpleITK.Image]) -> Array:
    """SimpleITK's results, one for every channel, as our array of voxels."""
    import SimpleITK as sitk

    arrays = [sitk.GetArrayFromImage(image) for image in images]
    d = sample.geometry.source.dimension
    return arrays[0] if sample.array.ndim == d else np.stack(arrays).reshape(-1, *arrays[0].shape)


def moved(geometry: Geometry, amount: Array) -> Geometry:
    """The geometry with its target moved by about so many of the input's voxels, along no diagonal either."""
    source, target = geometry.source, geometry.target
    d = source.dimension
    step: Array = source.index_to_point @ (amount * _UNEVEN[:d])
    transform = geometry.transform
    if transform is not None and transform.IsLinear():
        matrix = np.array([transform.TransformVector(unit, [0.0] * d) for unit in np.eye(d).tolist()]).T
        step = np.linalg.solve(matrix, step)
    origin = tuple((np.asarray(target.origin) + step).tolist())
    return Geometry(
        geometry.name, source, Grid(target.size, target.spacing, origin, target.direction), geometry.transform
    )
