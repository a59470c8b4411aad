"""`resample` and `plan`: arguments to grids to a plan. No voxel is touched here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample import engines
from gpuresample.checks import numbers, one_of, positive_numbers, sizes
from gpuresample.containers import ArrayContainer, Container, check_memory, grid_of, unwrap
from gpuresample.engines.contract import Store
from gpuresample.ops.transforms import resolve
from gpuresample.planning import conventions, planner
from gpuresample.planning.conventions import Convention
from gpuresample.planning.filters import Filter, gaussian_response, get_filter
from gpuresample.planning.grid import Grid, resized
from gpuresample.planning.taps import BOUNDARIES
from gpuresample.planning.works import Gather
from gpuresample.plans import Plan, execute, precision_of

ROUNDINGS = ("nearest", "truncate")


def resample(
    image: Any,
    *,
    spacing: float | Sequence[float] | None = None,
    size: Sequence[int] | None = None,
    like: Any = None,
    input_spacing: float | Sequence[float] | None = None,
    transform: Any = None,
    interpolation: str | int = "bspline",
    anchor: str = "first",
    boundary: str | None = None,
    antialias: bool | float | Sequence[float] = False,
    default_value: float = 0,
    rounding: str = "nearest",
    convention: str | None = None,
    dtype: npt.DTypeLike | None = None,
    device: str = "auto",
    out: Any = None,
) -> Any:
    """Resample an image onto another voxel grid, with SimpleITK's numbers.

    Axis-aligned grids (permuted and flipped ones too) are resampled axis by axis from tables of weights, rotated
    and deformed ones voxel by voxel.

    Parameters
    ----------
    image : SimpleITK.Image, Volume, nibabel image or array
        2-D or 3-D, integer, float or bool voxels. SimpleITK images may be vectors or 4-D (then every volume along
        the fourth axis is resampled in space), nibabel images 3-D and more. Arrays are (..., z, y, x), or (y, x);
        leading axes are channels or a batch. They may be NumPy's, CuPy's, or whatever offers DLPack (torch's) or
        `__cuda_array_interface__`, in host memory or on a GPU. NaN is allowed: it spreads to the voxels whose taps meet
        it (12 voxels for cubic splines, in SimpleITK the whole volume).
    spacing : float or sequence of float, optional
        New spacing in physical units, in the container's order (x, y, z for images and volumes, axis order for
        arrays). One number serves all axes. The size is `round(size * spacing / new_spacing)`, half to even.
    size : sequence of int, optional
        New size, same order. Without `spacing` the extent is kept.
    like : SimpleITK.Image, Volume, nibabel image, Grid or array, optional
        The grid to resample onto (an array gives only its size). Not together with `spacing`, `size`, `anchor`.
    input_spacing : float or sequence of float, optional
        Spacing of a bare array, in axis order; 1 unless given.
    transform : SimpleITK.Transform, optional
        Maps points of the output's space to the input's. Any linear transform or composite; displacement fields and
        B-spline transforms are evaluated by SimpleITK voxel by voxel. With nothing else given, the grid stays.
    interpolation : str or SimpleITK enumerator
        "nearest", "linear", "bspline" (order 3), "bspline1" to "bspline5", "gaussian", "hamming", "cosine",
        "welch", "lanczos", "blackman", "label_gaussian", "label_linear".
    anchor : {"first", "edge", "center"}
        What stays aligned: the centre of the first voxel (SimpleITK recipes), the volume's outer faces (torch with
        `align_corners=False`, scikit-image), the centres of the corner voxels (`scipy.ndimage.zoom`).
    boundary : {None, "nearest", "reflect", "mirror", "constant"}
        How the image goes on past its border. None is SimpleITK's rule: taps clamp (linear, sinc), mirror
        (B-spline) or are dropped (Gaussian), and voxels outside take `default_value`. The others are SciPy's words.
    antialias : bool, float or sequence of float
        Blur before sampling. True: a Gaussian of sigma (step - 1) / 2 input voxels on axes that shrink. A number
        is sigma itself, in input voxels, a sequence one for each axis.
    default_value : float
        Value of voxels outside the input; must fit the output's type.
    rounding : {"nearest", "truncate"}
        How integer outputs are rounded: to nearest, half to even, or toward zero as SimpleITK does. Both saturate;
        NaN becomes 0.
    convention : str, optional
        Follow another library's call: "simpleitk", "scipy", "skimage", "torch", "monai", "torchio", "nibabel",
        "nnunet" (`gpuresample.planning.conventions`). It sets `anchor`, `boundary`, `antialias`, `rounding`, the size
        that belongs to a spacing and the output's type; a keyword that says something else is refused.
    dtype : dtype, optional
        Voxel type of the output; the input's unless given.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where to compute. "auto" follows the data: images on a GPU are resampled there; large ones in host memory too,
        if there is one (`gpuresample.engines` has the rule), else on the CPU. "cuda" takes images in host memory to
        the GPU and back; images on a GPU are not moved.
    out : same kind as `image`, optional
        Where to write the result; its size and type must be the result's. Must not overlap the input.

    Returns
    -------
    SimpleITK.Image, Volume, nibabel image or array
        The same kind as `image`, where `image` is, geometry updated. Arrays that offer nothing but
        `__cuda_array_interface__` come out as CuPy's.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range; the message names the argument, its value and what is allowed.
    RuntimeError
        For `device="cuda"` without a usable GPU, or in a child forked after CUDA was used.

    Notes
    -----
    Reference: `itk::ResampleImageFilter` and its interpolators, ITK 5.4. Images of up to 32-bit floats and 16-bit
    integers are summed in float32 and lie within 2e-6 of the intensity range of SimpleITK's result; wider types are
    summed in float64 and lie within 1e-9. B-splines: Unser, "Splines: a perfect fit for signal and image
    processing", IEEE SPM 1999; the prefilter is folded into the taps.

    Examples
    --------
    >>> import numpy as np, gpuresample as gr
    >>> ct = np.zeros((20, 64, 64), np.int16)
    >>> gr.resample(ct, spacing=(2, 1, 1), input_spacing=(1, 0.78125, 0.78125)).shape
    (10, 50, 50)
    """
    container = unwrap(image, input_spacing, lazy=True)
    made = _plan(
        container, spacing, size, like, transform, interpolation, anchor, boundary, antialias, default_value,
        rounding, convention, dtype, device,
    )  # fmt: skip
    return execute(made, container, out)


def plan(
    image_or_shape: Any,
    *,
    spacing: float | Sequence[float] | None = None,
    size: Sequence[int] | None = None,
    like: Any = None,
    input_spacing: float | Sequence[float] | None = None,
    transform: Any = None,
    interpolation: str | int = "bspline",
    anchor: str = "first",
    boundary: str | None = None,
    antialias: bool | float | Sequence[float] = False,
    default_value: float = 0,
    rounding: str = "nearest",
    convention: str | None = None,
    dtype: npt.DTypeLike | None = None,
    device: str = "auto",
) -> Plan:
    """Everything about a resampling but the voxels: made once, run on many images.

    Parameters
    ----------
    image_or_shape : SimpleITK.Image, Volume, nibabel image, array, or sequence of int
        An image of the kind to come, or the shape of a bare array; voxels of a shape are float32, or `dtype` if
        that is given. The other parameters are those of `resample`.

    Returns
    -------
    Plan
        `run` it on images; `input_region` and `crop` serve tiles.

    Raises
    ------
    ValueError, TypeError
        As `resample`.
    """
    container: Container
    if isinstance(image_or_shape, (tuple, list)):
        shape = sizes("image_or_shape", image_or_shape, len(image_or_shape))
        voxels = output_dtype(np.dtype(np.float32), dtype)
        container = ArrayContainer.of_shape(shape, input_spacing, voxels)
    else:
        container = unwrap(image_or_shape, input_spacing, lazy=True)
    return _plan(
        container, spacing, size, like, transform, interpolation, anchor, boundary, antialias, default_value,
        rounding, convention, dtype, device,
    )  # fmt: skip


def _plan(
    container: Container,
    spacing: object,
    size: object,
    like: object,
    transform: object,
    interpolation: str | int,
    anchor: str,
    boundary: str | None,
    antialias: object,
    default_value: object,
    rounding: str,
    convention: str | None,
    dtype: npt.DTypeLike | None,
    device: str,
) -> Plan:
    f = get_filter(interpolation)
    if convention is not None:
        c = conventions.check(
            convention, anchor=anchor, boundary=boundary, antialias=antialias, rounding=rounding, interpolation=f.name,
            spacing=spacing, size=size, like=like, transform=transform,
        )  # fmt: skip
        if c.name != "simpleitk":
            return _by_convention(c, container, spacing, size, f, default_value, dtype, device)
        rounding = c.rounding
    source, d = container.grid, container.grid.dimension
    if boundary is not None:
        one_of("boundary", boundary, BOUNDARIES)
    one_of("rounding", rounding, ROUNDINGS)
    engines.check_device(device)
    target = _target(container, spacing, size, like, anchor, transform is not None)
    volumes = math.prod(container.shape[:-d])
    moved = () if transform is None else resolve(transform, target, container.kind == "array", volumes)
    output = output_dtype(container.dtype, dtype)
    blur = _antialias(container, antialias, f.method, d)
    store = Store(default_for(default_value, output), rounding)
    engines.select(device, container.where)
    check_memory(container, container.output_shape(target), output, f"size {container.order(target.size)}")
    precision = precision_of(container.dtype, output)
    if rounding == "truncate" and output.kind in "iu" and f.name in ("linear", "bspline1"):
        # Two-tap filters often land on a voxel but for the last bit, and truncation makes a whole unit of it.
        precision = "exact"
    work = planner.make_work(source, target, moved, f.name, boundary, blur, precision)
    if moved and isinstance(work, Gather):
        planner.warn_if_nowhere(work)
    return Plan(source, target, container.dtype, output, device, work, store, precision, f.method != "linear")


def _by_convention(
    c: Convention,
    container: Container,
    spacing: Any,
    size: Any,
    f: Filter,
    default_value: object,
    dtype: npt.DTypeLike | None,
    device: str,
) -> Plan:
    """A plan that follows another library."""
    source, d = container.grid, container.grid.dimension
    spacing = None if spacing is None else container.order(positive_numbers("spacing", spacing, d))
    size = None if size is None else container.order(sizes("size", size, d))
    target = conventions.grid(c, source, spacing, size)
    output = output_dtype(
        container.dtype, conventions.output_type(c, container.dtype, f.name) if dtype is None else dtype
    )
    blur = conventions.check_blur(c, source, target, f.name, container.dtype)
    store = Store(default_for(default_value, output), c.rounding)
    check_memory(container, container.output_shape(target), output, f"size {container.order(target.size)}")
    engines.select(device, container.where)
    precision = precision_of(container.dtype, output)
    where = conventions.positions(c, source, target, f.name, container.dtype)
    if where is None:
        work = planner.make_work(source, target, (), f.name, c.boundary, blur, precision)
    else:
        # Inside is everything: these libraries keep the extent, and samples beyond a voxel's centre follow the border.
        rule = "mirror" if c.boundary == "constant" else c.boundary
        sigma = [max(0.0, (n / m - 1.0) / 2.0) for n, m in zip(source.size, target.size, strict=True)]
        responses = tuple(gaussian_response(s if blur else 0.0) for s in sigma)
        work = planner.sampled(where, source, f, rule, responses, precision)
    clip = c.clip and f.spline_order > 1
    copies = f.method != "linear"
    return Plan(source, target, container.dtype, output, device, work, store, precision, copies, clip=clip)


def _target(container: Container, spacing: Any, size: Any, like: Any, anchor: str, has_transform: bool) -> Grid:
    source, d = container.grid, container.grid.dimension
    if like is not None:
        for name, value, given in (
            ("spacing", spacing, spacing is not None),
            ("size", size, size is not None),
            ("anchor", anchor, anchor != "first"),
        ):
            if given:
                raise ValueError(f"like gives the whole grid; it cannot be combined with {name}={value!r}")
        grid = grid_of(like, d)
        if isinstance(grid, Grid):
            return grid
        if len(grid) < d:
            raise ValueError(f"like must have at least the image's {d} spatial axes, got shape {grid}")
        return resized(source, None, grid[: -d - 1 : -1], anchor)
    if spacing is not None:
        spacing = container.order(positive_numbers("spacing", spacing, d))
    if size is not None:
        size = container.order(sizes("size", size, d))
    if spacing is None and size is None and has_transform:
        one_of("anchor", anchor, ("first",))
        return source
    return resized(source, spacing, size, anchor)


def output_dtype(source: np.dtype[Any], dtype: npt.DTypeLike | None) -> np.dtype[Any]:
    """The output's voxel type: `dtype` if given and possible, else the input's."""
    if dtype is None:
        return source
    try:
        target = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be a NumPy integer or float type of up to 64 bits, got {dtype!r}") from None
    mask = target == np.bool_ and source == np.bool_
    if (target.kind not in "iuf" or target.itemsize > 8) and not mask:
        raise TypeError(f"dtype must be a NumPy integer or float type of up to 64 bits, got {dtype!r}")
    return target.newbyteorder("=")


def _antialias(container: Container, value: Any, method: str, d: int) -> bool | tuple[float, ...]:
    if value is False or value is None:
        return False
    if method != "linear":
        raise ValueError(
            f"antialias blurs, which labels and copied voxels cannot be; it must be False here, got {value!r}"
        )
    if value is True:
        return True
    if isinstance(value, Real):
        value = (value,) * d
    sigma = numbers("antialias", value, d)
    if min(sigma) < 0:
        raise ValueError(f"antialias must be True, False or sigmas of at least 0, got {value!r}")
    return tuple(container.order(sigma))


def default_for(value: Any, dtype: np.dtype[Any]) -> int | float:
    """The value of voxels outside, if the output's type can hold it."""
    if not isinstance(value, (int, float, np.integer, np.floating, np.bool_)):
        raise TypeError(f"default_value must be a number, got {value!r}")
    if dtype.kind == "f":
        number = float(value)
        if math.isfinite(number) and abs(number) > float(np.finfo(dtype).max):
            raise ValueError(f"default_value must fit the output's type {dtype}, got {value!r}")
        return number
    info_min, info_max = (0, 1) if dtype == np.bool_ else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    if not math.isfinite(value) or value != int(value) or not info_min <= int(value) <= info_max:
        raise ValueError(
            f"default_value must be a whole number from {info_min} to {info_max}, to fit the output's type {dtype}; "
            f"got {value!r}"
        )
    return int(value)
