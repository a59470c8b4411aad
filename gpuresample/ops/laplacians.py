"""Laplacian pyramids: what every level of a pyramid adds to the coarser one, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuresample import engines
from gpuresample.checks import one_of
from gpuresample.containers import unwrap
from gpuresample.ops.arguments import SIGMA_RULES, voxel_sigmas
from gpuresample.ops.pyramid import chain, floats_for, rounded, steps_of
from gpuresample.ops.resample import ROUNDINGS
from gpuresample.ops.shrink import downsample, downsample_plan, unbinned, upsample_plan
from gpuresample.planning.filters import get_filter
from gpuresample.planning.grid import Grid
from gpuresample.plans import execute


@dataclass(frozen=True, eq=False)
class Laplacian:
    """A Laplacian pyramid, made by `gpuresample.laplacian`.

    Attributes
    ----------
    levels : list
        Finest first, of the same kind as the image, with float voxels. Each holds the detail of one level of the
        Gaussian pyramid: the level, minus the next coarser level brought to the same grid. The last is the coarsest
        level itself. You may change them, or replace them by others of their kind, before `reconstruct`.
    factors : list of tuple of int
        The factors from each level to the next, in the order of the image's axes.
    grids : list of Grid
        The grids of the levels.
    dtype : numpy.dtype
        The image's voxel type.
    interpolation, device : str
        How, and where, `reconstruct` brings a level to the grid of the next finer one.
    """

    levels: list[Any]
    factors: list[tuple[int, ...]]
    grids: list[Grid]
    dtype: np.dtype[Any]
    interpolation: str | int
    device: str

    def reconstruct(self, *, dtype: Any = None, rounding: str = "nearest") -> Any:
        """Add up the levels: the image again.

        Parameters
        ----------
        dtype : data type, optional
            Voxel type of the result; the image's own unless given.
        rounding : {"nearest", "truncate"}
            How integers are rounded.

        Returns
        -------
        SimpleITK.Image, Volume, nibabel image or array
            From unchanged levels: exactly the image's integers and booleans. float32 is within 1e-6, and float64 within
            1e-15, of the image's largest magnitude times the number of levels.
        """
        one_of("rounding", rounding, ROUNDINGS)
        now = self.levels[-1]
        for level, factors, grid in zip(self.levels[-2::-1], self.factors[::-1], self.grids[-2::-1], strict=True):
            container = unwrap(level)
            up = _raised(now, factors, grid, self.interpolation, self.device)
            now, array = container.new(grid, container.dtype)
            np.add(_voxels(level), _voxels(up), out=array)  # NumPy hands a GPU's arrays to their library
            container.written(array)
        return rounded(now, np.dtype(self.dtype if dtype is None else dtype), rounding, self.device)


def laplacian(
    image: Any,
    levels: int | None = None,
    *,
    factors: int | Sequence[int] | str = 2,
    schedule: Sequence[int | Sequence[int]] | None = None,
    sigma: str | float | Sequence[float] = "auto",
    interpolation: str | int = "linear",
    device: str = "auto",
) -> Laplacian:
    """Make a Laplacian pyramid: the differences between the levels of a Gaussian pyramid.

    Parameters
    ----------
    image : SimpleITK.Image, Volume, nibabel image or array
        As for `gpuresample.resample`, except 64-bit integers, which floats cannot hold.
    levels, factors, schedule, sigma
        As for `gpuresample.pyramid` with the kind "gaussian". A schedule must begin with 1.
    interpolation : str or SimpleITK enumerator
        How a level is brought to the grid of the finer one, see `gpuresample.upsample`.
    device : str
        As for `gpuresample.resample`.

    Returns
    -------
    Laplacian
        Its `levels`, and `reconstruct`, which gives the image back.

    Raises
    ------
    ValueError, TypeError
        As `gpuresample.pyramid`, and for 64-bit integers.

    Warns
    -----
    RuntimeWarning
        If the levels end early because no axis can shrink any further.

    Notes
    -----
    P. Burt, E. Adelson, "The Laplacian pyramid as a compact image code", IEEE Trans. Communications 31(4), 1983.
    """
    container = unwrap(image)
    if container.dtype.kind in "iu" and container.dtype.itemsize == 8:
        raise TypeError(f"image must have voxels that floats hold, got {container.dtype}")
    steps = steps_of(container, levels, factors, schedule)
    if steps[0] is not None and max(steps[0]) > 1:
        raise ValueError(f"schedule must begin with 1, from where there is a way back, got {schedule!r}")
    if isinstance(sigma, str):
        one_of("sigma", sigma, SIGMA_RULES)
    else:
        voxel_sigmas(container, sigma)
    if get_filter(interpolation).method == "vote":
        raise ValueError(f"interpolation must sum or copy voxels, got {interpolation!r}")
    engines.check_engine(device, container.where)
    floats = floats_for(container.dtype)
    links = chain(container.grid, steps)
    now = downsample(image, 1, dtype=floats, device=device)
    out, order = [], [container.order(f) for f, _ in links]
    for f, (_, grid) in zip(order[1:], links, strict=False):
        fine = unwrap(now)
        coarse = execute(downsample_plan(fine, f, sigma, device=device, of_blocks=True), fine)
        up = _raised(coarse, f, grid, interpolation, device)
        level, array = fine.new(grid, floats)
        np.subtract(_voxels(now), _voxels(up), out=array)
        fine.written(array)
        out.append(level)
        now = coarse
    return Laplacian([*out, now], order[1:], [g for _, g in links], container.dtype, interpolation, device)


def _raised(image: Any, factors: tuple[int, ...], grid: Grid, interpolation: str | int, device: str) -> Any:
    """A level on the grid of the next finer one, which has these factors and the size of `grid`."""
    container = unwrap(image)
    target = unbinned(container.grid, container.order(factors), grid.size)
    made = upsample_plan(container, target, get_filter(interpolation), container.dtype, "nearest", device)
    return execute(made, container)


def _voxels(image: Any) -> Any:
    """An image's voxels as an array."""
    return unwrap(image).array
