"""From grids to work: tap tables, their order, and what a block of the output needs.

Planning is pure: it looks at geometry and options, never at voxels. What it makes is read-only and cached.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce

import numpy as np

from gpuresample.caching import kept
from gpuresample.memory import check_room
from gpuresample.planning import taps
from gpuresample.planning.filters import FILTERS, Filter, FloatArray, gaussian_response, polynomials
from gpuresample.planning.grid import Grid
from gpuresample.planning.taps import TapTable
from gpuresample.planning.transforms import AffineMap, AxisMap, FieldMap, Transform, map_indices
from gpuresample.planning.works import RULES, Branch, Gather, Majority, Range, Separable, Work

# Half-open ranges along z, y, x.
Block = tuple[Range, Range, Range]

# Relative cost of one tap and of touching one sample, per destination sample of a pass: fitted to the timings
# that `python -m benchmarks.orders` prints.
TAP_COST = 1.0
TOUCH_COST = 3.0
X_TOUCH_COST = 12.0  # a wide pass along x transposes its rows there and back

# Rows of a box that a deforming transform is evaluated on at once.
FIELD_ROWS = 16


def make_work(
    source: Grid,
    target: Grid,
    transform: Transform | None,
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
    transform : Transform or None
        From points of `target`'s space to `source`'s.
    interpolation : str
        A key of `filters.FILTERS`.
    boundary : str or None
        See `taps.build`.
    antialias : bool or tuple of float
        False, True (sigma (step - 1) / 2 on source axes that are sampled more coarsely than 1), or a sigma for
        every source axis x, y, z, in source voxels.
    precision : {"single", "double"}
        What tables are cut for and sums are made in.
    margin : float
        Voxels of the source by which its inside is taken to be larger on every side.
    """
    make = _cached_work if transform is None or transform.is_linear else _make_work
    return make(source, target, transform, interpolation, boundary, antialias, precision, margin)


def _make_work(
    source: Grid,
    target: Grid,
    transform: Transform | None,
    interpolation: str,
    boundary: str | None,
    antialias: bool | tuple[float, ...],
    precision: str,
    margin: float = 0.0,
) -> Work:
    f = FILTERS[interpolation]
    where = map_indices(target, source, transform)
    blur = _blur(where, target, antialias)
    if isinstance(where, AxisMap) and f.method != "vote":
        return sampled(where, source, f, boundary, blur, precision, margin)
    return _gather(where, source, target, f, boundary, blur, precision, margin)


_cached_work = kept(_make_work)


def _blur(
    where: AxisMap | AffineMap | FieldMap, target: Grid, antialias: bool | tuple[float, ...]
) -> tuple[FloatArray | None, ...]:
    """Weights of the antialiasing Gaussian along source axes x, y, z."""
    d = target.dimension
    if antialias is False:
        return (None,) * d
    if antialias is not True:
        return tuple(gaussian_response(s) for s in antialias)
    step = np.ones(d)
    if isinstance(where, AxisMap):
        for axis, x in zip(where.source_axis, where.x, strict=True):
            step[axis] = abs(x[1] - x[0]) if x.size > 1 else 1.0
    elif isinstance(where, AffineMap):
        # A destination voxel's footprint along a source axis: its three edges, added in quadrature.
        step = np.sqrt(((where.inverse @ where.matrix @ where.step) ** 2).sum(axis=1))
    else:
        raise ValueError("antialias=True has no one sigma for a deforming transform; give a sigma per axis instead")
    return tuple(gaussian_response(max(0.0, (s - 1.0) / 2.0)) for s in step.tolist())


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
        rows = np.flatnonzero(taps.inside(x, n, boundary, margin))
        insides[axis] = (int(rows[0]), int(rows[-1]) + 1) if rows.size else (0, 0)
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
    return Separable(t, pass_order(t), _three(dst_axis), _three(n_dst), _three(start), precision)


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


def _gather(
    where: AxisMap | AffineMap | FieldMap,
    source: Grid,
    target: Grid,
    f: Filter,
    boundary: str | None,
    blur: tuple[FloatArray | None, ...],
    precision: str,
    margin: float,
) -> Gather:
    d = source.dimension
    n_src = (1,) * (3 - d) + source.size[::-1]
    n_dst = (1,) * (3 - d) + target.size[::-1]
    if f.spline_order > 3 and precision == "single":
        # Coefficients of these orders swing 20 to 60 times as far as the voxels: float32 would leave the contract.
        precision = "double"
    rule = taps.border_rule(f, boundary)
    if isinstance(where, AxisMap):
        # Where there is an outside, a position must stay there.
        line = "nearest" if boundary in (None, "constant") else rule
        x = [taps.near(x, source.size[axis], line) for axis, x in zip(where.source_axis, where.x, strict=True)]
        where = AxisMap(where.source_axis, tuple(x))
    coefficients, offset = polynomials(f.name)
    # Past the border, coefficients of a line that goes on as its last voxel are not the last coefficient; they
    # are computed until they settle.
    pad = max(taps.response_radius(f.spline_order, precision, s) for s in blur) if rule == "nearest" else 0
    box = tuple(taps.inside_box(n, boundary, margin) for n in n_src)
    prefilter = None
    if f.spline_order > 1 or any(s is not None for s in blur):
        tables = [
            taps.prefilter_table(f.spline_order, n, taps.blur_rule(rule), precision, blur=s, pad=pad)
            for n, s in zip(n_src, (*([None] * (3 - d)), *blur[::-1]), strict=True)
        ]
        prefilter = (tables[0], tables[1], tables[2])
        n_src = tuple(t.n_dst for t in tables)
    return Gather(
        coordinates=RowCoordinates(where, target, d),
        lines=isinstance(where, AffineMap),
        n0=target.size[0],
        x0=0,
        n_dst=_three(list(n_dst)),
        method=f.name if f.method == "vote" else f.method,
        prefilter=prefilter,
        coefficients=coefficients,
        shift=f.shift,
        offset=offset + pad,
        spline=f.spline_order > 0,
        n_src=_three(list(n_src)),
        base=(0, 0, 0),
        box=box,
        rule=RULES[rule],
        normalise=f.border == "crop",
        precision=precision,
    )


class RowCoordinates:
    """Coordinates of rows of the output, as `Gather.coordinates` wants them; `block` narrows them to a part."""

    def __init__(self, where: AxisMap | AffineMap | FieldMap, target: Grid, dimension: int) -> None:
        self.where, self.target, self.dimension = where, target, dimension
        size = (*target.size, 1)[:3]
        self.start, self.size = (0, 0, 0), size

    def block(self, start: tuple[int, int, int], size: tuple[int, int, int]) -> RowCoordinates:
        """The same for the voxels at x, y, z `start` of the present block, `size` of them."""
        part = object.__new__(RowCoordinates)
        part.where, part.target, part.dimension = self.where, self.target, self.dimension
        part.start, part.size = tuple(a + b for a, b in zip(self.start, start, strict=True)), size  # type: ignore[assignment]
        return part

    def __call__(self, start: int, stop: int) -> FloatArray:
        """See `Gather.coordinates`."""
        rows = np.arange(start, stop)
        x0, y0, z0 = self.start
        n_x, n_y, _ = self.size
        y, z = y0 + rows % n_y, z0 + rows // n_y
        d = self.dimension
        if isinstance(self.where, AffineMap):
            yz = np.stack([y, z], axis=1)[:, : d - 1].astype(np.float64)
            out = np.zeros((rows.size, 2, 3))
            out[:, 0, :d], out[:, 1, :d] = self.where.lines(yz)
            return out
        out = np.zeros((rows.size, n_x, 3))
        if isinstance(self.where, AxisMap):
            index = [np.arange(x0, x0 + n_x)[None, :], y[:, None], z[:, None]]
            for j in range(d):
                out[:, :, self.where.source_axis[j]] = self.where.x[j][index[j]]
            return out
        # A deforming transform is asked in boxes of whole rows that depend on the whole output alone: a tile must
        # meet the same last bits as its neighbours.
        width, height = self.target.size[0], (*self.target.size, 1)[1]
        at = 0
        for plane in np.unique(z).tolist():
            ys = y[z == plane]
            for box in range(int(ys[0]) // FIELD_ROWS, int(ys[-1]) // FIELD_ROWS + 1):
                y_lo, y_hi = box * FIELD_ROWS, min((box + 1) * FIELD_ROWS, height)
                there = self.where.coordinates((0, y_lo, plane)[:d], (width, y_hi - y_lo, 1)[:d])
                there = there.reshape(y_hi - y_lo, width, d)[:, x0 : x0 + n_x]
                there = there[max(int(ys[0]) - y_lo, 0) : int(ys[-1]) + 1 - y_lo]
                out[at : at + len(there), :, :d] = there
                at += len(there)
        return out


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
    """Smallest and largest source coordinate z, y, x of a block's voxels, inside the box; lo > hi if none is."""
    assert isinstance(work.coordinates, RowCoordinates)
    (z0, z1), (y0, y1), (x0, x1) = block
    rows = work.coordinates.block((x0, y0, z0), (x1 - x0, y1 - y0, z1 - z0))
    lo, hi = np.full(3, np.inf), np.full(3, -np.inf)
    n_rows = (y1 - y0) * (z1 - z0)
    if isinstance(rows.where, AffineMap):
        picks = [y + z * (y1 - y0) for y in (0, y1 - y0 - 1) for z in (0, z1 - z0 - 1)]
        ends = np.concatenate([rows(p, p + 1) for p in picks])
        start, end = ends[:, :1], ends[:, 1:]
        first, last = work.x0 + x0, work.x0 + x1 - 1
        points = start + np.array([first, last]).reshape(1, 2, 1) / work.n0 * (end - start)
        lo, hi = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    else:
        step = max(1, (1 << 18) // max(1, x1 - x0))
        for at in range(0, n_rows, step):
            points = rows(at, min(at + step, n_rows))
            lo = np.minimum(lo, points.min(axis=(0, 1)))
            hi = np.maximum(hi, points.max(axis=(0, 1)))
    return [
        (max(a, b[0]), min(c, b[1])) for a, c, b in zip(lo.tolist()[::-1], hi.tolist()[::-1], work.box, strict=True)
    ]


def reaches(work: Gather) -> bool:
    """Whether the target's bounding box, seen from the source, meets the source."""
    n_z, n_y, n_x = work.n_dst
    return all(lo <= hi for lo, hi in _coordinate_range(work, ((0, n_z), (0, n_y), (0, n_x))))


def _tap_region(work: Gather, block: Block) -> list[Range]:
    """Range z, y, x of (prefiltered) samples that a block's taps touch, in the array at hand."""
    width = work.coefficients.shape[1]
    out = []
    boundary = {number: word for word, number in RULES.items()}[work.rule]
    for (lo, hi), n, base in zip(_coordinate_range(work, block), work.n_src, work.base, strict=True):
        if not lo <= hi:
            return [(0, 1)] * 3
        # One voxel of slack: the ends of rows are interpolated, not computed, and may lie an ulp further out.
        first = math.floor(min(max(lo, -taps.FAR), taps.FAR) + work.shift) + work.offset - 1
        last = math.floor(min(max(hi, -taps.FAR), taps.FAR) + work.shift) + work.offset + width
        if boundary in ("nearest", "crop"):
            first, last = min(max(first, 0), n - 1), min(max(last, 0), n - 1)
        elif last - first >= 2 * n or max(-lo, hi) > taps.FAR:  # a period, or wherever a far position is reduced to
            first, last = 0, n - 1
        else:
            samples = taps.fold(np.arange(first, last + 1), n, boundary)
            first, last = int(samples.min()), int(samples.max())
        out.append((first - base, last + 1 - base))
    return out


def _gather_region(work: Gather, block: Block) -> Block:
    region = _tap_region(work, block)
    if work.prefilter is not None:
        region = [t.source_range(lo, hi) for t, (lo, hi) in zip(work.prefilter, region, strict=True)]
    return region[0], region[1], region[2]


def _crop_gather(work: Gather, block: Block) -> Gather:
    assert isinstance(work.coordinates, RowCoordinates)
    (z0, z1), (y0, y1), (x0, x1) = block
    region = _tap_region(work, block)
    prefilter = work.prefilter
    if prefilter is not None:
        cropped = [t.crop(lo, hi) for t, (lo, hi) in zip(prefilter, region, strict=True)]
        prefilter = (cropped[0], cropped[1], cropped[2])
    return replace(
        work,
        coordinates=work.coordinates.block((x0, y0, z0), (x1 - x0, y1 - y0, z1 - z0)),
        x0=work.x0 + x0,
        n_dst=(z1 - z0, y1 - y0, x1 - x0),
        prefilter=prefilter,
        base=_three([b + lo for b, (lo, _) in zip(work.base, region, strict=True)]),
    )
