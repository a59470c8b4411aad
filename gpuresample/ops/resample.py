"""`resample` and `plan`: arguments to grids to a plan. No voxel is touched here."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample import engines
from gpuresample.caching import Recent, Remembered
from gpuresample.checks import check_width, numbers, one_of, positive_numbers, shown, sizes
from gpuresample.containers import (
    ArrayContainer,
    Container,
    ImageContainer,
    VolumeContainer,
    check_memory,
    grid_like,
    parts,
    unwrap,
)
from gpuresample.engines import renormalised
from gpuresample.engines.interface import Store
from gpuresample.memory import ALWAYS_FITS
from gpuresample.ops import complexes
from gpuresample.ops.transforms import resolve, spelt_out
from gpuresample.planning import conventions, planner
from gpuresample.planning.conventions import Convention
from gpuresample.planning.filters import Filter, gaussian_response, get_filter
from gpuresample.planning.grid import Grid, resized
from gpuresample.planning.taps import BOUNDARIES, CYCLIC, ENDLESS
from gpuresample.planning.transforms import Transform
from gpuresample.planning.works import Majority
from gpuresample.plans import Execute, Plan, execute_all, precision_of

ROUNDINGS = ("nearest", "truncate")


def resample(
    image: Any,
    *,
    spacing: float | Sequence[float] | None = None,
    size: Sequence[int] | None = None,
    like: Any = None,
    input_spacing: float | Sequence[float] | None = None,
    transform: Any = None,
    interpolation: str | int | Sequence[str | int] = "bspline",
    anchor: str = "first",
    boundary: str | None = None,
    antialias: bool | float | Sequence[float] = False,
    default_value: float | Sequence[float] = 0,
    rounding: str = "nearest",
    convention: str | None = None,
    clip: bool | Sequence[Any] = False,
    scale: float | Sequence[float] = 1.0,
    offset: float | Sequence[float] = 0.0,
    ignore: float | None = None,
    dtype: npt.DTypeLike | Sequence[npt.DTypeLike] | None = None,
    region: Sequence[slice] | None = None,
    device: str = "auto",
    out: Any = None,
) -> Any:
    """Resample an image onto another voxel grid, with SimpleITK's numbers.

    Grids whose axes are parallel are resampled axis by axis, from tables of weights; axes may be swapped or reversed.
    Rotated and deformed grids are resampled voxel by voxel.

    Parameters
    ----------
    image : SimpleITK.Image, Volume, nibabel image or array; or a list of them
        2-D or 3-D, with integer, float or bool voxels. SimpleITK images may be vectors, or 4-D: then every volume
        along the fourth axis is resampled. nibabel images may have 3 and more dimensions. Arrays are (..., z, y, x), or
        (y, x); leading axes are channels or a batch. They may be NumPy or CuPy arrays, or anything that offers DLPack
        (such as torch tensors) or `__cuda_array_interface__`, in host memory or on a GPU. NaN is allowed: it spreads to
        the voxels whose taps meet it (12 voxels for cubic splines; in SimpleITK it spreads to the whole volume). NumPy
        and CuPy arrays may be complex, and are resampled as real and imaginary volumes in one pass. A list
        (an image and its labels, say) comes back as a list; `interpolation`, `default_value`, `clip`, `scale`, `offset`
        and `dtype` may then be lists, too. Images on one grid share the transform: where their voxels lie is found once
        for all of them.
    spacing : float or sequence of float, optional
        New spacing in physical units, in the order of the image's kind: x, y, z for images and volumes, axis order for
        arrays. One number is for all axes. The new size is `round(size * spacing / new_spacing)`, halves to even.
    size : sequence of int, optional
        New size, in the same order. Without `spacing`, the volume keeps its extent.
    like : SimpleITK.Image, Volume, nibabel image, Grid, (shape, affine) or array, optional
        The grid to resample onto; an array gives only its size. A pair is nibabel's: three sizes x, y, z, and a 4x4
        affine to RAS. It excludes `spacing`, `size` and `anchor`.
    input_spacing : float or sequence of float, optional
        Spacing of a bare array, in axis order; 1 unless given.
    transform : SimpleITK.Transform, gpuresample.Affine, DisplacementField, BSpline, Path or matrix; or a list
        Maps points of the output's space to the input's. A matrix has shape (d, d + 1) or (d + 1, d + 1), in the
        container's order and units. A list has one for each volume of a batch or series. Displacement fields and
        B-splines are evaluated where voxels are computed; no field of the output's size is made of them. With nothing
        else given, the grid stays.
    interpolation : str or SimpleITK enumerator
        "nearest", "linear", "bspline" (order 3), "bspline1" to "bspline5", "gaussian", "hamming", "cosine",
        "welch", "lanczos", "blackman", "label_gaussian", "label_linear".
    anchor : {"first", "edge", "center"}
        What stays in place. "first": the centre of the first voxel (SimpleITK recipes). "edge": the volume's outer
        faces (torch with `align_corners=False`, scikit-image). "center": the centres of the corner voxels
        (`scipy.ndimage.zoom`).
    boundary : {None, "nearest", "reflect", "mirror", "constant", "wrap", "grid-wrap", "grid-constant"}
        How the image continues beyond its border. None is SimpleITK's rule: the border voxel is repeated (linear,
        sinc), the image is mirrored (B-splines), or what lies outside is ignored (Gaussian); output voxels that lie
        outside take `default_value`. The other words mean what they mean in SciPy; votes refuse the last three. With
        "grid-constant" the image goes on as samples of `default_value`, and is interpolated with these: then `clip`,
        `scale` and `offset` are for them as for all samples, and it is at most 1e6 in size (integers: 2 ** 32).
    antialias : bool, float or sequence of float
        Blur before sampling. True: by a Gaussian of sigma (step - 1) / 2 input voxels, along axes that get fewer
        voxels. A number is sigma itself, in input voxels; a sequence has one sigma for each axis.
    default_value : float
        Value of voxels outside the input. It must fit the output's type.
    rounding : {"nearest", "truncate"}
        How integer outputs are rounded: to nearest (halves to even), or toward zero as SimpleITK does. Values beyond
        the type's limits become the limit; NaN becomes 0.
    convention : str, optional
        Give what another library's call gives: "simpleitk", "scipy", "skimage", "torch", "monai", "torchio", "nibabel"
        or "nnunet" (`gpuresample.planning.conventions` names the calls). It sets `anchor`, `boundary`, `antialias`,
        `rounding`, how a size follows from a spacing, and the output's type. A keyword that contradicts it is refused.
    clip : bool or (low, high)
        Keep sums, which splines and sincs let overshoot, within a range: True for the range of the volume that they are
        of, or two numbers, which are the input's. What lies outside keeps `default_value`.
    scale : float
        What a sum, clipped or not, is multiplied by before it is rounded and stored: a window and a normalisation on
        the way, without a pass of their own. `clip=(-1000, 400), scale=1 / 1400, offset=1000 / 1400, dtype="float16"`
        makes 0 to 1 of a CT. `default_value` is stored as it is. Copies and votes have neither.
    offset : float
        What is added after that.
    ignore : float, optional
        A value of the input that says "no data", or NaN. Weights are made of the voxels that have data:
        `sum(w v) / sum(w)` over these. Where data have none of the weight, the output is this value, too; with kernels
        that have negative weights (splines, sincs), where data have less than half. "nearest" copies as ever; votes
        refuse it. It takes memory for four more volumes.
    dtype : dtype, optional
        Voxel type of the output; the input's unless given.
    region : sequence of slice, optional
        Which part of the output to make, one slice for each of its spatial axes, in the order of `size`. It has the
        bits of that part of the whole. Only the input that it needs is read, of a memory map, a zarr or dask array, a
        nibabel image or `gpuresample.open_nifti`; along transforms, what a bound of their path says. The result of a
        zarr or dask array is in memory. `Plan.crop` serves many regions of one size.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where to compute. "auto" follows the data: an image on a GPU is resampled there; a large image in host memory
        goes to a GPU if there is one and that should be faster (`gpuresample.engines` has the rule); everything else is
        done on the CPU. "cuda" takes images in host memory to the GPU and back; images on a GPU are not moved.
    out : same kind as `image`, optional
        Where to write the result. It must have the result's size and type, and must not overlap the input.

    Returns
    -------
    SimpleITK.Image, Volume, nibabel image or array
        The same kind as `image`, on the same device, with the new geometry. Arrays that offer nothing but
        `__cuda_array_interface__` come back as CuPy arrays.

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
    request = Request(
        spacing=spacing, size=size, like=like, transform=transform, interpolation=interpolation, anchor=anchor,
        boundary=boundary, antialias=antialias, default_value=default_value, rounding=rounding, convention=convention,
        clip=clip, scale=scale, offset=offset, ignore=ignore, dtype=dtype, device=device,
    )  # fmt: skip
    return carried_out(image, request, input_spacing, region, out)


def carried_out(
    image: Any,
    request: Request,
    input_spacing: Any = None,
    region: Any = None,
    out: Any = None,
    run: Execute = execute_all,
) -> Any:
    """`resample` of a request; `run` is whoever runs the plans."""
    if isinstance(image, (list, tuple)):
        return _several(list(image), input_spacing, request, region, out, run)
    if complexes.is_complex(image):
        return _of_complex(image, input_spacing, request, region, out, run)
    container = unwrap(image, input_spacing, lazy=True)
    key, read = _asked(container, request) if region is None else (None, {})
    made = None if key is None else _known(key, request)
    if made is None:
        request = replace(request, **read)
        made = _plan(container, request, whole=region is None)
        if key is not None:
            _keep(key, request, container, made)
    return run([(*_at(region, image, container, made), out)])[0]


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
    clip: bool | Sequence[float] = False,
    scale: float = 1.0,
    offset: float = 0.0,
    ignore: float | None = None,
    dtype: npt.DTypeLike | None = None,
    device: str = "auto",
) -> Plan:
    """Prepare a resampling: everything except the voxels. It is made once and run on many images.

    Parameters
    ----------
    image_or_shape : SimpleITK.Image, Volume, nibabel image, array, or sequence of int
        An image like those to come, or the shape of an array. For a shape, voxels are float32, or `dtype` if that is
        given. The other parameters are those of `resample`.

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
    request = Request(
        spacing=spacing, size=size, like=like, transform=transform, interpolation=interpolation, anchor=anchor,
        boundary=boundary, antialias=antialias, default_value=default_value, rounding=rounding, convention=convention,
        clip=clip, scale=scale, offset=offset, ignore=ignore, dtype=dtype, device=device,
    )  # fmt: skip
    return _plan(container, request)


def _of_complex(image: Any, input_spacing: Any, request: Request, region: Any, out: Any, run: Execute) -> Any:
    """`resample` of a complex array."""
    nothing = {"clip": False, "offset": 0.0, "ignore": None, "region": None}
    for name, value in nothing.items():
        given = region if name == "region" else getattr(request, name)
        if given != value:
            raise ValueError(f"{name} must be left out for complex voxels, got {shown(given)}")

    def plan_of(container: Container, dtype: np.dtype[Any], default: float) -> Plan:
        return _plan(container, replace(request, dtype=dtype, default_value=default))

    # A transform may have a member for each volume: of which there are twice as many once halves are volumes, too.
    alike = request.transform is None
    return complexes.run(image, out, request.dtype, request.default_value, input_spacing, plan_of, alike, run)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a call of `resample` asks for; see there."""

    like: Any
    transform: Any
    spacing: Any
    size: Any
    interpolation: Any
    anchor: str
    boundary: str | None
    antialias: Any
    default_value: Any
    rounding: str
    convention: str | None
    clip: Any
    scale: Any
    offset: Any
    ignore: Any
    dtype: Any
    device: str


# Keywords that may have one value for each of several images.
EACH = ("interpolation", "default_value", "clip", "scale", "offset", "dtype")


def _at(region: Any, image: Any, container: Container, plan: Plan) -> tuple[Plan, Container]:
    """What makes a region of the output: the plan, and the container of the part of the image that it needs."""
    if region is None:
        return plan, container
    try:
        given = tuple(region) if isinstance(region, Sequence) else (region,)
        block = container.order(given)[::-1]
        plan_of_block = plan.crop(block)
    except (TypeError, ValueError) as error:
        if "dst_slices" not in str(error):
            raise
        d, whole = plan.target.dimension, container.order(plan.target.size)
        raise type(error)(
            f"region must be {d} non-empty slices of step 1 within the output of size {whole}, got {shown(region)}"
        ) from None
    cropped = parts.part(image, container, plan.input_region(block), plan_of_block.source)
    check_memory(cropped, cropped.output_shape(plan_of_block.target), plan.dtype, f"region {shown(region)}")
    return plan_of_block, cropped


def _several(images: list[Any], input_spacing: Any, request: Request, region: Any, out: Any, run: Execute) -> list[Any]:
    """`resample` of several images: a path is resolved, and voxels are located, once for all on one grid."""
    if not images:
        raise ValueError("image must be an image or a list of at least one image, got an empty list")
    n = len(images)
    requests = [replace(request, **{name: value[k] for name, value in _each(request, n).items()}) for k in range(n)]
    outs = [None] * n if out is None else list(out) if isinstance(out, (list, tuple)) else [out]
    if len(outs) != n:
        raise ValueError(f"out must be a list of {n} images, one for each image, got {len(outs)}")
    containers = [unwrap(image, input_spacing, lazy=True) for image in images]
    paths: dict[Any, tuple[Transform, ...]] = {}
    plans = [_plan(c, r, paths, region is None) for c, r in zip(containers, requests, strict=True)]
    made = [_at(region, i, c, p) for i, c, p in zip(images, containers, plans, strict=True)]
    return run([(p, c, o) for (p, c), o in zip(made, outs, strict=True)])


def _each(request: Request, n: int) -> dict[str, list[Any]]:
    """Keywords that have a value for each image."""
    found = {name: list(v) for name in EACH if isinstance(v := getattr(request, name), (list, tuple))}
    if all(isinstance(v, Real) and not isinstance(v, bool) for v in found.get("clip", [])):
        found.pop("clip", None)  # one range for all
    for name, values in found.items():
        if len(values) != n:
            raise ValueError(f"{name} must be one for all images or a list of {n}, one for each, got {len(values)}")
    return found


# Types of which a value's text says all; of containers, those whose plans hang on nothing but what `_asked` names.
_TEXTS = {type(None), bool, int, float, str}
_CONTAINERS = {ArrayContainer, VolumeContainer, ImageContainer}


# What small images are asked for again is planned once, as it takes longer than they do. So is what is asked of images
# on a GPU, whatever their size: tables are then on the device already. Nothing that a call may be refused for, or
# warned of, is passed over: what is kept lies on the image, and depends on no memory that is left. A GPU's memory is
# asked for once more before each output is made.
_plans: Remembered[Plan] = Remembered()
# Along transforms: a loader draws another one for each call, so only the last ones are kept, of tables of so many bytes
# at most.
_moved: Recent[Plan] = Recent(32)
MOST_TABLES = 1 << 20


def _known(key: Hashable, r: Request) -> Plan | None:
    """The plan of a call that came before."""
    return (_plans if r.transform is None else _moved).get(key)


def _keep(key: Hashable, r: Request, container: Container, made: Plan) -> None:
    """Keep the plan of a call that may come again."""
    small = math.prod(container.output_shape(made.target)) * made.dtype.itemsize <= ALWAYS_FITS
    if not small and container.where == "cpu":
        return
    if r.transform is not None:
        work = made.work
        if not isinstance(work, Majority) and planner.table_bytes(work) <= MOST_TABLES and planner.reaches(work):
            _moved.put(key, made)
    elif r.like is None or not planner.is_apart(made.source, made.target):
        _plans.put(key, made)


def _asked(container: Container, r: Request) -> tuple[Hashable | None, dict[str, Any]]:
    """All that a plan hangs on, 0 and -0, 1 and True told apart; None where that cannot be written down.

    And what was read of a transform or of another grid, to be planned in its place.
    """
    like, transform, *others = vars(r).values()
    if type(container) not in _CONTAINERS or not all(type(v) in _TEXTS or _says_all(v) for v in others):
        return None, {}
    if container.dtype.metadata is not None:  # which types that are equal may differ in
        return None, {}
    try:
        text = repr(others)
    except ValueError:  # an integer of more digits than Python will write
        return None, {}
    grid = container.grid
    onto: Hashable = None
    read: dict[str, Any] = {}
    if like is not None:
        onto = grid_like(container, like)
        if isinstance(onto, Grid):
            read["like"] = onto
            onto = onto.size, onto.bits
    if transform is not None:
        spelt = spelt_out(transform, grid, container.kind == "array")
        if spelt is None:
            return None, {}
        onto, read["transform"] = (onto, spelt[0]), spelt[1]
    return (type(container), container.where, container.dtype, container.shape, grid.size, grid.bits, onto, text), read


def _says_all(value: Any) -> bool:
    """Whether the text of a sequence, or of a NumPy type, says all of it."""
    if type(value) in (tuple, list):
        return all(type(v) in _TEXTS for v in value)
    if isinstance(value, np.dtype):
        return value.metadata is None
    # Not a class of somebody's own: several may have one name.
    return isinstance(value, type) and issubclass(value, np.generic) and value.__module__ == "numpy"


def _plan(
    container: Container, r: Request, paths: dict[Any, tuple[Transform, ...]] | None = None, whole: bool = True
) -> Plan:
    """The plan of a request; `paths` are those that were resolved for the images before.

    `whole`: all of the output is to be made, and has to fit into memory.
    """
    f = get_filter(r.interpolation)
    rounding = r.rounding
    if r.convention is not None:
        c = conventions.check(
            r.convention, anchor=r.anchor, boundary=r.boundary, antialias=r.antialias, rounding=rounding,
            interpolation=f.name, spacing=r.spacing, size=r.size, like=r.like, transform=r.transform,
        )  # fmt: skip
        if c.name != "simpleitk":
            return _by_convention(c, container, r, f, whole)
        rounding = c.rounding
    source, d = container.grid, container.grid.dimension
    if r.boundary is not None:
        one_of("boundary", r.boundary, (*BOUNDARIES, *CYCLIC, ENDLESS))
    if f.method == "vote" and r.boundary in (*CYCLIC, ENDLESS):
        raise ValueError(f"boundary must be {BOUNDARIES} or None for interpolation={f.name!r}, got {r.boundary!r}")
    one_of("rounding", rounding, ROUNDINGS)
    engines.check_device(r.device)
    target = _target(container, r)
    moved = _path(container, r.transform, target, {} if paths is None else paths)
    output = output_dtype(container.dtype, r.dtype)
    blur = _antialias(container, r.antialias, f.method, d)
    store, clip, ignore = _storing(container, r, f, output, rounding)
    engines.check_engine(r.device, container.where)
    if whole:
        check_memory(container, container.output_shape(target), output, f"size {container.order(target.size)}")
    precision = precision_of(container.dtype, output)
    boundary, beyond = _beyond(r, f, float(store.default), clip, ignore, "f" in container.dtype.kind + output.kind)
    if beyond:
        store = store.raised(beyond)
        if output.kind == "f":
            precision = "double"  # however far the constant is from the voxels
    if rounding == "truncate" and output.kind in "iu" and f.lands:
        precision = "uncut"
    work = planner.make_work(source, target, moved, f.name, boundary, blur, precision)
    if moved:
        planner.warn_if_nowhere(work)
    elif r.like is not None:
        planner.warn_if_apart(source, target)
    signed = ignore is not None and renormalised.is_signed(work)
    return Plan(source, target, container.dtype, output, r.device, work, store, clip, ignore, signed, beyond)


def _storing(
    container: Container, r: Request, f: Filter, output: np.dtype[Any], rounding: str, clips: bool = False
) -> tuple[Store, bool, float | None]:
    """How sums become voxels, whether they are clipped to their volume's range, and the value that says "no data".

    `clips`: they are, unless a range is given.
    """
    default = default_for(r.default_value, output)
    scale, offset = scaling(r.scale, r.offset, output, f)
    clip = clip_range(r.clip, output, f, (scale, offset)) or clips
    exact = f.method != "sum"
    store = Store.of(output, default, rounding, exact=exact, clip=clip, scale=scale, offset=offset)
    return store, clip is True, no_data(r.ignore, container.dtype, output, f)


# The constant beyond an image that goes on, at most: samples are summed as their distance from it, in float64, and a
# sum's last digit is to stay below what the numeric contract allows.
MOST_BEYOND = {"integers": 2.0**32, "floats": 1e6}


def _beyond(
    r: Request, f: Filter, default: float, clip: bool, ignore: float | None, floats: bool
) -> tuple[str | None, float]:
    """The border that tables and gathers know, and the constant beyond it."""
    if r.boundary != ENDLESS:
        return r.boundary, 0.0
    for name, value, allowed in (("ignore", ignore, ignore is None), ("clip", clip, not clip)):
        if not allowed:
            wanted = "left out" if name == "ignore" else "False or (low, high)"
            raise ValueError(f"{name} must be {wanted} with boundary={ENDLESS!r}, got {shown(value)}")
    if f.method != "sum":
        return None, 0.0  # a copy is of a sample, or of the constant: as SimpleITK's rule has it
    if not math.isfinite(default):
        raise ValueError(f"default_value must be finite with boundary={ENDLESS!r}, got {default}")
    voxels = "floats" if floats else "integers"
    if abs(default) > MOST_BEYOND[voxels]:
        raise ValueError(
            f"default_value must be from {-MOST_BEYOND[voxels]:g} to {MOST_BEYOND[voxels]:g} with boundary={ENDLESS!r} "
            f"of {voxels}, got {default}: what is farther away would drown the image's own digits"
        )
    return ENDLESS, default


def _path(
    container: Container, transform: Any, target: Grid, paths: dict[Any, tuple[Transform, ...]]
) -> tuple[Transform, ...]:
    """The transforms of a call in x, y, z order: none, one, or one for each volume."""
    if transform is None:
        return ()
    key = target, container.kind == "array", math.prod(container.shape[: -target.dimension])
    if key not in paths:
        paths[key] = resolve(transform, *key)
    return paths[key]


def _by_convention(c: Convention, container: Container, r: Request, f: Filter, whole: bool) -> Plan:
    """A plan that follows another library."""
    source, d = container.grid, container.grid.dimension
    conventions.check_type(c, container.dtype, f.name)
    spacing = None if r.spacing is None else container.order(positive_numbers("spacing", r.spacing, d))
    size = None if r.size is None else container.order(sizes("size", r.size, d))
    if r.like is None:
        target = conventions.grid(c, source, spacing, size, container.kind != "array")
    else:
        target = _target(container, r)
    own = conventions.output_type(c, container.dtype, f.name)
    output = output_dtype(container.dtype, own if r.dtype is None else r.dtype)
    blur = conventions.check_blur(c, source, target, f.name, container.dtype)
    store, clip, ignore = _storing(container, r, f, output, c.rounding, c.clip and f.spline_order > 1)
    if whole:
        check_memory(container, container.output_shape(target), output, f"size {container.order(target.size)}")
    engines.check_engine(r.device, container.where)
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
    signed = ignore is not None and renormalised.is_signed(work)
    return Plan(source, target, container.dtype, output, r.device, work, store, clip, ignore, signed)


def _target(container: Container, r: Request) -> Grid:
    source, d = container.grid, container.grid.dimension
    if r.like is not None:
        for name, given in (
            ("spacing", r.spacing is not None), ("size", r.size is not None), ("anchor", r.anchor != "first"),
        ):  # fmt: skip
            if given:
                raise ValueError(f"like gives the whole grid; it cannot be combined with {name}={getattr(r, name)!r}")
        grid = grid_like(container, r.like)
        if isinstance(grid, Grid):
            return grid
        if len(grid) < d:
            raise ValueError(f"like must have at least the image's {d} spatial axes, got shape {grid}")
        return resized(source, None, grid[: -d - 1 : -1], r.anchor)
    spacing = None if r.spacing is None else container.order(positive_numbers("spacing", r.spacing, d))
    size = None if r.size is None else container.order(sizes("size", r.size, d))
    if spacing is None and size is None and r.transform is not None:
        one_of("anchor", r.anchor, ("first",))
        return source
    return resized(source, spacing, size, r.anchor)


def output_dtype(source: np.dtype[Any], dtype: npt.DTypeLike | None) -> np.dtype[Any]:
    """The output's voxel type: `dtype` if given and possible, else the input's."""
    if dtype is None:
        return source
    try:
        target = np.dtype(dtype)
    except (TypeError, ValueError):
        raise TypeError(f"dtype must be a NumPy integer or float type of up to 64 bits, got {shown(dtype)}") from None
    mask = target == np.bool_ and source == np.bool_
    if (target.kind not in "iuf" or target.itemsize > 8) and not mask:
        raise TypeError(f"dtype must be a NumPy integer or float type of up to 64 bits, got {shown(dtype)}")
    return target.newbyteorder("=")


def _antialias(container: Container, value: Any, method: str, d: int) -> bool | tuple[float, ...]:
    if value is False or value is None:
        return False
    if method != "sum":
        raise ValueError(
            f"antialias must be False for interpolations that copy voxels or vote on labels, got {value!r}"
        )
    if value is True:
        return True
    if isinstance(value, Real):
        value = (value,) * d
    sigma = numbers("antialias", value, d)
    if min(sigma) < 0:
        raise ValueError(f"antialias must be True, False or sigmas of at least 0, got {shown(value)}")
    check_width("antialias", sigma, value)
    return tuple(container.order(sigma))


# Where voxels are summed in 32-bit floats, a larger number is infinite.
MOST_SINGLE = float(np.finfo(np.float32).max)


def scaling(scale: Any, offset: Any, dtype: np.dtype[Any], f: Filter) -> tuple[float, float]:
    """What sums are multiplied by, and what is added to them; copies and votes have neither."""
    found = []
    for name, value, none in (("scale", scale, 1.0), ("offset", offset, 0.0)):
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, got {shown(value)}")
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"{name} must be finite, got {shown(value)}")
        if abs(number) > MOST_SINGLE:
            raise ValueError(f"{name} must be from -{MOST_SINGLE:.3g} to {MOST_SINGLE:.3g}, got {shown(value)}")
        if number != none and f.method != "sum":
            raise ValueError(
                f"{name} must be {none:g} for interpolations that copy voxels or vote, such as {f.name!r}; "
                f"got {shown(value)}"
            )
        if number != none and dtype == np.bool_:
            raise ValueError(f"{name} must be {none:g} for bool voxels, which are no numbers; got {shown(value)}")
        found.append(number)
    return found[0], found[1]


def clip_range(
    value: Any, dtype: np.dtype[Any], f: Filter, scaled: tuple[float, float] = (1.0, 0.0)
) -> bool | tuple[float, float]:
    """The range that sums are kept in: True for the input's own, False for none; a copy has nothing to keep."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value) and f.method == "sum"
    if value is None or isinstance(value, (Real, str, bytes)):
        raise TypeError(f"clip must be True, False or (low, high), got {shown(value)}")
    low, high = numbers("clip", value, 2)
    if f.method != "sum":
        raise ValueError(f"clip must be False or True for interpolations that copy voxels or vote, got {shown(value)}")
    if low > high:
        raise ValueError(f"clip must be (low, high) with low <= high, got {shown(value)}")
    if dtype.kind != "f" and scaled == (1.0, 0.0):
        default_for(low, dtype, "clip")
        default_for(high, dtype, "clip")
    return low, high


def no_data(value: Any, source: np.dtype[Any], target: np.dtype[Any], f: Filter) -> float | None:
    """The value that says "no data", if both types can hold it; None for none, and for copies, which keep it anyway."""
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"ignore must be a number, NaN or None, got {shown(value)}")
    if f.name == "nearest":
        return None
    if f.method != "sum":
        raise ValueError(f"ignore is for interpolations that sum, or nearest; got {f.name!r}, which votes")
    is_whole = isinstance(value, (int, np.integer)) or (math.isfinite(value) and value == math.floor(value))
    number: Any = math.floor(value) if is_whole else float(value)
    for name, dtype in (("image", source), ("output", target)):
        if dtype.kind == "f":
            endless = not is_whole and not math.isfinite(number)
            fits = endless or abs(number) <= float(np.finfo(dtype).max)
        elif dtype.kind == "b":
            fits = number in (0, 1)
        else:
            fits = is_whole and np.iinfo(dtype).min <= number <= np.iinfo(dtype).max
        if not fits:
            raise ValueError(f"ignore must be a value that the {name}'s type {dtype} has, got {shown(value)}")
    return number


def default_for(value: Any, dtype: np.dtype[Any], name: str = "default_value") -> int | float:
    """The value of voxels outside, or another one of that `name`, if the output's type can hold it."""
    if not isinstance(value, (int, float, np.integer, np.floating, np.bool_)):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond all floats
        number = None
    if dtype.kind == "f":
        if number is None or (math.isfinite(number) and abs(number) > float(np.finfo(dtype).max)):
            raise ValueError(f"{name} must fit the output's type {dtype}, got {shown(value)}")
        return number
    info_min, info_max = (0, 1) if dtype == np.bool_ else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    if number is None or not math.isfinite(number) or value != int(value) or not info_min <= int(value) <= info_max:
        raise ValueError(
            f"{name} must be a whole number from {info_min} to {info_max}, to fit the output's type {dtype}; "
            f"got {shown(value)}"
        )
    return int(value)
