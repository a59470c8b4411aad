"""`Resize` and `Zoom`: torch's `interpolate` by tables; MONAI pads and crops."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from monai import transforms
from monai.data.meta_tensor import MetaTensor
from monai.transforms.utils import resolves_modes
from monai.utils import TraceKeys, ensure_tuple_rep
from monai.utils.enums import LazyAttr
from monai.utils.type_conversion import get_torch_dtype_from_string

from gpuresample.installation import borrowed
from gpuresample.monai.shared import (
    CannotError,
    Ours,
    check_voxels,
    is_lazy,
    planned,
    run_tables,
    tracked,
    untraced,
    warn,
)
from gpuresample.monai.smoothing import blur_table
from gpuresample.planning.torch_tables import interpolate_table

# MONAI's own, whatever has its name by now.
_ZOOM = transforms.Zoom.__call__


class Resize(transforms.Resize):
    """Takes and gives what `monai.transforms.Resize` does.

    gpuresample does "area", "nearest", "nearest-exact", "bilinear" and "trilinear", with either `align_corners` and
    with `anti_aliasing`, in two and three dimensions. MONAI itself does "bicubic", one dimension and lazy evaluation.
    """

    def __call__(
        self,
        img: torch.Tensor,
        mode: str | None = None,
        align_corners: bool | None = None,
        anti_aliasing: bool | None = None,
        anti_aliasing_sigma: Sequence[float] | float | None = None,
        dtype: Any = None,
        lazy: bool | None = None,
    ) -> torch.Tensor:
        """As MONAI's."""
        if is_lazy(self, lazy):
            return super().__call__(img, mode, align_corners, anti_aliasing, anti_aliasing_sigma, dtype, lazy=True)
        try:
            image, step = planned(self, super().__call__, img, mode, align_corners, False, None, dtype)
            settings, size = step[TraceKeys.EXTRA_INFO], tuple(step[LazyAttr.SHAPE])
            voxels = image.as_tensor()
            if size != tuple(voxels.shape[1:]):
                smooth = self.anti_aliasing if anti_aliasing is None else anti_aliasing
                sigma = self.anti_aliasing_sigma if anti_aliasing_sigma is None else anti_aliasing_sigma
                voxels = resized(voxels, size, settings, sigma if smooth else False)
        except CannotError as reason:
            warn(str(reason))
            return super().__call__(img, mode, align_corners, anti_aliasing, anti_aliasing_sigma, dtype, lazy=False)
        return tracked(self, image, voxels, step, torch.as_tensor(np.asarray(step[LazyAttr.AFFINE])))

    def inverse_transform(self, data: torch.Tensor, transform: Any) -> torch.Tensor:
        """Back to the size that the last transform came from."""
        settings = transform[TraceKeys.EXTRA_INFO]
        align = settings["align_corners"]
        back = Resize(
            spatial_size=transform[TraceKeys.ORIG_SIZE],
            mode=settings["mode"],
            align_corners=None if align == TraceKeys.NONE else align,
            dtype=get_torch_dtype_from_string(settings["dtype"]),
        )
        out = untraced(back(data))
        for _ in range(settings["new_dim"]):
            out = out.squeeze(-1)
        return out


class Resized(Ours, transforms.Resized):
    """Takes and gives what `monai.transforms.Resized` does; see `Resize`."""

    parts: ClassVar = {"resizer": Resize}


def resized(image: torch.Tensor, size: tuple[int, ...], settings: Any, sigma: Any = False) -> torch.Tensor:
    """An image of another size; `sigma` is False for no antialiasing, None for MONAI's rule."""
    n = tuple(image.shape[1:])
    r = len(n)
    dtype = get_torch_dtype_from_string(settings["dtype"])
    if r not in (2, 3):
        raise CannotError(f"an image of {r} spatial axes")
    check_voxels(image, dtype)
    _, mode, _, _ = resolves_modes(settings["mode"], torch_interpolate_spatial_nd=r)
    mode = str(getattr(mode, "value", mode))
    align = settings["align_corners"]
    align = None if align == TraceKeys.NONE else align
    if mode not in ("area", "nearest", "nearest-exact", "bilinear", "trilinear"):
        raise CannotError(f"mode={mode!r}")
    if align is not None and mode not in ("bilinear", "trilinear"):
        # torch refuses it, in its own words.
        raise CannotError(f"align_corners with mode={mode!r}")
    kind = np.float64 if dtype == torch.float64 else np.float32
    one = "linear" if mode in ("bilinear", "trilinear") else mode
    tables = [interpolate_table(k, m, one, bool(align), kind) for k, m in zip(n, size, strict=True)]
    if sigma is not False and any(m < k for k, m in zip(n, size, strict=True)):
        factors = np.asarray(n, np.float32) / np.asarray(size, np.float32)
        if sigma is None:
            widths = np.maximum(0.0, (factors - 1) / 2).tolist()
        else:
            widths = [s * int(f > 1) for s, f in zip(ensure_tuple_rep(sigma, r), factors, strict=True)]
        tables = [t.after(blur_table(float(s), k, "erf")) for t, s, k in zip(tables, widths, n, strict=True)]
    return run_tables(tables, image)


class Zoom(transforms.Zoom):
    """Takes and gives what `monai.transforms.Zoom` does.

    gpuresample interpolates as `Resize` does. MONAI pads and crops, and inverts; it does "bicubic", lazy evaluation and
    images whose metadata is not tracked.
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
        whole = copy(self)
        whole.keep_size = False
        try:
            image, step = planned(self, partial(_ZOOM, whole), img, *arguments)
            step[TraceKeys.ID] = id(self)
            size = tuple(step[LazyAttr.SHAPE])
            voxels = resized(image.as_tensor(), size, step[TraceKeys.EXTRA_INFO])
        except CannotError as reason:
            warn(str(reason))
            return super().__call__(img, *arguments, lazy=False)
        out = tracked(self, image, voxels, step, torch.as_tensor(np.asarray(step[LazyAttr.AFFINE])))
        n = tuple(image.shape[1:])
        if self.keep_size and size != n:
            out = transforms.ResizeWithPadOrCrop(n, mode=padding_mode or self.padding_mode, **self.kwargs)(out)
            assert isinstance(out, MetaTensor)
            done = out.applied_operations.pop()
            out.applied_operations[-1][TraceKeys.EXTRA_INFO] |= {"do_padcrop": True, "padcrop": done}
        return out


class RandZoom(transforms.RandZoom):
    """Takes and gives what `monai.transforms.RandZoom` does, with the same draws; see `Zoom`."""

    __call__ = borrowed(transforms.RandZoom.__call__, Zoom=Zoom)


class Zoomd(Ours, transforms.Zoomd):
    """Takes and gives what `monai.transforms.Zoomd` does; see `Zoom`."""

    parts: ClassVar = {"zoomer": Zoom}


class RandZoomd(Ours, transforms.RandZoomd):
    """Takes and gives what `monai.transforms.RandZoomd` does, with the same draws; see `Zoom`."""

    parts: ClassVar = {"rand_zoom": RandZoom}
