"""`Affine` and `RandAffine`: MONAI draws and makes the matrix; no grid of coordinates is made of it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from monai import transforms
from monai.transforms.utils import create_scale
from monai.utils import TransformBackends, convert_to_dst_type

from gpuresample.installation import borrowed
from gpuresample.monai.resampler import Places, Resample
from gpuresample.monai.shared import Ours, OursTogether, is_lazy


class AffineGrid(transforms.AffineGrid):
    """MONAI's `AffineGrid`, which makes `Places` of a size."""

    def __call__(self, spatial_size: Any = None, grid: Any = None, lazy: bool | None = None) -> Any:
        """As MONAI's."""
        if (self.lazy if lazy is None else lazy) or grid is not None or spatial_size is None:
            return super().__call__(spatial_size, grid, lazy)
        _, affine = super().__call__(spatial_size, lazy=True)
        dtype = self.dtype or torch.float64
        affine = torch.as_tensor(affine).to(dtype)
        matrix = affine
        if self.align_corners:
            wide = [max(n, 2) for n in spatial_size]
            scale = create_scale(len(wide), [n / (n - 1) for n in wide], backend=TransformBackends.TORCH)
            matrix = affine @ convert_to_dst_type(scale, affine)[0]
        return Places(tuple(int(n) for n in spatial_size), dtype, matrix), affine


class RandAffineGrid(transforms.RandAffineGrid):
    """MONAI's `RandAffineGrid`, which moves `Places`."""

    def __call__(
        self, spatial_size: Any = None, grid: Any = None, randomize: bool = True, lazy: bool | None = None
    ) -> Any:
        """As MONAI's."""
        if not isinstance(grid, Places):
            return super().__call__(spatial_size, grid, randomize, lazy)
        if randomize:
            self.randomize()
        made = AffineGrid(
            self.rotate_params, self.shear_params, self.translate_params, self.scale_params, self.device, self.dtype
        )
        _, self.affine = made(grid.size)
        assert self.affine is not None
        return grid.moved(self.affine)


class Affine(Ours, transforms.Affine):
    """Takes and gives what `monai.transforms.Affine` does.

    gpuresample does the modes "bilinear" and "nearest" with every `padding_mode`, `align_corners` and `normalized`, and
    spline orders 0 to 5 with SciPy's paddings "nearest", "reflect", "mirror" and "constant", in two and three
    dimensions. MONAI itself does the rest: lazy evaluation, "bicubic", other paddings.
    """

    parts: ClassVar = {"affine_grid": AffineGrid, "resampler": Resample}

    # MONAI's makes an `AffineGrid` of its own.
    inverse = borrowed(transforms.Affine.inverse, AffineGrid=AffineGrid)

    def __call__(
        self,
        img: Any,
        spatial_size: Any = None,
        mode: Any = None,
        padding_mode: Any = None,
        lazy: bool | None = None,
    ) -> Any:
        """As MONAI's."""
        is_lazy(self, lazy)
        return super().__call__(img, spatial_size, mode, padding_mode, lazy=lazy)


class RandAffine(Ours, transforms.RandAffine):
    """Takes and gives what `monai.transforms.RandAffine` does, with the same draws; see `Affine`."""

    _cached_grid: Any

    parts: ClassVar = {"rand_affine_grid": RandAffineGrid, "resampler": Resample}

    def take_over(self) -> None:
        """Put ours in the place of MONAI's parts."""
        super().take_over()
        grid = self._cached_grid
        self._cached_grid = Places(tuple(grid.shape[1:])) if isinstance(grid, torch.Tensor) else grid

    def _init_identity_cache(self, lazy: bool) -> Any:
        """As MONAI's, where a grid is to be kept."""
        return super()._init_identity_cache(lazy) if self.cache_grid else None

    inverse = borrowed(transforms.RandAffine.inverse, AffineGrid=AffineGrid)

    def get_identity_grid(self, spatial_size: Any, lazy: bool) -> Any:
        """As MONAI's, but described."""
        return None if lazy else Places(tuple(int(n) for n in spatial_size))

    def __call__(
        self,
        img: Any,
        spatial_size: Any = None,
        mode: Any = None,
        padding_mode: Any = None,
        randomize: bool = True,
        grid: Any = None,
        lazy: bool | None = None,
    ) -> Any:
        """As MONAI's."""
        is_lazy(self, lazy)
        return super().__call__(img, spatial_size, mode, padding_mode, randomize, grid, lazy=lazy)


class Affined(OursTogether, transforms.Affined):
    """Takes and gives what `monai.transforms.Affined` does; see `Affine`. The voxels of all keys are located once."""

    parts: ClassVar = {"affine": Affine}


class RandAffined(OursTogether, transforms.RandAffined):
    """Takes and gives what `monai.transforms.RandAffined` does, with the same draws; see `Affined`."""

    parts: ClassVar = {"rand_affine": RandAffine}
