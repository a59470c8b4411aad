"""From grids to work: tap tables, their order, and what a block of the output needs.

Planning is pure: it looks at geometry and options, never at voxels. What it makes is read-only and cached.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, reduce

import numpy as np

from gpuresample.caching import kept, on_clear
from gpuresample.installation import callers_level
from gpuresample.memory import check_room
from gpuresample.planning import taps, transforms
from gpuresample.planning.filters import FILTERS, FLOAT32_CELLS, Filter, FloatArray, gaussian_response, polynomials
from gpuresample.planning.grid import Grid
from gpuresample.planning.maps import AxisMap, map_indices, runs_along
from gpuresample.planning.taps import TapTable
from gpuresample.planning.transforms import Transform, route, source_box
from gpuresample.planning.works import RULES, Branch, Gather, Linear, Majority, Range, Route, Separable, Work

# Half-open ranges along z, y, x.
Block = tuple[Range, Range, Range]
Pair = tuple[float, float]

# Relative cost of one tap and of touching one sample, per destination sample of a pass: fitted to the timings
# that `python -m benchmarks.orders` prints.
TAP_COST = 1.0
TOUCH_COST = 3.0
X_TOUCH_COST = 12.0  # a wide pass along x transposes its rows there and back

# Gathers that are kept, by what was asked.
KEPT_GATHERS = 32


def make_work(
    source: Grid,
    target: Grid,
    transforms: tuple[Transform, ...],
    interpolation: str,
    boundary: str | None,
    antialias: bool | tuple[float, ...],
    precision: str,
    margin: float = 0.0,
) -> Work:
    """The work that resamples `source` onto `target`.

    Parameters
    ----------
    source, target : Grid
    transforms : tuple of Transform
        From points of `target`'s space to `source`'s: none, one, or one for each volume of a batch.
    interpolation : str
        A key of `filters.FILTERS`.
    boundary : str or None
        See `taps.build`.
    antialias : bool or tuple of float
        False, True (sigma (step - 1) / 2 on source axes that are sampled more coarsely than 1), or a sigma for
        every source axis x, y, z, in source voxels.
    precision : {"single", "double", "uncut"}
        What tables are cut for, see `taps.build`.
    margin : float
        Voxels of the source by which its inside is taken to be larger on every side.
    """
    f = FILTERS[interpolation]
    if len(transforms) <= 1 and f.method != "vote" and runs_along(target, source, *transforms):
        return _tables(source, target, transforms, interpolation, boundary, antialias, precision, margin)
    # A work keeps its lattices alive, which may be larger than the image: those are not kept.
    make = _kept_gather if all(t.is_linear for t in transforms) else _gather
    return make(source, target, transforms, interpolation, boundary, antialias, precision, margin)


@kept
def _tables(
    source: Grid,
    target: Grid,
    transforms: tuple[Transform, ...],
    interpolation: str,
    boundary: str | None,
    antialias: bool | tuple[float, ...],
    precision: str,
    margin: float,
) -> Separable:
    """`make_work` for grids whose axes run along each other's."""
    where = map_indices(target, source, *transforms)
    assert where is not None
    blur = tuple(gaussian_response(s) for s in _sigmas(_steps(where), antialias))
    return sampled(where, source, FILTERS[interpolation], boundary, blur, precision, margin)


def _gather(
    source: Grid,
    target: Grid,
    transforms: tuple[Transform, ...],
    interpolation: str,
    boundary: str | None,
    antialias: bool | tuple[float, ...],
    precision: str,
    margin: float,
) -> Gather:
    """`make_work` for all others, and for votes."""
    routes = tuple(route(target, source, t) for t in transforms or (None,))
    sigmas = _sigmas(_footprint(routes) if antialias is True else np.ones(target.dimension), antialias)
    work = _neighbourhood(source.size, interpolation, boundary, sigmas, precision, margin)
    return replace(work, routes=routes, n_dst=_three([1] * (3 - target.dimension) + list(target.size[::-1])))


# Small: matrices, and what is kept of `_neighbourhood` anyway. A loader draws another matrix for every call.
_kept_gather = lru_cache(maxsize=KEPT_GATHERS)(_gather)
on_clear(_kept_gather.cache_clear)


def _steps(where: AxisMap) -> FloatArray:
    """How far samples are apart along source axes x, y, z."""
    step = np.ones(len(where.x))
    for axis, x in zip(where.source_axis, where.x, strict=True):
        step[axis] = abs(x[1] - x[0]) if x.size > 1 else 1.0
    return step


def _footprint(routes: tuple[Route, ...]) -> FloatArray:
    """A destination voxel's footprint along source axes x, y, z: its three edges, added in quadrature."""
    if len(routes) > 1 or not routes[0].lines:
        raise ValueError(
            "antialias=True has no one sigma for a deforming transform or several; give a sigma per axis instead"
        )
    only = routes[0].stages[0]
    assert isinstance(only, Linear)
    footprint: FloatArray = np.sqrt(((routes[0].inverse @ only.matrix @ routes[0].step) ** 2).sum(axis=1))
    return footprint


def _sigmas(step: FloatArray, antialias: bool | tuple[float, ...]) -> tuple[float, ...]:
    """Sigmas of the antialiasing Gaussian along source axes x, y, z, where samples are `step` apart; 0 for none."""
    if antialias is False:
        return (0.0,) * step.size
    if antialias is not True:
        return antialias
    return tuple(max(0.0, (s - 1.0) / 2.0) for s in step.tolist())


def sampled(
    where: AxisMap,
    source: Grid,
    f: Filter,
    boundary: str | None,
    blur: tuple[FloatArray | None, ...],
    precision: str,
    margin: float = 0.0,
) -> Separable:
    """Sampling `source` at `where` with filter `f`, after a blur (see `taps.build`) along its axes x, y, z.

    `margin`: see `make_work`.
    """
    d = source.dimension
    insides: dict[int, Range] = {}
    needed = 0
    for axis in range(d):
        x, n = where.x[where.source_axis.index(axis)], source.size[axis]
        rows = taps.inside(x, n, boundary, margin)
        insides[axis] = (int(rows.argmax()), x.size - int(rows[::-1].argmax())) if rows.any() else (0, 0)
        needed += taps.table_bytes(f, insides[axis][1] - insides[axis][0], n, blur[axis], precision)
    check_room(needed, f"an output of size {tuple(x.size for x in where.x)} asks for tables of weights")
    tables: list[TapTable] = []
    dst_axis: list[int] = []
    n_dst: list[int] = []
    start: list[int] = []
    for axis in reversed(range(d)):  # source axes as arrays have them: z, y, x
        out = where.source_axis.index(axis)
        x, n = where.x[out], source.size[axis]
        lo, hi = insides[axis]
        tables.append(taps.build(f, x[lo:hi], n, boundary=boundary, blur=blur[axis], precision=precision))
        dst_axis.append(2 - out)
        n_dst.append(x.size)
        start.append(lo)
    if d == 2:
        tables.insert(0, identity_table(1))
        dst_axis.insert(0, 0)
        n_dst.insert(0, 1)
        start.insert(0, 0)
    t = (tables[0], tables[1], tables[2])
    sums = taps.sums_for(precision)
    return Separable(t, pass_order(t), _three(dst_axis), _three(n_dst), _three(start), sums)


def along_axes(tables: list[TapTable], precision: str) -> Separable:
    """One table for each of the axes (z,) y, x, nothing transposed and nothing outside."""
    whole = [identity_table(1)] * (3 - len(tables)) + tables
    t = (whole[0], whole[1], whole[2])
    return Separable(t, pass_order(t), (0, 1, 2), _three([k.n_dst for k in t]), (0, 0, 0), precision)


@kept
def adjoint(work: Separable) -> Separable:
    """The work of the transposed matrix: from an array on the destination's grid to one on the source's.

    `<work(x), y> = <x, adjoint(work)(y)>` for every x and y, where voxels outside count as zero. Which engine runs it
    makes no difference: it is tables again, and the order of every sum is fixed.
    """
    tables = [identity_table(1)] * 3
    back = [0, 0, 0]
    for axis, out in enumerate(work.dst_axis):
        tables[out] = work.tables[axis].transpose(work.n_dst[axis], work.start[axis])
        back[out] = axis
    t = (tables[0], tables[1], tables[2])
    return Separable(t, pass_order(t), _three(back), _three([k.n_dst for k in t]), (0, 0, 0), work.precision)


def _three(values: list[int]) -> tuple[int, int, int]:
    a, b, c = values
    return a, b, c


def identity_table(n: int) -> TapTable:
    """The table that changes nothing."""
    return taps.index_table(n, np.arange(n))


def pass_order(tables: tuple[TapTable, TapTable, TapTable]) -> tuple[int, ...]:
    """Source axes in the cheapest order of application; axes whose table changes nothing are left out.

    x never comes first of three: its pass turns rows, which is best done on the fewest of them.
    """
    axes = [axis for axis, t in enumerate(tables) if not t.is_identity]
    orders = [o for o in itertools.permutations(axes) if len(o) < 3 or o[0] != 2]
    return min(orders, key=lambda order: pass_cost(tables, order))


def pass_cost(tables: tuple[TapTable, TapTable, TapTable], order: tuple[int, ...]) -> float:
    """Estimated cost of the passes in this order."""
    cost = 0.0
    for axis, samples, mean_taps in passes(tables, order):
        touch = X_TOUCH_COST if axis == 2 and tables[axis].n_taps > 1 else TOUCH_COST
        cost += samples * (TAP_COST * mean_taps + touch)
    return cost


def passes(tables: tuple[TapTable, TapTable, TapTable], order: tuple[int, ...]) -> Iterator[tuple[int, int, float]]:
    """Axis, samples made and mean taps of each, of every pass in this order."""
    size = [t.n_src for t in tables]
    for axis in order:
        t = tables[axis]
        size[axis] = t.n_dst
        yield axis, math.prod(size), float(t.count.mean() if t.n_dst else 0.0)


@kept
def _neighbourhood(
    size: tuple[int, ...],
    interpolation: str,
    boundary: str | None,
    sigmas: tuple[float, ...],
    precision: str,
    margin: float,
) -> Gather:
    """A gather from a source of `size` x, y(, z) that leads nowhere yet: all of it but routes and output."""
    f, d = FILTERS[interpolation], len(size)
    n_src = (1,) * (3 - d) + size[::-1]
    if f.spline_order > 3 and precision == "single":
        # Coefficients of these orders swing 20 to 60 times as far as the voxels: float32 would leave the contract.
        precision = "double"
    rule = taps.border_rule(f, boundary)
    coefficients, offset = polynomials(f.name)
    blur = tuple(gaussian_response(s) for s in sigmas)
    # Past the border, coefficients of a line that goes on as its last voxel are not the last coefficient; they
    # are computed until they settle.
    endless = rule == taps.ENDLESS
    pad = max(taps.response_radius(f.spline_order, precision, s) for s in blur) if rule == "nearest" or endless else 0
    if endless:
        # As far as taps reach once coefficients are nothing: from there on the last one, which is nothing, is repeated.
        pad, rule = pad + coefficients.shape[1], "nearest"
    # The axis that a picture does not have has no border.
    borders = [taps.ENDLESS if endless and k >= 3 - d else taps.blur_rule(rule) for k in range(3)]
    box = tuple(taps.inside_box(n, boundary, margin) for n in n_src)
    prefilter = None
    if f.spline_order > 1 or endless or any(s is not None for s in blur):
        tables = [
            taps.prefilter_table(f.spline_order, n, border, precision, blur=s, pad=pad)
            for n, s, border in zip(n_src, (*([None] * (3 - d)), *blur[::-1]), borders, strict=True)
        ]
        prefilter = _prefilter(tables, taps.sums_for(precision))
        n_src = prefilter.n_dst
    return Gather(
        routes=(),
        n_dst=(0, 0, 0),
        method=f.name if f.method == "vote" else f.method,
        prefilter=prefilter,
        coefficients=coefficients,
        shift=f.shift,
        offset=offset + pad,
        narrow=f.spline_order in (1, 2) and max(n_src) < FLOAT32_CELLS,
        n_src=_three(list(n_src)),
        base=(0, 0, 0),
        box=box,
        rule=RULES[rule],
        normalise=f.border == "crop",
        precision=taps.sums_for(precision),
    )


def _prefilter(tables: list[TapTable], precision: str) -> Separable:
    """The work that makes all samples of three tables, axis by axis in the order z, y, x."""
    order = tuple(axis for axis, table in enumerate(tables) if not table.is_identity)
    n = _three([table.n_dst for table in tables])
    return Separable((tables[0], tables[1], tables[2]), order, (0, 1, 2), n, (0, 0, 0), precision)


def gather(source: Grid, target: Grid, interpolation: str, boundary: str | None, precision: str) -> Gather:
    """The gather of `source` onto `target` even where tables would do it; its route, the identity, is to be replaced.

    Parameters are those of `make_work`.
    """
    return _kept_gather(source, target, (), interpolation, boundary, False, precision, 0.0)


def input_region(work: Work, block: Block) -> Block:
    """The part of the source (z, y, x) that destination voxels `block` (z, y, x) need; at least one voxel."""
    if isinstance(work, Gather):
        return _gather_region(work, block)
    if isinstance(work, Majority):
        (z, y, x), (fz, fy, fx) = block, work.block
        return (z[0] * fz, z[1] * fz), (y[0] * fy, y[1] * fy), (x[0] * fx, x[1] * fx)
    out = _table_region(work, block)
    for branch in work.shortcut:
        out = _union(out, _table_region(branch.first, _coarse_block(branch, block)))
    return out


def _table_region(work: Separable, block: Block) -> Block:
    """The part of the source that the tables of a block read."""
    out = []
    for axis, t in enumerate(work.tables):
        lo, hi = _inside_rows(work, axis, block)
        out.append(t.source_range(lo, hi) if hi > lo else (0, 1))
    return out[0], out[1], out[2]


def _union(a: Block, b: Block) -> Block:
    """The smallest block around two."""
    z, y, x = ((min(p[0], q[0]), max(p[1], q[1])) for p, q in zip(a, b, strict=True))
    return z, y, x


def _chain_blocks(chain: tuple[Separable, ...], block: Block) -> list[Block]:
    """What every step of a chain must make for a block of its result, the chain's own source first."""
    blocks = [block]
    for step in reversed(chain):
        blocks.insert(0, _table_region(step, blocks[0]))
    return blocks


def _coarse_block(branch: Branch, block: Block) -> Block:
    """What the first step of a branch must make for a block of the result."""
    end = _table_region(branch.last, block)
    return reduce(_union, [_chain_blocks(chain, end)[0] for chain in branch.middle])


def _inside_rows(work: Separable, axis: int, block: Block) -> Range:
    """Rows of a source axis's table that a destination block asks for."""
    lo, hi = block[work.dst_axis[axis]]
    n = work.tables[axis].n_dst
    return min(max(lo - work.start[axis], 0), n), max(min(hi - work.start[axis], n), 0)


def crop(work: Work, block: Block) -> Work:
    """The work of a destination block (z, y, x), on the source's `input_region`: the same bits as the whole."""
    if isinstance(work, Gather):
        return _crop_gather(work, block)
    if isinstance(work, Majority):
        return replace(work, n_dst=_three([hi - lo for lo, hi in block]))
    if not work.shortcut:
        return _crop_tables(work, block)
    region = input_region(work, block)
    shortcut = tuple(_crop_branch(branch, block, region) for branch in work.shortcut)
    return replace(_crop_tables(work, block, region), shortcut=shortcut)


def _crop_tables(work: Separable, block: Block, within: Block | None = None) -> Separable:
    """The tables of a block, on the part `within` of the source: what they read unless given."""
    tables, n_dst, start = [], [], []
    for axis, t in enumerate(work.tables):
        lo, hi = _inside_rows(work, axis, block)
        first, last = block[work.dst_axis[axis]]
        part = None if within is None else within[axis]
        tables.append(t.crop(lo, hi, part) if hi > lo else TapTable(1, t.first[:0], t.count[:0], t.weight[:0]))
        n_dst.append(last - first)
        start.append(max(work.start[axis] - first, 0) if hi > lo else 0)
    cropped = (tables[0], tables[1], tables[2])
    return replace(work, tables=cropped, n_dst=_three(n_dst), start=_three(start))


def _crop_branch(branch: Branch, block: Block, region: Block) -> Branch:
    """A shortcut's branch for a block of the result, on the part `region` of the source: step by step, from the end."""
    end = _table_region(branch.last, block)
    start = _coarse_block(branch, block)
    middle = []
    for chain in branch.middle:
        blocks = _chain_blocks(chain, end)
        # Chains share their source: each takes its part out of what all of them need.
        sources = [start, *blocks[1:-1]]
        assert chain or start == end
        middle.append(
            tuple(_crop_tables(s, made, read) for s, made, read in zip(chain, blocks[1:], sources, strict=False))
        )
    return Branch(_crop_tables(branch.first, start, region), tuple(middle), _crop_tables(branch.last, block, end))


def _coordinate_range(work: Gather, block: Block) -> list[tuple[float, float]]:
    """Bounds of the source coordinates z, y, x of a block's voxels, inside the box; lo > hi if none can be."""
    boxes = np.array([source_box(route, block) for route in work.routes])
    lo, hi = boxes[:, :, 0].min(axis=0).tolist(), boxes[:, :, 1].max(axis=0).tolist()
    return [(max(a, b[0]), min(c, b[1])) for a, c, b in zip(lo, hi, work.box, strict=True)]


def table_bytes(work: Separable | Gather) -> int:
    """Bytes of the tables along a work's axes."""
    along = work if isinstance(work, Separable) else work.prefilter
    return 0 if along is None else sum(t.first.nbytes + t.count.nbytes + t.weight.nbytes for t in along.tables)


def reaches(work: Separable | Gather) -> bool:
    """Whether a voxel of the target may lie on the source."""
    if isinstance(work, Separable):
        return all(t.n_dst > 0 for t in work.tables)
    return (_kept_reach if all(route.lines for route in work.routes) else _reach)(work)


def _reach(work: Gather) -> bool:
    return any(transforms.reaches(route, work.n_dst, work.box) for route in work.routes)


_kept_reach = lru_cache(maxsize=KEPT_GATHERS)(_reach)
on_clear(_kept_reach.cache_clear)


def warn_if_nowhere(work: Work) -> None:
    """Warn of a path that leads nowhere near the image."""
    if not isinstance(work, Majority) and not reaches(work):
        warnings.warn(
            "transform leads nowhere near the image: the whole output is the default value",
            RuntimeWarning,
            stacklevel=callers_level(),
        )


def is_apart(source: Grid, target: Grid) -> bool:
    """Whether a grid has no voxel on the image."""
    work = make_work(source, target, (), "nearest", None, False, "single")
    return not isinstance(work, Majority) and not reaches(work)


def warn_if_apart(source: Grid, target: Grid) -> None:
    """Warn of a grid with no voxel on the image."""
    if is_apart(source, target):
        warnings.warn(
            f"like lies nowhere near the image, so nothing of the image is in the output: the image is {source}, "
            f"like is {target}",
            RuntimeWarning,
            stacklevel=callers_level(),
        )


def _tap_region(work: Gather, block: Block) -> list[Range]:
    """Range z, y, x of (prefiltered) samples that a block's taps touch, in the array at hand."""
    width = work.coefficients.shape[1]
    boundary = {number: word for word, number in RULES.items()}[work.rule]
    rule = "nearest" if boundary == "crop" else boundary
    out = []
    for (lo, hi), n, base in zip(_coordinate_range(work, block), work.n_src, work.base, strict=True):
        if not lo <= hi:
            return [(0, 1)] * 3
        if rule in taps.CYCLIC and not 0.0 <= lo <= hi <= n - 1.0 - width:
            out.append((0, n))  # its other end, too
            continue
        low, high = _brought(lo, hi, n, rule)
        # One voxel of slack: bounds may be off by a rounding.
        first = math.floor(low + work.shift) + work.offset - 1
        last = math.floor(high + work.shift) + work.offset + width + 1
        if rule == "nearest":
            # Beyond the line kernels read its last samples, those of no weight too.
            first, last = min(first, n - width), max(last, width)
        samples = taps.fold(np.arange(first, last), n, rule) - base
        out.append((int(samples.min()), int(samples.max()) + 1))
    return out


def _brought(lo: float, hi: float, n: int, rule: str) -> Pair:
    """A range of positions, as far away as it may be, as one near a line of `n` samples that meets the same of them."""
    far = 4.0 * n + 64.0
    if rule == "nearest" or not (math.isfinite(lo) and math.isfinite(hi)):
        return min(max(lo, -far), far), min(max(hi, -far), far)
    period = 2.0 * n if rule == "reflect" else max(2.0 * (n - 1), 1.0)
    turns = math.floor(lo / period) * period
    return lo - turns, min(hi - turns, far)


def _gather_region(work: Gather, block: Block) -> Block:
    region = _tap_region(work, block)
    if work.prefilter is not None:
        region = [t.source_range(lo, hi) for t, (lo, hi) in zip(work.prefilter.tables, region, strict=True)]
    return region[0], region[1], region[2]


def _crop_gather(work: Gather, block: Block) -> Gather:
    (z0, z1), (y0, y1), (x0, x1) = block
    region = _tap_region(work, block)
    prefilter = work.prefilter
    if prefilter is not None:
        cropped = [t.crop(lo, hi) for t, (lo, hi) in zip(prefilter.tables, region, strict=True)]
        prefilter = _prefilter(cropped, prefilter.precision)
    return replace(
        work,
        routes=tuple(route.moved(x0, y0, z0) for route in work.routes),
        n_dst=(z1 - z0, y1 - y0, x1 - x0),
        prefilter=prefilter,
        base=_three([b + lo for b, (lo, _) in zip(work.base, region, strict=True)]),
    )
