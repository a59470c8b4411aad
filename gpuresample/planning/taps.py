"""The tap table: the one place where weights, borders, antialiasing and normalisation are decided.

Along one axis, destination sample `i` is `sum over k < count[i] of weight[i, k] * src[first[i] + k]`. A table
is built once, in float64; engines only multiply and add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpuresample.caching import cached_property
from gpuresample.planning.filters import Filter, FloatArray, IntArray, prefilter_response

BOUNDARIES = ("nearest", "reflect", "mirror", "constant")
# Those that begin again at the other end.
CYCLIC = ("wrap", "grid-wrap")
# Samples of a constant, as many as anything asks for. Tables leave them out: whoever runs them takes the constant from
# all samples first, and adds it to the sums.
ENDLESS = "grid-constant"

# Voxels that `scipy.ndimage` adds on either side before it prefilters with mode "nearest".
SCIPY_PAD = 12

# Voxels by which a sample may miss the centre of a corner voxel and still count as on it.
CENTRE_SLACK = 1e-9

# Voxels beyond the volume from which positions are brought near before they become integers: there float64 still
# knows a ten-millionth of a voxel, and the sum of a position and any tap's offset is far from an integer's end.
FAR = 1e9

# A blur's weights are added up before rows are made of them where they reach this many times beyond the axis.
MUCH_BEYOND = 4

# Weights that are made at once, 4 MB of them; of what follows from them there is as much again several times.
AT_ONCE = 1 << 19
# Of a table and of what an engine makes of it: bytes of a row, and of each of its taps.
ROW_BYTES, TAP_BYTES = 48, 20
# Of each weight that is made at once, with what follows from it meanwhile.
MADE_BYTES = 96

# What sums may be wrong by, in units of the image's range, by what they are made in: the promise of docs/numbers.md.
BOUNDS = {"single": 2e-6, "double": 1e-9}
# A row may lose outer taps whose magnitudes add up to this much. Three axes of it stay below a third of `BOUNDS`: an
# input swings by half its range at most once the row sum is kept, and a cardinal spline amplifies that by 1.6 per
# later axis.
# "uncut" is for truncated integers, where a last bit becomes a whole unit: nothing that has a weight is dropped.
TOLERANCE = {"single": 3e-7, "double": 1e-11, "uncut": 0.0}
PREFILTER_TOLERANCE = {"single": 3e-9, "double": 1e-13, "uncut": 1e-13}


def sums_for(precision: str) -> str:
    """What sums are made in, "single" or "double", of tables that are cut for a precision."""
    return "single" if precision == "single" else "double"


@dataclass(frozen=True, eq=False)
class TapTable:
    """Weights of one axis.

    Attributes
    ----------
    n_src : int
        Samples of the source axis.
    first : ndarray, int64, shape (n_dst,)
        First source sample of every destination sample.
    count : ndarray, int64, shape (n_dst,)
        Taps in use, at least 1.
    weight : ndarray, float64, shape (n_dst, n_taps)
        Zero from `count[i]` on.
    part_of_pairs : bool, optional
        `is_pairs` of the whole table, where this is a part of it.
    """

    n_src: int
    first: IntArray
    count: IntArray
    weight: FloatArray
    part_of_pairs: bool | None = None

    def __post_init__(self) -> None:
        for array in (self.first, self.count, self.weight):
            array.setflags(write=False)

    @property
    def n_dst(self) -> int:
        """Samples of the destination axis."""
        return self.first.size

    @property
    def n_taps(self) -> int:
        """Width of the widest row."""
        return int(self.weight.shape[1])

    @cached_property
    def is_index(self) -> bool:
        """Whether every row copies one sample."""
        return self.n_taps == 1 and bool((self.weight == 1.0).all())

    @cached_property
    def is_pairs(self) -> bool:
        """Whether rows have two taps, or one that weighs 1; of a part, whether those of the whole have."""
        if self.part_of_pairs is not None:
            return self.part_of_pairs
        return self.n_taps <= 2 and bool((self.weight[self.count == 1, 0] == 1.0).all())

    @cached_property
    def is_identity(self) -> bool:
        """Whether the table changes nothing."""
        return self.is_index and self.n_dst == self.n_src and bool((self.first == np.arange(self.n_src)).all())

    def source_range(self, start: int = 0, stop: int | None = None) -> tuple[int, int]:
        """Half-open range of source samples that rows `start` to `stop` read."""
        if start == 0 and stop in (None, self.n_dst):
            return self._read
        return self._read_by(slice(start, stop))

    @cached_property
    def _read(self) -> tuple[int, int]:
        return self._read_by(slice(None))

    def _read_by(self, rows: slice) -> tuple[int, int]:
        return int(self.first[rows].min()), int((self.first[rows] + self.count[rows]).max())

    def crop(self, start: int, stop: int, within: tuple[int, int] | None = None) -> TapTable:
        """Rows `start` to `stop` as a table over the samples `within`: the same weights, to the bit.

        `within` is `source_range(start, stop)` unless given, and holds it. The table stays as wide as the whole:
        engines choose their loop by the width and by `is_pairs`, and a block must take the whole's.
        """
        lo, hi = self.source_range(start, stop) if within is None else within
        if (start, stop) == (0, self.n_dst) and (lo, hi) == (0, self.n_src):
            return self  # engines keep what they made for a table
        rows = slice(start, stop)
        first, count, weight = self.first[rows] - lo, self.count[rows].copy(), self.weight[rows].copy()
        return TapTable(hi - lo, first, count, weight, self.is_pairs)

    def dense(self) -> FloatArray:
        """The table as a matrix, shape (n_dst, n_src)."""
        matrix = np.zeros((self.n_dst, self.n_src))
        k = np.arange(self.n_taps)
        row, tap = np.nonzero(k < self.count[:, None])
        matrix[row, self.first[row] + tap] = self.weight[row, tap]
        return matrix

    def transpose(self, n: int | None = None, start: int = 0) -> TapTable:
        """The table of the transposed matrix: what a gradient takes on its way back, with the same weights to the bit.

        Parameters
        ----------
        n : int, optional
            Samples of the axis that the rows of this table are part of; `n_dst` unless given.
        start : int
            Where on that axis the first row is.

        Returns
        -------
        TapTable
            Of `n` source and `n_src` destination samples. A sample that no row reads gets one tap of weight 0.
        """
        n = self.n_dst if n is None else n
        row, tap = np.nonzero(np.arange(self.n_taps) < self.count[:, None])
        sample = self.first[row] + tap
        first = np.full(self.n_src, n, np.int64)
        last = np.full(self.n_src, -1, np.int64)
        np.minimum.at(first, sample, row + start)
        np.maximum.at(last, sample, row + start)
        unread = last < 0
        first[unread] = last[unread] = min(start, n - 1)
        count = last - first + 1
        weight = np.zeros((self.n_src, int(count.max())))
        weight[sample, row + start - first[sample]] = self.weight[row, tap]
        return TapTable(n, first, count, weight)

    def after(self, inner: TapTable) -> TapTable:
        """One table for `inner` and then this one: the product of their matrices."""
        matrix = self.dense() @ inner.dense()
        used = matrix != 0.0
        first = np.where(used.any(axis=1), used.argmax(axis=1), 0)
        last = np.where(used.any(axis=1), matrix.shape[1] - 1 - used[:, ::-1].argmax(axis=1), 0)
        width = int((last - first).max(initial=0)) + 1
        k = first[:, None] + np.arange(width)
        weight = np.take_along_axis(matrix, np.minimum(k, matrix.shape[1] - 1), axis=1)
        weight[k > last[:, None]] = 0.0
        return TapTable(inner.n_src, first, last - first + 1, weight)


def fold(position: IntArray, n: int, boundary: str) -> IntArray:
    """The sample in `[0, n)` that stands for `position` on the unbounded line.

    "nearest" repeats the last sample, "mirror" reflects about its centre, "reflect" about its outer face
    (the words of `scipy.ndimage`). "padded" is SciPy's own "nearest": the last sample repeated 12 times, then mirrored,
    for prefilters that know only mirrors. "grid-wrap" begins again; so do positions of "wrap", whose taps mirror.
    """
    if boundary == "nearest" or n == 1:
        return np.clip(position, 0, n - 1)
    if boundary == "grid-wrap":
        return np.mod(position, n)
    if boundary == "padded":
        return np.clip(fold(position + SCIPY_PAD, n + 2 * SCIPY_PAD, "mirror") - SCIPY_PAD, 0, n - 1)
    if boundary in ("mirror", "wrap"):
        folded = np.mod(position, 2 * (n - 1))
        return np.minimum(folded, 2 * (n - 1) - folded)
    folded = np.mod(position, 2 * n)
    return np.minimum(folded, 2 * n - 1 - folded)


def near(x: FloatArray, n: int, boundary: str) -> FloatArray:
    """Finite positions that stand for `x` on the unbounded line: the same, but for those that are far away.

    A far position on a line that repeats its ends is as good as any other there; on a mirrored line it is reduced by
    the line's period.
    """
    if n == 1 or boundary in ("nearest", "crop", ENDLESS):
        return np.clip(x, -FAR, n - 1 + FAR)
    if boundary in CYCLIC:
        # Taps of "wrap" do not go the way of its positions, so all of these are brought.
        return np.where((x < 0) | (x > n - 1), np.mod(x, n - 1 if boundary == "wrap" else n), x)
    period = {"mirror": 2 * (n - 1), "reflect": 2 * n, "padded": 2 * (n + 2 * SCIPY_PAD - 1)}[boundary]
    return np.where(np.abs(x) > FAR, np.mod(x, period), x)


def convolved_rows(first: IntArray, weight: FloatArray, response: FloatArray | None) -> tuple[IntArray, FloatArray]:
    """Every row, seen as weights of neighbours, convolved with such weights centred at 0."""
    if response is None or (response.size == 1 and response[0] == 1.0):
        return first, weight
    width = weight.shape[1]
    out = np.zeros((weight.shape[0], width + response.size - 1))
    for k in range(width):
        out[:, k : k + response.size] += weight[:, k : k + 1] * response
    return first - response.size // 2, out


def _within_reach(blur: FloatArray | None, low: int, high: int, n_src: int, boundary: str) -> FloatArray | None:
    """A blur's weights for rows of neighbours `low` to `high`: those that reach far beyond the axis are added up."""
    return None if blur is None else _summed(blur, n_src, max(n_src - low, high), boundary)


def _summed(response: FloatArray, n: int, reach: int, boundary: str) -> FloatArray:
    """Weights of fewer neighbours that give the same once they are folded, where they reach far beyond `n` samples.

    Whatever lies `reach` samples away or further is an end's voxel on a line that repeats its ends, and nothing on one
    that goes on as a constant. A mirrored line repeats itself.
    """
    radius = response.size // 2
    if n == 1 or boundary in ("nearest", ENDLESS):
        if radius <= MUCH_BEYOND * reach:
            return response
        short = response[radius - reach : radius + reach + 1].copy()
        if boundary == ENDLESS:
            return short
        short[0], short[-1] = response[: radius - reach + 1].sum(), response[radius + reach :].sum()
        return short
    period = 2 * (n - 1) if boundary in ("mirror", "wrap") else 2 * n
    if radius <= MUCH_BEYOND * period:
        return response
    once = np.bincount(np.arange(-radius, radius + 1) % period, response, minlength=period)
    folded: FloatArray = once[np.arange(-(period // 2), period // 2 + 1) % period].astype(np.float64)
    folded[[0, -1]] /= 2  # one sample, seen from either side
    return folded


def folded_rows(first: IntArray, weight: FloatArray, n_src: int, boundary: str) -> tuple[IntArray, FloatArray]:
    """Bring rows that reach past the border inside; weights that land on one sample add up.

    With `ENDLESS` weights past the border are dropped.
    """
    width = weight.shape[1]
    if boundary == ENDLESS:
        return _dropped(first, weight, n_src)
    outside = np.flatnonzero((first < 0) | (first + width > n_src))
    if outside.size == 0:
        return first, weight
    first, weight = first.copy(), weight.copy()
    position = first[outside, None] + np.arange(width)
    rows = weight[outside]
    position = fold(position, n_src, boundary)
    start = position.min(axis=1)
    # A line that begins again has taps at both of its ends.
    reach = int((position.max(axis=1) - start).max()) + 1
    if reach > width:
        weight = np.pad(weight, ((0, 0), (0, reach - width)))
    folded = np.zeros((outside.size, weight.shape[1]))
    np.add.at(folded, (np.arange(outside.size)[:, None], position - start[:, None]), rows)
    first[outside], weight[outside] = start, folded
    return first, weight


def _dropped(first: IntArray, weight: FloatArray, n_src: int) -> tuple[IntArray, FloatArray]:
    """Rows without what lies past the border. All begin at a sample that exists, empty ones, too."""
    width = weight.shape[1]
    start = first.clip(0, n_src - 1)
    k = np.arange(width) + (start - first)[:, None]
    there = (k >= 0) & (k < width) & (start[:, None] + np.arange(width) < n_src)
    return start, np.where(there, np.take_along_axis(weight, k.clip(0, width - 1), axis=1), 0.0)


def trim(n_src: int, first: IntArray, weight: FloatArray, tolerance: float, least: int = 1) -> TapTable:
    """Drop outer taps of every row whose magnitudes sum to at most `tolerance`; the row's sum is kept.

    The table is at least `least` taps wide.
    """
    width = weight.shape[1]
    magnitude = np.abs(weight)
    # Half of the allowance on either side; exact zeros always go.
    lead = (np.cumsum(magnitude, axis=1) <= tolerance / 2).sum(axis=1)
    tail = (np.cumsum(magnitude[:, ::-1], axis=1) <= tolerance / 2).sum(axis=1)
    # A row without weights, as of a derivative on a mirror, keeps its first tap: its last may lie outside.
    lead[lead == width] = 0
    count = np.maximum(width - lead - tail, 1)
    n_taps = int(count.max(initial=least))
    k = np.arange(n_taps)
    kept = np.take_along_axis(weight, np.minimum(lead[:, None] + k, width - 1), axis=1)
    kept[k >= count[:, None]] = 0.0
    before, after = weight.sum(axis=1), kept.sum(axis=1)
    # Only where something was dropped: a derivative's weights sum to nothing but rounding.
    changed = (before != after) & (after != 0.0) & (tolerance > 0.0)
    kept[changed] *= (before[changed] / after[changed])[:, None]
    # A lone tap of 1 +- rounding is a copy: grids that coincide give back the same bits.
    kept[(count == 1) & (np.abs(kept[:, 0] - 1.0) < 1e-12), 0] = 1.0
    return TapTable(n_src, first + lead, count, kept)


def build(
    f: Filter,
    x: FloatArray,
    n_src: int,
    *,
    boundary: str | None = None,
    blur: FloatArray | None = None,
    precision: str = "single",
) -> TapTable:
    """The table that samples an axis of `n_src` voxels at continuous indices `x` with filter `f`.

    Parameters
    ----------
    f : Filter
        A filter that sums or copies.
    x : ndarray, float64, shape (n_dst,)
        Where to sample, in source voxels; finite. Samples outside the volume are the caller's affair; they get the
        weights of the continued line.
    n_src : int
        Voxels on the source axis.
    boundary : str or None
        How the line goes on past its ends: None is SimpleITK's rule for the filter, else one of `BOUNDARIES`.
        "constant" concerns samples outside only: inside, taps mirror, as `scipy.ndimage` has it.
    blur : ndarray, float64, optional
        Weights of neighbours, of odd number and centred at 0, of a smoothing that is applied before sampling.
    precision : {"single", "double", "uncut"}
        What taps are cut for: sums in float32, in float64, or not at all.
    """
    rule = border_rule(f, boundary)
    width, n_window = _width(f, blur, precision), 0
    if x.size and (blur is not None or f.border == "crop"):
        # How far rows reach, and how many neighbours a window has at most, is the whole axis's affair.
        windows = (f.window(near(x[part], n_src, rule)) for part in _cuts(x.size, width))
        ends = np.array([(first.min(), first.max(), weight.shape[1]) for first, weight in windows])
        low, high, n_window = int(ends[:, 0].min()), int(ends[:, 1].max()), int(ends[:, 2].max())
        radius = response_radius(f.spline_order, precision, None)
        blur = _within_reach(blur, low - radius, high + n_window + radius, n_src, blur_rule(rule))

    def rows(lo: int, hi: int, least: int) -> TapTable:
        first, weight = f.window(near(x[lo:hi], n_src, rule))
        if weight.shape[1] < n_window:
            weight = np.pad(weight, ((0, 0), (0, n_window - weight.shape[1])))
        if rule == "crop":
            position = first[:, None] + np.arange(weight.shape[1])
            weight = np.where((position >= 0) & (position < n_src), weight, 0.0)
        if f.border == "crop":
            weight = weight / weight.sum(axis=1, keepdims=True)
        response = prefilter_response(f.spline_order, PREFILTER_TOLERANCE[precision])
        first, weight = convolved_rows(*convolved_rows(first, weight, response), blur)
        first, weight = folded_rows(first, weight, n_src, blur_rule(rule))
        return trim(n_src, first, weight, TOLERANCE[precision] if f.method == "sum" else 0.0, least)

    return _in_parts(x.size, width, rows)


def _width(f: Filter, blur: FloatArray | None, precision: str) -> int:
    """Taps of a row of `build` before it is folded and trimmed."""
    window = f.window(np.zeros(1))[1].shape[1]
    return window + 2 * response_radius(f.spline_order, precision, blur)


def _in_parts(n: int, width: int, make: Callable[[int, int, int], TapTable]) -> TapTable:
    """A table of `n` rows, made some rows at once: what is as wide as rows before they are trimmed stays small.

    `make` is asked for rows, from and to, and for the least width of their table.
    """
    cuts = _cuts(n, width)
    parts = [make(rows.start, rows.stop, 1) for rows in cuts]
    if len(parts) == 1:
        return parts[0]
    n_taps = max(t.n_taps for t in parts)
    first, count, weight = np.empty(n, np.int64), np.empty(n, np.int64), np.empty((n, n_taps))
    for rows, made in zip(cuts, parts, strict=True):
        # The last bit of a row's sum depends on the width that it is made in.
        part = made if made.n_taps == n_taps else make(rows.start, rows.stop, n_taps)
        first[rows], count[rows], weight[rows] = part.first, part.count, part.weight
    return TapTable(parts[0].n_src, first, count, weight)


def _cuts(n: int, width: int) -> list[slice]:
    """`n` rows of this many weights, in parts."""
    step = max(1, AT_ONCE // width)
    return [slice(lo, min(lo + step, n)) for lo in range(0, max(n, 1), step)]


def table_bytes(f: Filter, n_dst: int, n_src: int, blur: FloatArray | None, precision: str) -> int:
    """Bytes that a table of `build` takes at most, in its own form and in an engine's, and while it is made."""
    width = _width(f, blur, precision)
    made = max(1, min(n_dst, AT_ONCE // width)) * width
    # Float64 here; there as much again in float64 at most, and half of that where rows are also kept as columns.
    return n_dst * (ROW_BYTES + TAP_BYTES * min(width, n_src)) + MADE_BYTES * made


def border_rule(f: Filter, boundary: str | None) -> str:
    """How taps past the border are folded."""
    if boundary is None:
        return f.border
    return "mirror" if boundary == "constant" else boundary


def blur_rule(rule: str) -> str:
    """How the line goes on for a blur or prefilter; where the filter's own window is cropped, as its last voxel."""
    return "nearest" if rule == "crop" else rule


def response_radius(order: int, precision: str, blur: FloatArray | None) -> int:
    """How far, in samples, the B-spline prefilter and a blur reach."""
    radius = prefilter_response(order, PREFILTER_TOLERANCE[precision]).size // 2
    return radius + (0 if blur is None else blur.size // 2)


def prefilter_table(
    order: int, n_src: int, boundary: str, precision: str, blur: FloatArray | None = None, pad: int = 0
) -> TapTable:
    """The table that turns an axis of samples into B-spline coefficients of the given order.

    A `blur` (see `build`) is applied first if asked; `pad` coefficients are added before and after.
    """
    response = prefilter_response(order, PREFILTER_TOLERANCE[precision])

    radius = response.size // 2
    blur = _within_reach(blur, -pad - radius, n_src + pad + radius, n_src, boundary)

    def rows(lo: int, hi: int, least: int) -> TapTable:
        first, weight = convolved_rows(np.arange(lo, hi) - pad, np.ones((hi - lo, 1)), response)
        first, weight = convolved_rows(first, weight, blur)
        first, weight = folded_rows(first, weight, n_src, boundary)
        return trim(n_src, first, weight, TOLERANCE[precision], least)

    return _in_parts(n_src + 2 * pad, 1 + 2 * response_radius(order, precision, blur), rows)


def smoothing_table(response: FloatArray | None, n_src: int, boundary: str) -> TapTable:
    """The table that applies weights of neighbours (see `build`), as they are, at every sample of an axis."""
    response = _within_reach(response, 0, n_src, n_src, boundary)

    def rows(lo: int, hi: int, least: int) -> TapTable:
        first, weight = convolved_rows(np.arange(lo, hi), np.ones((hi - lo, 1)), response)
        return folded_table(first, weight, n_src, boundary, least)

    return _in_parts(n_src, 1 if response is None else response.size, rows)


def folded_table(first: IntArray, weight: FloatArray, n_src: int, boundary: str, least: int = 1) -> TapTable:
    """The table with these rows on a line that goes on past its ends; nothing but exact zeros is dropped.

    It is at least `least` taps wide.
    """
    first, weight = folded_rows(first, weight, n_src, boundary)
    return trim(n_src, first, weight, 0.0, least)


def zero_padded_table(first: IntArray, weight: FloatArray, n_src: int) -> TapTable:
    """The table of rows of weights on a line that is zero past its ends; rows wholly outside weigh nothing."""
    position = first[:, None] + np.arange(weight.shape[1])
    kept = np.where((position >= 0) & (position < n_src), weight, 0.0)
    # A row that has lost everything still names a voxel that exists.
    return trim(n_src, np.where(kept.any(axis=1), first, first.clip(0, n_src - 1)), kept, 0.0)


def index_table(n_src: int, index: IntArray) -> TapTable:
    """The table that copies the samples at `index`."""
    return TapTable(n_src, index, np.ones(index.size, np.int64), np.ones((index.size, 1)))


def block_mean_table(n_src: int, n_dst: int) -> TapTable:
    """The table of means over `n_dst` blocks that cover the axis and share voxels where sizes do not divide evenly.

    Block `i` is voxels floor(i n_src / n_dst) to ceil((i + 1) n_src / n_dst), as in torch's adaptive average pooling.
    """
    i = np.arange(n_dst)
    first = i * n_src // n_dst
    count = -(-(i + 1) * n_src // n_dst) - first
    k = np.arange(int(count.max()))
    return TapTable(n_src, first, count, np.where(k < count[:, None], 1.0 / count[:, None], 0.0))


def block_sum_table(n_src: int, factor: int) -> TapTable:
    """The table that sums blocks of `factor` samples from the first on; a remainder is dropped."""
    n_dst = n_src // factor
    return TapTable(n_src, factor * np.arange(n_dst), np.full(n_dst, factor), np.ones((n_dst, factor)))


def inside(x: FloatArray, n_src: int, boundary: str | None, margin: float = 0.0) -> npt.NDArray[np.bool_]:
    """Which samples are interpolated; the rest take the default value.

    SimpleITK's rule (`boundary=None`): the voxels' whole boxes, lower face in, upper face out, no tolerance.
    "constant" is SciPy's: from the first voxel's centre to the last's. The other boundaries have no outside. The inside
    grows by `margin` voxels on either side.
    """
    lo, hi = inside_box(n_src, boundary, margin)
    return (x >= lo) & (x < hi)


def inside_box(n_src: int, boundary: str | None, margin: float = 0.0) -> tuple[float, float]:
    """Lower (included) and upper (excluded) bound of the continuous indices that are interpolated."""
    if boundary is None:
        return -0.5 - margin, n_src - 0.5 + margin
    if boundary == "constant":
        # Where corners are aligned the last sample is the last voxel's centre, give or take a rounding.
        return -CENTRE_SLACK - margin, n_src - 1.0 + CENTRE_SLACK + margin
    return -np.inf, np.inf
