"""What blurs, shrinking and pyramids share: their arguments, grids that shrink, and the plan of a few tables."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from gpuresample import engines
from gpuresample.checks import WIDEST, check_width, finite, numbers, one_of, shown, whole
from gpuresample.containers import Container, check_memory
from gpuresample.engines.interface import Store
from gpuresample.ops.resample import ROUNDINGS
from gpuresample.planning import planner, taps
from gpuresample.planning.filters import FloatArray
from gpuresample.planning.grid import Grid
from gpuresample.planning.works import Work
from gpuresample.plans import Plan

SIGMA_RULES = ("auto", "skimage", "itk", "cardoso")

# The largest factor: the Gaussian before it is half as wide.
MOST_FACTOR = 2 * WIDEST

# --- arguments -----------------------------------------------------------------------------------------------------


def factors_of(container: Container, value: Any, name: str = "factors") -> tuple[int, ...]:
    """Whole numbers of at least 1 for axes x, y, z."""
    d = container.grid.dimension
    if isinstance(value, Real) and not isinstance(value, bool):
        value = (value,) * d
    values = container.order(numbers(name, value, d))
    if any(v < 1 or v != int(v) for v in values):
        raise ValueError(f"{name} must be whole numbers of at least 1, got {shown(value)}")
    if max(values) > MOST_FACTOR:
        raise ValueError(f"{name} must be at most {MOST_FACTOR}, got {shown(value)}")
    return tuple(int(v) for v in values)


def voxel_sigmas(container: Container, value: Any) -> tuple[float, ...]:
    """Sigma of axes x, y, z in voxels, at least 0."""
    values = sigmas_of(container, value)
    check_width("sigma", values, value)
    return values


def sigmas_of(container: Container, value: Any) -> tuple[float, ...]:
    """Sigma of axes x, y, z, at least 0, as given."""
    d = container.grid.dimension
    if isinstance(value, Real) and not isinstance(value, bool):
        value = (value,) * d
    values: tuple[float, ...] = container.order(numbers("sigma", value, d))
    if min(values) < 0:
        raise ValueError(f"sigma must be at least 0 on every axis, got {shown(value)}")
    return values


def rule_sigma(rule: str, factor: int) -> float:
    """Sigma, in voxels, of the blur before every f-th voxel is kept."""
    if factor == 1:
        return 0.0
    if rule == "itk":
        return factor / 2.0
    if rule == "cardoso":
        return math.sqrt((factor**2 - 1.0) / (8.0 * math.log(2.0)))
    return (factor - 1.0) / 2.0


def count_of(name: str, value: Any, most: int | None = None) -> int:
    """A whole number from 1 to `most`."""
    what = "a whole number of at least 1" if most is None else f"a whole number from 1 to {most}"
    return whole(name, value, what, 1, most)


def check_above_zero(name: str, value: Any) -> None:
    """Refuse what is not a finite number above zero."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be a number above zero, got {value!r}")
    if finite(name, value, "a number above zero") <= 0:
        raise ValueError(f"{name} must be a number above zero, got {value!r}")


# --- grids ---------------------------------------------------------------------------------------------------------


def shrunk(grid: Grid, factors: tuple[int, ...]) -> Grid:
    """The grid of every f-th voxel, `max(1, n // f)` of them, the centre of the field of view kept."""
    size = tuple(max(1, n // k) for n, k in zip(grid.size, factors, strict=True))
    return centred(grid, size, tuple(s * k for s, k in zip(grid.spacing, factors, strict=True)))


def centred(grid: Grid, size: tuple[int, ...], spacing: tuple[float, ...]) -> Grid:
    """A grid of this size and spacing whose centre is `grid`'s, in the order of operations of ITK's Shrink."""
    bare = Grid(size, spacing, grid.origin, grid.direction)
    origin = np.asarray(grid.origin) + (_middle(grid) - _middle(bare))
    return Grid(size, spacing, tuple(origin.tolist()), grid.direction)


def _middle(grid: Grid) -> FloatArray:
    """The grid's centre. ITK adds the origin last here, unlike to whole indices (`Grid.points`)."""
    p = np.zeros(grid.dimension)
    for j in range(grid.dimension):
        p += grid.index_to_point[:, j] * ((grid.size[j] - 1) / 2.0)
    return p + np.asarray(grid.origin)


# --- plans ---------------------------------------------------------------------------------------------------------


def planned_tables(
    container: Container,
    target: Grid,
    tables: list[taps.TapTable],
    output: np.dtype[Any],
    rounding: str,
    device: str,
    precision: str,
    *,
    exact: bool = False,
    divisor: int = 1,
) -> Plan:
    """The plan of one table for each of the axes (z,) y, x."""
    work = planner.along_axes(tables, precision)
    return planned(container, target, work, output, rounding, device, exact=exact, divisor=divisor)


def planned(
    container: Container,
    target: Grid,
    work: Work,
    output: np.dtype[Any],
    rounding: str,
    device: str,
    *,
    exact: bool = False,
    divisor: int = 1,
) -> Plan:
    """The plan of a work, its arguments checked; `exact` and `divisor` are those of a `Store`."""
    one_of("rounding", rounding, ROUNDINGS)
    engines.check_engine(device, container.where)
    check_memory(container, container.output_shape(target), output, f"size {container.order(target.size)}")
    store = Store.of(output, rounding=rounding, exact=exact, divisor=divisor)
    return Plan(container.grid, target, container.dtype, output, device, work, store)
