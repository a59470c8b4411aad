"""`Rand3DElastic` and `RandGridDistortion`: MONAI draws; the noise is blurred by tables, and no grid is made."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
from monai import transforms
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor, get_spatial_ndim
from monai.utils import convert_to_tensor, ensure_tuple_rep, fall_back_tuple
from torch import Tensor

from gpuresample.monai.affines import RandAffineGrid
from gpuresample.monai.resampler import Places, Resample
from gpuresample.monai.shared import Ours, run_tables, together
from gpuresample.monai.smoothing import blur_table


class Rand3DElastic(Ours, transforms.Rand3DElastic):
    """Takes and gives what `monai.transforms.Rand3DElastic` does, with the same draws.

    gpuresample does the modes and paddings of `Affine`; MONAI itself does the rest.
    """

    parts: ClassVar = {"rand_affine_grid": RandAffineGrid, "resampler": Resample}

    def places(self, size: tuple[int, ...], device: Any) -> Places:
        """Where voxels of an output come from, of what was drawn last; the affine part is drawn here once more."""
        # Noise in float32 is added to a grid in float64, which the affine part then takes in float32.
        noise = torch.as_tensor(self.rand_offset, device=device)
        tables = [blur_table(float(self.sigma), n, "erf", truncated=3.0) for n in size]
        blurred = run_tables(tables, noise).mul_(self.magnitude)
        moved = Places(size, displacement=blurred)
        return self.rand_affine_grid(grid=moved)

    def __call__(
        self, img: Any, spatial_size: Any = None, mode: Any = None, padding_mode: Any = None, randomize: bool = True
    ) -> Any:
        """As MONAI's."""
        size = fall_back_tuple(self.spatial_size if spatial_size is None else spatial_size, img.shape[1:])
        if randomize:
            self.randomize(grid_size=size)
        if self._do_transform and self.rand_offset is None:
            raise RuntimeError("rand_offset is not initialized.")
        device = img.device if isinstance(img, Tensor) else self.device
        places = self.places(size, device) if self._do_transform else Places(size)
        return self.resampler(
            img,
            places,
            self.mode if mode is None else mode,
            self.padding_mode if padding_mode is None else padding_mode,
        )


class Rand3DElasticd(Ours, transforms.Rand3DElasticd):
    """Takes and gives what `monai.transforms.Rand3DElasticd` does, with the same draws; see `Rand3DElastic`.

    The voxels of all keys are located once.
    """

    parts: ClassVar = {"rand_3d_elastic": Rand3DElastic}

    def __call__(self, data: Any) -> Any:
        """As MONAI's."""
        d = dict(data)
        first = self.first_key(d)
        if first == ():
            return convert_to_tensor(d, track_meta=get_track_meta())
        self.randomize(None)
        _check_pending(d[first], f"data['{first}']")
        elastic = self.rand_3d_elastic
        size = fall_back_tuple(elastic.spatial_size, d[first].shape[1:])
        elastic.randomize(size)
        if elastic.device is None and isinstance(d[first], Tensor):
            elastic.set_device(d[first].device)
        places = elastic.places(size, elastic.device) if self._do_transform else Places(size)
        with together(self.keys):
            for key, mode, padding in self.key_iterator(d, self.mode, self.padding_mode):
                d[key] = elastic.resampler(d[key], places, mode=mode, padding_mode=padding)
        return d


class GridDistortion(Ours, transforms.GridDistortion):
    """MONAI's `GridDistortion`, by tables: every axis is distorted for itself."""

    parts: ClassVar = {"resampler": Resample}

    def __call__(self, img: Any, distort_steps: Any = None, mode: Any = None, padding_mode: Any = None) -> Any:
        """As MONAI's."""
        steps = self.distort_steps if distort_steps is None else distort_steps
        if len(img.shape) != len(steps) + 1:
            raise ValueError("the spatial size of `img` does not match with the length of `distort_steps`")
        _check_pending(img, "MetaTensor img")
        r = get_spatial_ndim(img)
        size = tuple(int(n) for n in img.shape[1 : 1 + r])
        cells = ensure_tuple_rep(self.num_cells, r)
        lines = tuple(_distorted(n, k, s) for n, k, s in zip(size, cells, steps, strict=True))
        return self.resampler(img, Places(size, lines=lines), mode=mode, padding_mode=padding_mode)


def _distorted(n: int, cells: int, steps: Any) -> Tensor:
    """Where the voxels of an axis of n lie, from its centre: cells that are stretched by `steps`, one after the other.

    Both ends of a cell are among its voxels, so the last voxel of one and the first of the next lie in one place.
    """
    line = torch.zeros(n, dtype=torch.float32)
    width = n // cells
    end = 0.0
    for k in range(cells + 1):
        first, last = k * width, (k + 1) * width
        start, end = end, float(n) if last > n else end + width * float(steps[k])
        line[first:last] = torch.linspace(start, end, min(last, n) - first)
    return line - (n - 1.0) / 2.0


class RandGridDistortion(Ours, transforms.RandGridDistortion):
    """Takes and gives what `monai.transforms.RandGridDistortion` does, with the same draws, of two axes and of three.

    gpuresample does the modes and paddings of `Affine`; MONAI itself does the rest.
    """

    parts: ClassVar = {"grid_distortion": GridDistortion}


class RandGridDistortiond(Ours, transforms.RandGridDistortiond):
    """Takes and gives what `monai.transforms.RandGridDistortiond` does, with the same draws."""

    parts: ClassVar = {"rand_grid_distortion": RandGridDistortion}


def _check_pending(image: Any, name: str) -> None:
    if isinstance(image, MetaTensor) and image.pending_operations:
        warnings.warn(f"{name} has pending operations, transform may return incorrect results.", stacklevel=3)
