"""MONAI's resampling transforms, computed by gpuresample: the same arguments, metadata, traces and inverses.

    from gpuresample.monai import Spacingd  # for monai.transforms.Spacingd
    transform = Spacingd(["image", "label"], pixdim=(1, 1, 2), mode=["bilinear", "nearest"])

Every class is a subclass of MONAI's. MONAI decides what is to be done: the grids, the modes, the trace. gpuresample
computes the voxels. What it cannot do, MONAI does itself, and one warning for each reason says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import monai
except ImportError as error:
    raise ImportError('gpuresample.monai needs MONAI: pip install "gpuresample[monai]"') from error
import torch
from monai import transforms
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor, get_spatial_ndim
from monai.data.utils import AFFINE_TOL
from monai.networks.layers.convutils import gaussian_1d
from monai.networks.utils import to_norm_affine
from monai.transforms.utils import resolves_modes
from monai.utils import TraceKeys, convert_to_tensor, ensure_tuple_rep
from monai.utils.enums import LazyAttr
from monai.utils.type_conversion import get_torch_dtype_from_string

from gpuresample.containers import Volume
from gpuresample.installation import Installation
from gpuresample.ops.resample import plan
from gpuresample.planning import planner, taps
from gpuresample.planning.filters import FILTERS, FloatArray
from gpuresample.planning.grid import Grid
from gpuresample.planning.maps import AxisMap, map_indices
from gpuresample.planning.taps import TapTable
from gpuresample.planning.torch_tables import grid_sample_table, interpolate_table
from gpuresample.planning.works import Separable
from gpuresample.plans import Plan, of_work, precision_of
from gpuresample.tensors import VOXELS, apply_plan, in_space, numpy_dtype, run_plan

__all__ = [
    "GaussianSmooth", "GaussianSmoothd", "Installation", "ResampleToMatch", "ResampleToMatchd", "Resize", "Resized",
    "Spacing", "Spacingd", "SpatialResample", "install",
]  # fmt: skip

# Grids whose axes drift apart by no more than this, in voxels over the whole volume, are aligned: headers in float32
# leave 1e-5 between axes that were meant to be at right angles.
DRIFT = 2e-5

_SPATIAL_RESAMPLE = transforms.SpatialResample

_warned: set[str] = set()


def _warn(reason: str) -> None:
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(f"{reason}: MONAI's own transform does it", RuntimeWarning, stacklevel=4)


class _CannotError(Exception):
    """What tables cannot do, in words."""


def _planned(transform: Any, image: Any) -> None:
    """Refuse what cannot be planned by MONAI and done here."""
    if not get_track_meta() or not transform.tracing:
        raise _CannotError("metadata is not tracked")
    if isinstance(image, MetaTensor) and image.has_pending_operations:
        raise _CannotError("the image has pending lazy operations")


def _run(made: Plan, image: torch.Tensor) -> torch.Tensor:
    """A plan on an image (c, ...) of two or three spatial axes; float32 comes out, as of all of these transforms."""
    flat = image.ndim == 3
    image = image.float() if image.dtype == torch.bool else image
    image = image.unsqueeze(-3) if flat else image
    if isinstance(made.work, Separable):
        out = apply_plan(made, image, torch.float32)
    elif image.requires_grad and torch.is_grad_enabled():
        raise _CannotError("a gradient through a rotated grid")
    else:
        out = run_plan(made, image, torch.float32)
    return out.squeeze(-3) if flat else out


def _voxels(image: torch.Tensor) -> np.dtype[Any]:
    """The type that an image's voxels enter sums as."""
    return numpy_dtype(torch.float32 if image.dtype == torch.bool else image.dtype)


def _precision(image: torch.Tensor) -> str:
    return precision_of(_voxels(image), np.dtype(np.float32))


def _rotated(image: torch.Tensor, target: Grid, interpolation: str, boundary: str) -> Plan:
    """The plan of a grid that is no matter of tables."""
    r = target.dimension
    whole = Volume(np.broadcast_to(np.zeros((), _voxels(image)), image.shape[1:]), (1.0,) * r)
    return in_space(plan(whole, like=target, interpolation=interpolation, boundary=boundary, dtype=np.float32))


# --- Spacing, ResampleToMatch ----------------------------------------------------------------------------------------


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
        if self.lazy if lazy is None else lazy:
            _warn("lazy evaluation")
            return monais(self, img, *arguments, lazy=True)
        try:
            _planned(self, img)
            # Lazily, MONAI works out grid, modes and trace, and touches no voxel.
            planned = monais(self, img, *arguments, lazy=True)
            step = planned.pending_operations[-1]
            planned.clear_pending_operations()
            matrix = np.asarray(step[LazyAttr.AFFINE], dtype=np.float64)
            size = tuple(step[LazyAttr.SHAPE])
            voxels = planned.as_tensor()
            r = matrix.shape[0] - 1
            same = size == tuple(voxels.shape[1 : r + 1]) and np.allclose(matrix, np.eye(r + 1), atol=AFFINE_TOL)
            if not same:
                voxels = _run(_spatial_plan(voxels, matrix, size, step[TraceKeys.EXTRA_INFO]), voxels)
        except _CannotError as reason:
            _warn(str(reason))
            return monais(self, img, *arguments, lazy=False)
        return _tracked(self, planned, voxels, step, None if same else torch.as_tensor(matrix))

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
        return _untraced(out)


def _tracked(transform: Any, planned: MetaTensor, voxels: torch.Tensor, step: Any, affine: Any) -> torch.Tensor:
    """The voxels with MONAI's metadata, and the step among the applied operations."""
    meta = transform.track_transform_meta(
        planned,
        sp_size=step[LazyAttr.SHAPE],
        affine=affine,
        extra_info=step[TraceKeys.EXTRA_INFO],
        orig_size=step[TraceKeys.ORIG_SIZE],
        transform_info=transform.get_transform_info(),
        lazy=False,
    )
    out = convert_to_tensor(voxels, dtype=torch.float32, track_meta=True)
    return out.copy_meta_from(meta)


def _untraced(data: Any) -> torch.Tensor:
    """An inverse leaves no trace of itself."""
    if isinstance(data, MetaTensor) and data.applied_operations:
        data.applied_operations.pop()
    return data


def _spatial_plan(image: torch.Tensor, matrix: FloatArray, size: tuple[int, ...], settings: Any) -> Plan:
    """The plan of sampling an image at `matrix` times the index of every voxel of the result (array order)."""
    r = matrix.shape[0] - 1
    mode, padding, align = settings["mode"], settings["padding_mode"], settings["align_corners"]
    dtype = get_torch_dtype_from_string(settings["dtype"])
    n = tuple(image.shape[1 : r + 1])
    if r not in (2, 3) or image.ndim != r + 1:
        raise _CannotError(f"an image of {image.ndim - 1} axes, {r} of them spatial")
    if image.dtype not in VOXELS or dtype not in (torch.float32, torch.float64):
        raise _CannotError(f"voxels of {image.dtype}, computed in {dtype}")
    align = False if align in (None, TraceKeys.NONE) else bool(align)
    spline = isinstance(mode, int) or str(mode).isdigit()
    if spline and align:
        raise _CannotError(f"mode={mode!r} with align_corners=True")
    _, mode, padding, _ = resolves_modes(mode, padding, backend=None)
    matrix = matrix.copy()
    matrix[:r, :r][np.abs(matrix[:r, :r]) * size <= DRIFT] = 0.0
    source = Grid.of_size(n[::-1])
    columns = matrix[:r, :r][::-1, ::-1]
    if abs(np.linalg.det(columns)) < 1e-6:
        raise _CannotError("a grid without inverse")
    target = Grid(size[::-1], (1.0,) * r, tuple(matrix[:r, r][::-1].tolist()), tuple(columns.ravel().tolist()))
    where = map_indices(target, source)
    if spline:
        boundary = str(getattr(padding, "value", padding))
        if boundary not in taps.BOUNDARIES:
            raise _CannotError(f"padding_mode={boundary!r}")
        name = {0: "nearest", 1: "linear"}.get(int(mode), f"bspline{mode}")
        if not isinstance(where, AxisMap):
            return _rotated(image, target, name, boundary)
        x = [
            matrix[r - 1 - s, r - 1 - j] * np.arange(size[r - 1 - j]) + matrix[r - 1 - s, r]
            for j, s in enumerate(where.source_axis)
        ]
        where = AxisMap(where.source_axis, tuple(x))
        work = planner.sampled(where, source, FILTERS[name], boundary, (None,) * r, _precision(image))
        return of_work(work, _voxels(image), np.float32)
    mode, padding = str(getattr(mode, "value", mode)), str(getattr(padding, "value", padding))
    if mode not in ("bilinear", "nearest"):
        raise _CannotError(f"mode={mode!r}")
    if isinstance(where, AxisMap):
        work = _aligned_work(where.source_axis, matrix, n, size, mode, padding, align, dtype, _precision(image))
        return of_work(work, _voxels(image), np.float32)
    if padding == "zeros":
        raise _CannotError("padding_mode='zeros' on a rotated grid")
    boundary = "nearest" if padding == "border" else "mirror" if align else "reflect"
    return _rotated(image, target, "linear" if mode == "bilinear" else "nearest", boundary)


def _aligned_work(
    source_axis: tuple[int, ...],
    matrix: FloatArray,
    n: tuple[int, ...],
    size: tuple[int, ...],
    mode: str,
    padding: str,
    align: bool,
    dtype: torch.dtype,
    precision: str,
) -> Separable:
    """One table for each axis, at the coordinates that torch's grid has, to their last bits: they decide ties."""
    r = len(n)
    theta = to_norm_affine(torch.as_tensor(matrix)[None].to(dtype), n, size, align_corners=align)
    theta = theta[:, list(range(r - 1, -1, -1)), :][..., [*range(r - 1, -1, -1), r]]
    tables: list[TapTable] = [planner.identity_table(1)] * r
    back = [0] * r
    for out, source in enumerate(source_axis):  # x, y, z
        axis, of = r - 1 - out, r - 1 - source
        # Along the other axes two voxels stand for all: nothing of them enters this coordinate.
        line = [size[k] if k == axis else 2 for k in range(r)]
        grid = torch.nn.functional.affine_grid(theta, [1, 1, *line], align_corners=align)
        g = grid[0, ..., source].movedim(axis, 0).flatten(1)[:, 0].numpy()
        x = (g + 1) / 2 * (n[of] - 1) if align else ((g + 1) * n[of] - 1) / 2
        tables[of] = grid_sample_table(x.astype(np.float64), n[of], mode, padding, align)
        back[of] = axis
    whole = planner.along_axes(tables, precision)
    moved = (*range(3 - r), *[k + 3 - r for k in back])
    t = whole.tables
    return Separable(t, whole.order, (moved[0], moved[1], moved[2]), whole.n_dst, whole.start, precision)


class ResampleToMatch(transforms.ResampleToMatch, SpatialResample):
    """Takes and gives what `monai.transforms.ResampleToMatch` does; see `SpatialResample`."""


class Spacing(transforms.Spacing):
    """Takes and gives what `monai.transforms.Spacing` does; see `SpatialResample`."""

    sp_resample: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        monais = self.sp_resample
        self.sp_resample = SpatialResample(
            monais.mode, monais.padding_mode, monais.align_corners, monais.dtype, lazy=monais.lazy
        )


class ResampleToMatchd(transforms.ResampleToMatchd):
    """Takes and gives what `monai.transforms.ResampleToMatchd` does; see `SpatialResample`."""

    resampler: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.resampler = ResampleToMatch(lazy=self.resampler.lazy)


class Spacingd(transforms.Spacingd):
    """Takes and gives what `monai.transforms.Spacingd` does; see `SpatialResample`."""

    spacing_transform: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        monais = self.spacing_transform

        def asked(values: npt.NDArray[Any]) -> Any:
            return None if np.isnan(values).all() else values

        self.spacing_transform = Spacing(
            monais.pixdim,
            diagonal=monais.diagonal,
            recompute_affine=monais.recompute_affine,
            min_pixdim=asked(monais.min_pixdim),
            max_pixdim=asked(monais.max_pixdim),
            lazy=monais.lazy,
        )


# --- Resize ----------------------------------------------------------------------------------------------------------


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
        if self.lazy if lazy is None else lazy:
            _warn("lazy evaluation")
            return super().__call__(img, mode, align_corners, anti_aliasing, anti_aliasing_sigma, dtype, lazy=True)
        try:
            _planned(self, img)
            planned = super().__call__(img, mode, align_corners, False, None, dtype, lazy=True)
            step = planned.pending_operations[-1]
            planned.clear_pending_operations()
            settings, size = step[TraceKeys.EXTRA_INFO], tuple(step[LazyAttr.SHAPE])
            voxels = planned.as_tensor()
            if size != tuple(voxels.shape[1:]):
                smooth = self.anti_aliasing if anti_aliasing is None else anti_aliasing
                sigma = self.anti_aliasing_sigma if anti_aliasing_sigma is None else anti_aliasing_sigma
                voxels = _run(_resize_plan(voxels, size, settings, sigma if smooth else False), voxels)
        except _CannotError as reason:
            _warn(str(reason))
            return super().__call__(img, mode, align_corners, anti_aliasing, anti_aliasing_sigma, dtype, lazy=False)
        return _tracked(self, planned, voxels, step, torch.as_tensor(np.asarray(step[LazyAttr.AFFINE])))

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
        out = _untraced(back(data))
        for _ in range(settings["new_dim"]):
            out = out.squeeze(-1)
        return out


class Resized(transforms.Resized):
    """Takes and gives what `monai.transforms.Resized` does; see `Resize`."""

    resizer: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        monais = self.resizer
        self.resizer = Resize(spatial_size=monais.spatial_size, size_mode=monais.size_mode, lazy=monais.lazy)


def _resize_plan(image: torch.Tensor, size: tuple[int, ...], settings: Any, sigma: Any) -> Plan:
    """The plan of `Resize`; `sigma` is False for no antialiasing, None for MONAI's rule."""
    n = tuple(image.shape[1:])
    r = len(n)
    dtype = get_torch_dtype_from_string(settings["dtype"])
    if r not in (2, 3):
        raise _CannotError(f"an image of {r} spatial axes")
    if image.dtype not in VOXELS or dtype not in (torch.float32, torch.float64):
        raise _CannotError(f"voxels of {image.dtype}, computed in {dtype}")
    _, mode, _, _ = resolves_modes(settings["mode"], torch_interpolate_spatial_nd=r)
    mode = str(getattr(mode, "value", mode))
    align = settings["align_corners"]
    align = None if align == TraceKeys.NONE else align
    if mode not in ("area", "nearest", "nearest-exact", "bilinear", "trilinear"):
        raise _CannotError(f"mode={mode!r}")
    if align is not None and mode not in ("bilinear", "trilinear"):
        # torch refuses it, in its own words.
        raise _CannotError(f"align_corners with mode={mode!r}")
    kind = np.float64 if dtype == torch.float64 else np.float32
    one = "linear" if mode in ("bilinear", "trilinear") else mode
    tables = [interpolate_table(k, m, one, bool(align), kind) for k, m in zip(n, size, strict=True)]
    if sigma is not False and any(m < k for k, m in zip(n, size, strict=True)):
        factors = np.asarray(n, np.float32) / np.asarray(size, np.float32)
        if sigma is None:
            widths = np.maximum(0.0, (factors - 1) / 2).tolist()
        else:
            widths = [s * int(f > 1) for s, f in zip(ensure_tuple_rep(sigma, r), factors, strict=True)]
        tables = [t.after(_blur_table(float(s), k, "erf")) for t, s, k in zip(tables, widths, n, strict=True)]
    return of_work(planner.along_axes(tables, _precision(image)), _voxels(image), np.float32)


# --- GaussianSmooth --------------------------------------------------------------------------------------------------


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
                _warn(f"an image of shape {tuple(voxels.shape)} and type {voxels.dtype}")
            return super().__call__(img)
        n = voxels.shape[1:]
        tables = [_blur_table(float(s), k, self.approx) for s, k in zip(sigma, n, strict=True)]
        blurred = _run(of_work(planner.along_axes(tables, _precision(voxels)), _voxels(voxels), np.float32), voxels)
        return monai.utils.convert_to_dst_type(blurred, dst=image, dtype=torch.float32)[0]


class GaussianSmoothd(transforms.GaussianSmoothd):
    """Takes and gives what `monai.transforms.GaussianSmoothd` does; see `GaussianSmooth`."""

    converter: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.converter = GaussianSmooth(self.converter.sigma, approx=self.converter.approx)


def _blur_table(sigma: float, n: int, approx: str) -> TapTable:
    """MONAI's own weights for a sigma, on a line that is zero past its ends."""
    weight = gaussian_1d(torch.as_tensor(sigma), truncated=4.0, approx=approx).numpy().astype(np.float64)
    first = np.arange(n) - weight.size // 2
    return taps.zero_padded_table(first, np.broadcast_to(weight, (n, weight.size)), n)


# --- installation ----------------------------------------------------------------------------------------------------

_OURS = (
    SpatialResample, ResampleToMatch, ResampleToMatchd, Spacing, Spacingd, Resize, Resized, GaussianSmooth,
    GaussianSmoothd,
)  # fmt: skip
_THEIRS = {ours: getattr(transforms, ours.__name__) for ours in _OURS}


def install() -> Installation:
    """Put this module's transforms in the place of MONAI's, so that bundles and scripts that name `Spacingd` use them.

    Returns
    -------
    Installation
        Its `revert()` undoes everything. It is also a context manager. Names that a script has imported before keep
        what they were; so do transforms that are made already.
    """
    done = Installation("monai")
    for ours, theirs in _THEIRS.items():
        if done.replace(theirs, ours):
            # Bundles find a class in the module that it says it is of.
            done.assign(ours, "__module__", theirs.__module__)
    return done
