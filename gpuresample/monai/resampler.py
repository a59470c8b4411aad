"""MONAI's `Resample`, and what it samples at: places that are described, so that no grid of coordinates is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai import transforms
from monai.config import USE_COMPILED
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms.utils import resolves_modes
from monai.utils import TraceKeys, convert_to_dst_type, convert_to_tensor
from monai.utils.type_conversion import get_equivalent_dtype
from torch import Tensor

from gpuresample.monai import shared
from gpuresample.monai.shared import CannotError, check_voxels, gathered, run
from gpuresample.planning import planner, taps
from gpuresample.planning.filters import FILTERS, FloatArray
from gpuresample.planning.grid import Grid
from gpuresample.planning.maps import AxisMap
from gpuresample.planning.torch_tables import grid_sample_table
from gpuresample.planning.works import Separable
from gpuresample.plans import of_work

# Grids whose axes drift apart by no more than this, in voxels over the whole volume, are aligned: headers in float32
# leave 1e-5 between axes that were meant to be at right angles.
DRIFT = 2e-5


# --- modes -----------------------------------------------------------------------------------------------------------


def modes(mode: Any, padding: Any) -> tuple[str, str]:
    """Our words for MONAI's interpolation and padding: a filter, and one of torch's or, of splines, our boundaries.

    Raises
    ------
    CannotError
        For those that are not done here.
    """
    _, mode, padding, _ = resolves_modes(mode, padding, backend=None)
    mode, padding = (getattr(value, "value", value) for value in (mode, padding))
    if isinstance(mode, int) or str(mode).isdigit():
        if padding not in taps.BOUNDARIES:
            raise CannotError(f"padding_mode={padding!r}")
        return ("nearest", "linear", "bspline2", "bspline3", "bspline4", "bspline5")[int(mode)], str(padding)
    if mode not in ("bilinear", "nearest"):
        raise CannotError(f"mode={mode!r}")
    return "linear" if mode == "bilinear" else "nearest", str(padding)


def boundary_of(padding: str, align: bool) -> str:
    """The boundary of gathers for a padding that `modes` has resolved."""
    return {"border": "nearest", "reflection": "mirror" if align else "reflect"}.get(padding, padding)


# --- along axes ------------------------------------------------------------------------------------------------------


def aligned(matrix: FloatArray, size: Sequence[int]) -> tuple[FloatArray, list[int] | None]:
    """A matrix without the drift of its axes, and for each axis of the source the one of the output that goes with it.

    The axes are None for grids that are rotated, or that an axis of the output does not enter.
    """
    r = matrix.shape[0] - 1
    matrix = matrix.copy()
    matrix[:r, :r][np.abs(matrix[:r, :r]) * size <= DRIFT] = 0.0
    ones = matrix[:r, :r] != 0.0
    if not ((ones.sum(0) == 1).all() and (ones.sum(1) == 1).all()):
        return matrix, None
    return matrix, [int(k) for k in ones.argmax(1)]


def in_voxels(g: Tensor, n: int, align: bool) -> Tensor:
    """Coordinates of torch's grids as `grid_sample` makes voxels of them, in their own type: their last bits decide."""
    return (g + 1) / 2 * (n - 1) if align else ((g + 1) * n - 1) / 2


def by_tables(
    image: Tensor, lines: Sequence[Tensor], along: Sequence[int], name: str, padding: str, align: bool
) -> Tensor:
    """An image at places that every axis decides for itself.

    Parameters
    ----------
    lines : r Tensors
        Where samples lie along each axis of the image, in voxels.
    along : r int
        The axis of the result that goes with each of them.
    """
    x = [line.cpu().numpy().astype(np.float64) for line in lines]
    n, r = tuple(image.shape[1:]), len(x)
    precision = shared.precision(image)
    work: Separable
    if padding in taps.BOUNDARIES:
        at = [along.index(r - 1 - k) for k in range(r)]
        where = AxisMap(tuple(r - 1 - a for a in at), tuple(x[a] for a in at))
        work = planner.sampled(where, Grid.of_size(n[::-1]), FILTERS[name], padding, (None,) * r, precision)
    else:
        mode = "bilinear" if name == "linear" else name
        tables = [grid_sample_table(x[a], n[a], mode, padding, align) for a in range(r)]
        work = shared.turned(tables, along, precision)
    return run(of_work(work, shared.voxel_type(image), np.float32), image)


# --- places ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Places:
    """What MONAI makes a grid of: where voxels of an output lie on an input, from the centres of both, in voxels.

    Voxel i is at `matrix @ (i - (n - 1) / 2 + displacement[i])`; or at `lines[axis][i[axis]]`.

    Attributes
    ----------
    size : tuple of int
        Of the output.
    dtype : torch.dtype
        Of MONAI's grid before a matrix.
    matrix : Tensor, shape (r + 1, r + 1), or None
    displacement : Tensor, shape (r, *size), or None
    lines : r Tensors, or None
        Of grids in which every axis stands for itself.
    """

    size: tuple[int, ...]
    dtype: torch.dtype = torch.float64
    matrix: Tensor | None = None
    displacement: Tensor | None = None
    lines: tuple[Tensor, ...] | None = None

    @classmethod
    def of(cls, grid: Tensor) -> Places:
        """Of a grid that is there already: all of it is displacement."""
        grid = grid.as_tensor() if isinstance(grid, MetaTensor) else grid
        size = tuple(grid.shape[1:])
        # Differences of near numbers: they are as exact as the grid.
        return cls(size, grid.dtype, None, grid[: len(size)] - cls(size, grid.dtype).grid(grid.device)[: len(size)])

    def moved(self, matrix: Tensor) -> Places:
        """These places, moved by a matrix."""
        return replace(self, matrix=matrix)

    def grid(self, device: torch.device | None = None, along: int | None = None) -> Tensor:
        """MONAI's own grid (r + 1, *size); of one axis alone, two voxels of the others standing for all."""
        lines = self.lines
        if lines is None:
            ends = [(n - 1.0) / 2.0 for n in self.size]
            lines = tuple(torch.linspace(-e, e, n, dtype=self.dtype) for e, n in zip(ends, self.size, strict=True))
        if along is not None:
            lines = tuple(line if k == along else line[:2] for k, line in enumerate(lines))
        planes = torch.meshgrid(*(line.to(device) for line in lines), indexing="ij")
        whole = torch.stack([*planes, torch.ones_like(planes[0])])
        if self.displacement is not None:
            whole[: len(self.size)] += self.displacement
        if self.matrix is None:
            return whole
        matrix = self.matrix.to(whole.device)
        return (matrix @ whole.to(matrix.dtype).flatten(1)).view(-1, *whole.shape[1:])


class Resample(transforms.Resample):
    """MONAI's `Resample`, which takes `Places`, too."""

    def __call__(
        self,
        img: Tensor,
        grid: Any = None,
        mode: str | int | None = None,
        padding_mode: str | None = None,
        dtype: Any = None,
        align_corners: bool | None = None,
    ) -> Tensor:
        """As MONAI's."""
        try:
            if grid is None or not (isinstance(grid, (Places, Tensor))):
                raise CannotError("a grid that is no tensor")
            image = convert_to_tensor(img, track_meta=get_track_meta())
            align = self.align_corners if align_corners is None else align_corners
            align = False if align in (None, TraceKeys.NONE) else bool(align)
            how = modes(
                self.mode if mode is None else mode, self.padding_mode if padding_mode is None else padding_mode
            )
            out = self._sampled(
                image.as_tensor() if isinstance(image, MetaTensor) else image,
                grid if isinstance(grid, Places) else Places.of(grid),
                *how,
                align,
                get_equivalent_dtype(dtype or self.dtype or image.dtype, Tensor),
            )
        except CannotError as reason:
            shared.warn(str(reason))
            if isinstance(grid, Places):
                grid = grid.grid(img.device if isinstance(img, Tensor) else self.device)
            return super().__call__(img, grid, mode, padding_mode, dtype, align_corners)
        return convert_to_dst_type(out, dst=image, dtype=np.float32)[0]

    def _sampled(
        self, image: Tensor, places: Places, name: str, padding: str, align: bool, dtype: torch.dtype
    ) -> Tensor:
        r, n = len(places.size), tuple(image.shape[1:])
        if USE_COMPILED:
            raise CannotError("MONAI's compiled extensions")
        if r not in (2, 3) or image.ndim != r + 1:
            raise CannotError(f"an image of {image.ndim - 1} axes and a grid of {r}")
        check_voxels(image, dtype)
        scale, shift = self._into_voxels(n, padding in taps.BOUNDARIES, align)
        matrix = np.eye(r + 1) if places.matrix is None else places.matrix.cpu().numpy().astype(np.float64)
        matrix, along = aligned(matrix, places.size)
        assert places.lines is None or places.matrix is None
        if places.displacement is None and along is not None:
            lines = []
            for axis, out in enumerate(along):
                line = places.grid(along=out)[axis].movedim(out, 0).flatten(1)[:, 0]
                if padding in taps.BOUNDARIES:
                    lines.append(line * scale[axis] + shift[axis])
                else:
                    g = line.to(dtype) * (2.0 / max(2, n[axis])) if self.norm_coords else line.to(dtype)
                    lines.append(in_voxels(g, n[axis], align))
            return by_tables(image, lines, along, name, padding, align)
        # From the output's indices to the centre of the output, through the matrix, and on to the input's indices.
        whole = np.empty((r, r + 1))
        whole[:, :r] = scale[:, None] * matrix[:r, :r]
        whole[:, r] = scale * matrix[:r, r] + shift - whole[:, :r] @ ((np.array(places.size) - 1) / 2)
        field = places.displacement
        field = None if field is None else field.to(image.device)
        return gathered(image, whole, field, places.size, name, boundary_of(padding, align))

    def _into_voxels(self, n: tuple[int, ...], spline: bool, align: bool) -> tuple[FloatArray, FloatArray]:
        """Factors and offsets from MONAI's grid to voxels of an image of this size; of splines by SciPy's rule."""
        size = np.array(n, np.float64)
        wide = np.maximum(size, 2.0)
        if spline:
            half = (wide - 1) / 2
            if self.norm_coords:
                return ((wide - 1) / wide if align else np.ones(len(n))), half
            return ((wide - 1) / wide, (wide - 1) / wide / 2) if align else (np.ones(len(n)), np.zeros(len(n)))
        last = size - 1 if align else size
        return (last / wide if self.norm_coords else last / 2), (size - 1) / 2
