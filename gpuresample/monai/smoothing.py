"""`GaussianSmooth`, and MONAI's blur as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from monai import transforms
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor, get_spatial_ndim
from monai.networks.layers.convutils import gaussian_1d
from monai.utils import convert_to_dst_type, convert_to_tensor

from gpuresample.monai.shared import Ours, run_tables, warn
from gpuresample.planning import taps
from gpuresample.planning.taps import TapTable
from gpuresample.tensors import VOXELS


class GaussianSmooth(transforms.GaussianSmooth):
    """Takes and gives what `monai.transforms.GaussianSmooth` does, in two and three dimensions.

    The weights are MONAI's; past the border there are zeros, as in MONAI.
    """

    def __call__(self, img: Any) -> Any:
        """As MONAI's."""
        image = convert_to_tensor(img, track_meta=get_track_meta())
        r = get_spatial_ndim(image)
        voxels = image.as_tensor() if isinstance(image, MetaTensor) else image
        sigma = self.sigma if isinstance(self.sigma, Sequence) else [self.sigma] * r
        if r not in (2, 3) or voxels.ndim != r + 1 or voxels.dtype not in VOXELS or len(sigma) != r:
            if len(sigma) == r:
                warn(f"an image of shape {tuple(voxels.shape)} and type {voxels.dtype}")
            return super().__call__(img)
        n = voxels.shape[1:]
        tables = [blur_table(float(s), k, self.approx) for s, k in zip(sigma, n, strict=True)]
        return convert_to_dst_type(run_tables(tables, voxels), dst=image, dtype=torch.float32)[0]


class GaussianSmoothd(Ours, transforms.GaussianSmoothd):
    """Takes and gives what `monai.transforms.GaussianSmoothd` does; see `GaussianSmooth`."""

    parts: ClassVar = {"converter": GaussianSmooth}


def blur_table(sigma: float, n: int, approx: str, truncated: float = 4.0) -> TapTable:
    """MONAI's own weights for a sigma, on a line that is zero past its ends."""
    weight = gaussian_1d(torch.as_tensor(sigma), truncated=truncated, approx=approx).numpy().astype(np.float64)
    first = np.arange(n) - weight.size // 2
    return taps.zero_padded_table(first, np.broadcast_to(weight, (n, weight.size)), n)
