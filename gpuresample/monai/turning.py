"""`Rotate` and `RandRotate`: MONAI draws, makes the matrix and the trace."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from monai import transforms
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import to_affine_nd
from monai.utils import TraceKeys, convert_to_dst_type, convert_to_tensor
from monai.utils.enums import LazyAttr
from monai.utils.type_conversion import get_torch_dtype_from_string

from gpuresample.installation import borrowed
from gpuresample.monai.shared import CannotError, OursTogether, is_lazy, planned, tracked, warn
from gpuresample.monai.spacing import sampled


class Rotate(transforms.Rotate):
    """Takes and gives what `monai.transforms.Rotate` does, in two and three dimensions, and its inverse.

    gpuresample does the modes "bilinear" and "nearest" with every `padding_mode` and `align_corners`. MONAI itself does
    lazy evaluation, "bicubic", and images whose metadata is not tracked.
    """

    def __call__(
        self,
        img: Any,
        mode: Any = None,
        padding_mode: Any = None,
        align_corners: bool | None = None,
        dtype: Any = None,
        lazy: bool | None = None,
    ) -> Any:
        """As MONAI's."""
        arguments = (mode, padding_mode, align_corners, dtype)
        if is_lazy(self, lazy):
            return super().__call__(img, *arguments, lazy=True)
        try:
            image, step = planned(self, super().__call__, img, *arguments)
            matrix, size = step[TraceKeys.EXTRA_INFO]["rot_mat"], tuple(step[LazyAttr.SHAPE])
            voxels = _turned(image.as_tensor(), matrix, size, step[TraceKeys.EXTRA_INFO])
        except CannotError as reason:
            warn(str(reason))
            return super().__call__(img, *arguments, lazy=False)
        return tracked(self, image, voxels, step, matrix)

    def inverse_transform(self, data: Any, transform: Any) -> Any:
        """Back onto the grid that the rotation came from."""
        settings = transform[TraceKeys.EXTRA_INFO]
        inverse = np.linalg.inv(np.asarray(settings["rot_mat"], dtype=np.float64))
        # As MONAI has it, in the affine too.
        back = torch.as_tensor(inverse).to(get_torch_dtype_from_string(settings["dtype"]))
        size = tuple(int(n) for n in transform[TraceKeys.ORIG_SIZE])
        try:
            voxels = _turned(data.as_tensor() if isinstance(data, MetaTensor) else data, back, size, settings)
        except CannotError as reason:
            warn(str(reason))
            return super().inverse_transform(data, transform)
        out = convert_to_dst_type(voxels, dst=data, dtype=voxels.dtype)[0]
        if isinstance(out, MetaTensor):
            affine = convert_to_tensor(out.peek_pending_affine(), track_meta=False)
            out.affine @= convert_to_dst_type(to_affine_nd(len(affine) - 1, back), affine)[0]
        return out


def _turned(image: torch.Tensor, matrix: Any, size: tuple[int, ...], settings: Any) -> torch.Tensor:
    """An image at `matrix` times the index of every voxel of the result; splines are not MONAI's to turn by."""
    if str(settings["mode"]).isdigit():
        raise CannotError(f"mode={settings['mode']!r}")
    return sampled(image, np.asarray(matrix, dtype=np.float64), size, settings)


class RandRotate(transforms.RandRotate):
    """Takes and gives what `monai.transforms.RandRotate` does, with the same draws; see `Rotate`."""

    __call__ = borrowed(transforms.RandRotate.__call__, Rotate=Rotate)
    inverse = borrowed(transforms.RandRotate.inverse, Rotate=Rotate)


class Rotated(OursTogether, transforms.Rotated):
    """Takes and gives what `monai.transforms.Rotated` does; see `Rotate`. The voxels of all keys are located once."""

    parts: ClassVar = {"rotator": Rotate}


class RandRotated(OursTogether, transforms.RandRotated):
    """Takes and gives what `monai.transforms.RandRotated` does, with the same draws; see `Rotated`."""

    parts: ClassVar = {"rand_rotate": RandRotate}
