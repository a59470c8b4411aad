"""Pyramids: a volume at ever coarser grids."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gpuresample import engines
from gpuresample.checks import one_of
from gpuresample.chunked import blocks
from gpuresample.containers import Container, unwrap
from gpuresample.ops.arguments import SIGMA_RULES, count_of, factors_of, planned, planned_tables, voxel_sigmas
from gpuresample.ops.resample import ROUNDINGS
from gpuresample.ops.shrink import bin_plan, binned, downsample_plan, kept
from gpuresample.planning import planner, taps
from gpuresample.planning.filters import FILTERS, discrete_gaussian_response
from gpuresample.planning.grid import Grid
from gpuresample.planning.maps import aligned_map
from gpuresample.plans import Plan, execute, precision_of

KINDS = ("gaussian", "mean", "mode", "label", "itk", "itk_recursive")

# More levels than any volume has: every one halves an axis. Of ITK's, whose blurs are as wide as the factor, fewer.
MOST_LEVELS, MOST_ITK_LEVELS = 64, 21

# What ITK's pyramids let their Gaussians cut off, and the largest radius of these.
ITK_ERROR, ITK_RADIUS = 0.1, 32


def pyramid(
    image: Any,
    levels: int | None = None,
    *,
    factors: int | Sequence[int] | str = 2,
    schedule: Sequence[int | Sequence[int]] | None = None,
    kind: str = "gaussian",
    sigma: str | float | Sequence[float] = "auto",
    rounding: str = "nearest",
    device: str = "auto",
) -> list[Any]:
    """Make a pyramid: the volume at ever coarser grids, blurred and subsampled unless `kind` says otherwise.

    Parameters
    ----------
    image : SimpleITK.Image, Volume, nibabel image or array
        As for `gpuresample.resample`.
    levels : int, optional
        Number of levels, including the image itself; 4, unless `schedule` gives it.
    factors : int, sequence of int, or "isotropic"
        From one level to the next. "isotropic" halves the axes whose spacing is below 1.5 times the finest. So the
        axis of thick slices waits until the other axes have caught up.
    schedule : sequence of int or sequence of sequence of int, optional
        In place of `levels` and `factors`: the factor of every level relative to the image, finest first. Each must be
        a multiple of the one before (for ITK's kinds: not less than the one before). The first is usually 1.
    kind : {"gaussian", "mean", "mode", "label", "itk", "itk_recursive"}
        "gaussian": every level is the level before, blurred and subsampled as by `downsample`, at the centres of the
        blocks of `bin_shrink`. "mean", "mode" and "label": every level is `bin_shrink` of the image by the level's
        whole factor; "mode" is for labels, and "label" for labels whose thin structures must not vanish. "itk" and
        "itk_recursive": the results of itk::MultiResolutionPyramidImageFilter and
        itk::RecursiveMultiResolutionPyramidImageFilter, but finest first (ITK's order is coarsest first). "itk" blurs
        its finest level too; "itk_recursive" keeps the voxels that `shrink` keeps.
    sigma : {"auto", "skimage", "itk", "cardoso"}, float or sequence of float
        Sigma of every step's blur, see `downsample`; only for the kind "gaussian".
    rounding, device
        As for `gpuresample.resample`.

    Returns
    -------
    list
        The levels, finest first. They have the kind and the voxel type of `image`, and each has its own spacing and
        origin: those of blocks of voxels, counted from the first one, whatever the kind. So the levels of an image and
        of its labels lie on the same grids. (Those of "itk_recursive" lie where ITK's Shrink has them.) From level to
        level voxels are kept as floats, so every level is rounded only once. (ITK's filters truncate at every step if
        they are asked for integers; asked for floats, they give these numbers.)

    Raises
    ------
    ValueError, TypeError
        For levels below 1, factors below 1 or not whole, a schedule that is not a chain of multiples.

    Warns
    -----
    RuntimeWarning
        If the levels end early because no axis can shrink any further.
    """
    container = unwrap(image, lazy=True)
    now = image
    result = []
    for level in levels_of(container, levels, factors, schedule, kind, sigma, rounding, device):
        if level.plan is not None:
            source = unwrap(image if level.of_image else now, lazy=True)
            now = execute(level.plan(source), source)
        result.append(blocks.as_lazy(image) if now is image else rounded(now, container.dtype, rounding, device))
    return result


@dataclass(frozen=True)
class Level:
    """How a level is made.

    Attributes
    ----------
    of_image : bool
        From the image; else from the level before, whose voxels are floats still.
    plan : callable or None
        The plan for a container of what it is made from; None if it is the level before, unchanged (the first: the
        image).
    """

    of_image: bool
    plan: Callable[[Container], Plan] | None


def levels_of(
    container: Container,
    levels: int | None,
    factors: int | Sequence[int] | str,
    schedule: Sequence[int | Sequence[int]] | None,
    kind: str,
    sigma: str | float | Sequence[float],
    rounding: str,
    device: str,
) -> list[Level]:
    """The levels of `pyramid`, its arguments checked; no voxel is touched."""
    one_of("kind", kind, KINDS)
    if kind != "gaussian" and not (isinstance(sigma, str) and sigma == "auto"):
        raise ValueError(f'sigma is for kind="gaussian", got sigma={sigma!r} with kind={kind!r}')
    if kind in ("itk", "itk_recursive"):
        return _itk(container, levels, factors, schedule, kind == "itk_recursive", rounding, device)
    steps = steps_of(container, levels, factors, schedule)
    # Checked here too, for levels that need them not.
    one_of("rounding", rounding, ROUNDINGS)
    engines.check_engine(device, container.where)
    if isinstance(sigma, str):
        one_of("sigma", sigma, SIGMA_RULES)
    else:
        voxel_sigmas(container, sigma)
    floats = floats_for(container.dtype)
    total = (1,) * container.grid.dimension
    out = []
    for f, _ in chain(container.grid, steps, 4):
        # Blocks are the image's own: a mode of modes is no mode.
        total = tuple(a * b for a, b in zip(total, f, strict=True))
        if max(f) == 1:
            out.append(Level(False, None))
        elif kind == "gaussian":
            made = partial(
                downsample_plan, factors=container.order(f), sigma=sigma, dtype=floats, device=device, of_blocks=True
            )
            out.append(Level(False, made))
        else:
            out.append(Level(True, partial(bin_plan, factors=container.order(total), reduce=kind, device=device)))
    return out


def floats_for(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The voxels that levels are made of before they are rounded."""
    return np.dtype(np.float64 if precision_of(dtype, dtype) == "double" else np.float32)


def chain(grid: Grid, steps: Sequence[tuple[int, ...] | None], depth: int = 3) -> list[tuple[tuple[int, ...], Grid]]:
    """The factors of every level against the one before, none of which leaves an axis without voxels, and its grid.

    `depth`: how many calls lie between here and the caller's line, for the warning.

    Warns
    -----
    RuntimeWarning
        If the levels end early because no axis can shrink any further.
    """
    out = []
    for number, step in enumerate(steps):
        f = _isotropic(grid) if step is None else step
        f = tuple(min(k, n) for k, n in zip(f, grid.size, strict=True))
        if number > 0 and max(f) == 1 and max(grid.size) == 1:
            warnings.warn(
                f"the pyramid ends after {number} of {len(steps)} levels: no axis can shrink any further",
                RuntimeWarning,
                stacklevel=depth,
            )
            break
        grid = binned(grid, f) if max(f) > 1 else grid
        out.append((f, grid))
    return out


def rounded(level: Any, dtype: np.dtype[Any], rounding: str, device: str) -> Any:
    """A level in a voxel type, as a rule the image's own."""
    now = unwrap(level, lazy=True)
    return level if now.dtype == dtype else execute(rounding_plan(now, dtype, rounding, device), now)


def rounding_plan(container: Container, dtype: np.dtype[Any], rounding: str, device: str) -> Plan:
    """The plan of voxels in another type."""
    tables = [planner.identity_table(n) for n in reversed(container.grid.size)]
    precision = precision_of(container.dtype, dtype)
    return planned_tables(container, container.grid, tables, dtype, rounding, device, precision)


def steps_of(container: Container, levels: int | None, factors: Any, schedule: Any) -> list[tuple[int, ...] | None]:
    """The factor of every level against the one before, in x, y, z order; None for "isotropic"."""
    d = container.grid.dimension
    if schedule is not None:
        steps: list[tuple[int, ...] | None] = []
        before = (1,) * d
        for level in _given(levels, factors, schedule):
            f = factors_of(container, level, "schedule")
            if any(a % b for a, b in zip(f, before, strict=True)):
                raise ValueError(f"schedule must be a chain of multiples, got {schedule!r}")
            steps.append(tuple(a // b for a, b in zip(f, before, strict=True)))
            before = f
        return steps
    n = 4 if levels is None else count_of("levels", levels, MOST_LEVELS)
    step = None if isinstance(factors, str) else factors_of(container, factors)
    if isinstance(factors, str):
        one_of("factors", factors, ("isotropic",))
    return [(1,) * d, *[step] * (n - 1)]


def _given(levels: int | None, factors: Any, schedule: Any) -> Sequence[Any]:
    """A schedule's levels; nothing else may say as much."""
    if levels is not None:
        raise ValueError(f"schedule says how many levels there are; it cannot be combined with levels={levels!r}")
    if isinstance(factors, str) or np.any(np.asarray(factors) != 2):
        raise ValueError(f"schedule says every factor; it cannot be combined with factors={factors!r}")
    if isinstance(schedule, np.ndarray):
        schedule = schedule.tolist()
    if isinstance(schedule, (str, bytes)) or not isinstance(schedule, Sequence) or not schedule:
        raise ValueError(f"schedule must be a non-empty sequence of factors, got {schedule!r}")
    return schedule


def _isotropic(grid: Grid) -> tuple[int, ...]:
    finest = min(grid.spacing)
    return tuple(2 if s < 1.5 * finest else 1 for s in grid.spacing)


# --- ITK's ---------------------------------------------------------------------------------------------------------


def _itk(
    container: Container, levels: int | None, factors: Any, schedule: Any, recursive: bool, rounding: str, device: str
) -> list[Level]:
    """The levels of ITK's two pyramids, finest first. See `pyramid`; source: ITK 5.4."""
    one_of("rounding", rounding, ROUNDINGS)
    engines.check_engine(device, container.where)
    chart = _schedule(container, levels, factors, schedule)
    floats = floats_for(container.dtype)
    linked = recursive and all(
        b % a == 0 for fine, coarse in itertools.pairwise(chart) for a, b in zip(fine, coarse, strict=True)
    )
    out = []
    before = (1,) * container.grid.dimension
    for f in chart:
        if linked:
            ratio = tuple(b // a for a, b in zip(before, f, strict=True))
            widths = tuple(0.5 * r if r > 1 else 0.0 for r in ratio)
            made = partial(_itk_plan, factors=ratio, widths=widths, keeps=True, floats=floats, device=device)
            out.append(Level(False, made if max(ratio) > 1 else None))
            before = f
        else:
            widths = tuple(0.5 * k for k in f)
            made = partial(_itk_plan, factors=f, widths=widths, keeps=recursive, floats=floats, device=device)
            out.append(Level(True, made))
    return out


def _itk_plan(
    container: Container,
    factors: tuple[int, ...],
    widths: tuple[float, ...],
    keeps: bool,
    floats: np.dtype[Any],
    device: str,
) -> Plan:
    """One level: a discrete Gaussian of these sigmas, then every f-th voxel, or a point of ITK's coarser grid."""
    source = container.grid
    precision = precision_of(container.dtype, floats)
    blur = tuple(discrete_gaussian_response(w, ITK_ERROR, ITK_RADIUS) for w in widths)
    if keeps:
        target, index = kept(source, factors)
        tables = []
        for axis in reversed(range(source.dimension)):
            table = taps.smoothing_table(blur[axis], source.size[axis], "nearest")
            i = index[axis]
            tables.append(replace(table, first=table.first[i], count=table.count[i], weight=table.weight[i]))
        return planned_tables(container, target, tables, floats, "nearest", device, precision)
    target = _itk_grid(source, factors)
    where = aligned_map(target, source)
    work = planner.sampled(where, source, FILTERS["linear"], "nearest", blur, precision)
    return planned(container, target, work, floats, "nearest", device)


def _itk_grid(source: Grid, factors: tuple[int, ...]) -> Grid:
    """The grid of a level of ITK's pyramid: the outer faces of the first voxels meet."""
    size = tuple(max(1, n // k) for n, k in zip(source.size, factors, strict=True))
    spacing = tuple(s * k for s, k in zip(source.spacing, factors, strict=True))
    shift = np.reshape(source.direction, (source.dimension,) * 2) @ (np.subtract(spacing, source.spacing) / 2.0)
    return Grid(size, spacing, tuple((np.asarray(source.origin) + shift).tolist()), source.direction)


def _schedule(container: Container, levels: int | None, factors: Any, schedule: Any) -> list[tuple[int, ...]]:
    """The factors of ITK's levels against the image, in x, y, z order, finest first."""
    if schedule is None:
        n = 4 if levels is None else count_of("levels", levels, MOST_ITK_LEVELS)
        step = factors_of(container, factors) if not isinstance(factors, str) else None
        if step is None or any(k != 2 for k in step):
            raise ValueError(f"factors must be 2 for ITK's pyramids, got {factors!r}; say others by schedule")
        return [tuple(2**k for _ in step) for k in range(n)]
    chart = [factors_of(container, level, "schedule") for level in _given(levels, factors, schedule)]
    if any(b < a for fine, coarse in itertools.pairwise(chart) for a, b in zip(fine, coarse, strict=True)):
        raise ValueError(f"schedule must not grow finer from level to level, got {schedule!r}")
    return chart
