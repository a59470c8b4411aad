"""`SpatialResample`, `Spacing`, `ResampleToMatch`: MONAI works out grid, modes and trace."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from monai import transforms
from monai.data.utils import AFFINE_TOL
from monai.networks.utils import to_norm_affine
from monai.utils import TraceKeys
from monai.utils.enums import LazyAttr
from monai.utils.type_conversion import get_torch_dtype_from_string

from gpuresample.monai.resampler import aligned, boundary_of, by_tables, in_voxels, modes
from gpuresample.monai.shared import (
    CannotError,
    Ours,
    check_voxels,
    gathered,
    is_lazy,
    planned,
    tracked,
    untraced,
    warn,
)
from gpuresample.planning import taps
from gpuresample.planning.filters import FloatArray

_SPATIAL_RESAMPLE = transforms.SpatialResample


class SpatialResample(transforms.SpatialResample):
    """Takes and gives what `monai.transforms.SpatialResample` does. `Spacing` and `ResampleToMatch` build on it.

    gpuresample does the modes "bilinear" and "nearest" with every `padding_mode` and `align_corners`. It does spline
    orders 0 to 5 with `align_corners=False` and the paddings "nearest", "reflect", "mirror" and "constant" (and torch's
    words for them). It does rotated grids with all of these but zero padding. MONAI itself does the rest: lazy
    evaluation, other paddings, more than three axes.
    """

    def __call__(
        self,
        img: torch.Tensor,
        dst_affine: torch.Tensor | None = None,
        spatial_size: Any = None,
        mode: str | int | None = None,
        padding_mode: str | None = None,
        align_corners: bool | None = None,
        dtype: Any = None,
        lazy: bool | None = None,
    ) -> torch.Tensor:
        """As MONAI's."""
        arguments = (dst_affine, spatial_size, mode, padding_mode, align_corners, dtype)
        # MONAI's own class, whatever has its name by now: a subclass of both would come back here.
        monais = _SPATIAL_RESAMPLE.__call__
        if is_lazy(self, lazy):
            return monais(self, img, *arguments, lazy=True)
        try:
            image, step = planned(self, partial(monais, self), img, *arguments)
            matrix = np.asarray(step[LazyAttr.AFFINE], dtype=np.float64)
            size = tuple(step[LazyAttr.SHAPE])
            voxels = image.as_tensor()
            r = matrix.shape[0] - 1
            same = size == tuple(voxels.shape[1 : r + 1]) and np.allclose(matrix, np.eye(r + 1), atol=AFFINE_TOL)
            if not same:
                voxels = sampled(voxels, matrix, size, step[TraceKeys.EXTRA_INFO])
        except CannotError as reason:
            warn(str(reason))
            return monais(self, img, *arguments, lazy=False)
        return tracked(self, image, voxels, step, None if same else torch.as_tensor(matrix))

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """Back onto the grid that the last transform came from."""
        extra = self.pop_transform(data)
        settings = extra[TraceKeys.EXTRA_INFO]
        align = settings["align_corners"]
        out = SpatialResample.__call__(
            self,
            data,
            dst_affine=settings["src_affine"],
            spatial_size=extra[TraceKeys.ORIG_SIZE],
            mode=settings["mode"],
            padding_mode=settings["padding_mode"],
            align_corners=False if align == TraceKeys.NONE else align,
            dtype=get_torch_dtype_from_string(settings["dtype"]),
            lazy=False,
        )
        return untraced(out)


def sampled(image: torch.Tensor, matrix: FloatArray, size: tuple[int, ...], settings: Any) -> torch.Tensor:
    """An image at `matrix` times the index of every voxel of the result, in axis order; float32."""
    r = matrix.shape[0] - 1
    dtype = get_torch_dtype_from_string(settings["dtype"])
    if r not in (2, 3) or image.ndim != r + 1:
        raise CannotError(f"an image of {image.ndim - 1} axes, {r} of them spatial")
    check_voxels(image, dtype)
    align = settings["align_corners"]
    align = False if align in (None, TraceKeys.NONE) else bool(align)
    name, padding = modes(settings["mode"], settings["padding_mode"])
    if align and padding in taps.BOUNDARIES:
        raise CannotError(f"mode={settings['mode']!r} with align_corners=True")
    matrix, along = aligned(matrix, size)
    if along is None:
        if align and 1 in (*image.shape[1:], *size):  # MONAI's rule puts one voxel elsewhere
            raise CannotError("align_corners=True on an axis of one voxel")
        return gathered(image, matrix[:r], None, size, name, boundary_of(padding, align))
    if padding in taps.BOUNDARIES:
        lines = [torch.as_tensor(matrix[a, k] * np.arange(size[k]) + matrix[a, r]) for a, k in enumerate(along)]
    else:
        lines = _torchs_lines(matrix, tuple(image.shape[1:]), size, along, align, dtype)
    return by_tables(image, lines, along, name, padding, align)


def _torchs_lines(
    matrix: FloatArray, n: tuple[int, ...], size: tuple[int, ...], along: list[int], align: bool, dtype: torch.dtype
) -> list[torch.Tensor]:
    """Where samples lie along each axis of an image, at the coordinates that torch's grid has."""
    r = len(n)
    theta = to_norm_affine(torch.as_tensor(matrix)[None].to(dtype), n, size, align_corners=align)
    theta = theta[:, list(range(r - 1, -1, -1)), :][..., [*range(r - 1, -1, -1), r]]
    lines = []
    for axis, out in enumerate(along):
        # Along the other axes two voxels stand for all: nothing of them enters this coordinate.
        line = [size[k] if k == out else 2 for k in range(r)]
        grid = torch.nn.functional.affine_grid(theta, [1, 1, *line], align_corners=align)
        lines.append(in_voxels(grid[0, ..., r - 1 - axis].movedim(out, 0).flatten(1)[:, 0], n[axis], align))
    return lines


class ResampleToMatch(transforms.ResampleToMatch, SpatialResample):
    """Takes and gives what `monai.transforms.ResampleToMatch` does; see `SpatialResample`."""


class Spacing(Ours, transforms.Spacing):
    """Takes and gives what `monai.transforms.Spacing` does; see `SpatialResample`."""

    parts: ClassVar = {"sp_resample": SpatialResample}


class ResampleToMatchd(Ours, transforms.ResampleToMatchd):
    """Takes and gives what `monai.transforms.ResampleToMatchd` does; see `SpatialResample`."""

    parts: ClassVar = {"resampler": ResampleToMatch}


class Spacingd(Ours, transforms.Spacingd):
    """Takes and gives what `monai.transforms.Spacingd` does; see `SpatialResample`."""

    parts: ClassVar = {"spacing_transform": Spacing}
