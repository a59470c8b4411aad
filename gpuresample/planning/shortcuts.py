"""Wide blurs in little work: blur to a coarse grid, come back by a few taps, and put right what that misses.

A blur of many voxels leaves nothing that a grid of every D-th sample would not hold. Along one axis its table `T`
is, but for a small rest `E = T - U V`, the product of two: `V` makes every D-th sample of the result, `U` interpolates
between those with few taps. Over three axes

    Tz Ty Tx = Uy [Ux (Tz Vy Vx)] + Uz [Ux (Ey Vx) + Uy (Ex Vy)] Vz + products of two rests.

The volume's full size is met by tables that keep one row in D, where it is read, and by few taps, where it is
written (`Branch`, one for each outer bracket). The rests hold whatever is not smooth: where SciPy cuts its Gaussian,
the crease of a recursive filter. As they are put right, they need not be tiny; that products of two of them are is
checked when a work is planned.

All of it happens on the line that goes on past its ends, and is folded afterwards: borders are as exact as the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from gpuresample.caching import kept
from gpuresample.frozen import frozen
from gpuresample.planning import planner, taps
from gpuresample.planning.filters import FloatArray
from gpuresample.planning.taps import TapTable
from gpuresample.planning.works import Branch, Separable

# Samples of the coarse grid per "sigma" of a response, and taps of the way back, from the cheapest on.
RATIOS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
WIDTHS = (6, 8, 10)
# What all that is left out may add up to, as a share of the response's magnitude: a quarter of the contract, since an
# image swings by half its range to either side.
ALLOWED = {"single": 5e-7, "double": 1e-10}
# A rest below this is no rest: a tenth of what is allowed.
NO_REST = 0.1
# A response of fewer taps is never split.
LEAST_TAPS = 33
# Work below this, in `planner.pass_cost`'s units, is sooner done than a shortcut is found: a tenth of a second or so.
LEAST_COST = 2e9
# A response of more weights than so many times the axis is never split.
BEYOND = 32
# A shortcut must promise less than this share of the plain cost, for it has costs that the estimate does not see.
WORTH = 0.55


@frozen(eq=False)
class Split:
    """How a response is put together from itself moved, see `fitted`.

    Attributes
    ----------
    response : ndarray, float64
    step, width : int
    weight, rest : ndarray, float64, shapes (step, width) and (step, size)
    error : float
        Largest sum of magnitudes of a row of `rest`, as a share of the response's.
    """

    response: FloatArray
    step: int
    width: int
    weight: FloatArray
    rest: FloatArray
    error: float

    @property
    def cost(self) -> float:
        """Taps per voxel: on the way there and on the way back."""
        return self.response.size / self.step + self.width

    def tables(self, n: int, boundary: str) -> tuple[TapTable, TapTable, TapTable]:
        """`V`, `U` and `E` of an axis of `n` samples; `boundary` as in `taps.smoothing_table`."""
        radius, lead = self.response.size // 2, self.width // 2 - 1
        phase, cell = np.arange(n) % self.step, np.arange(n) // self.step
        # Coarse sample c lies at (c - lead) * step; past the ends they are the continued line's.
        n_coarse = -(-n // self.step) + self.width - 1
        position = (np.arange(n_coarse) - lead) * self.step
        coarse = taps.folded_table(position - radius, np.tile(self.response, (n_coarse, 1)), n, boundary)
        back = taps.folded_table(cell, self.weight[phase], n_coarse, boundary)
        rest = taps.folded_table((cell - lead) * self.step - radius, self.rest[phase], n, boundary)
        return coarse, back, rest


def fitted(response: FloatArray, step: int, width: int) -> tuple[FloatArray, FloatArray]:
    """How every phase of a response is put together from itself, moved by multiples of `step` samples.

    Parameters
    ----------
    response : ndarray, float64, of odd size
    step, width : int
        Step and number of the moved responses; they lie at `(k - (width // 2 - 1)) * step`, `k < width`.

    Returns
    -------
    weight : ndarray, float64, shape (step, width)
        Least squares; the response moved by `phase` is about `sum over k of weight[phase, k] * shifted[k]`.
    rest : ndarray, float64, shape (step, size)
        What is missing, from sample `-(size of response // 2) - (width // 2 - 1) * step` on.
    """
    first = -(width // 2 - 1) * step
    shifted = np.zeros((width, response.size + (width - 1) * step))
    for k in range(width):
        shifted[k, k * step : k * step + response.size] = response
    moved = np.zeros((step, shifted.shape[1]))
    for phase in range(step):
        moved[phase, phase - first : phase - first + response.size] = response
    weight = np.linalg.lstsq(shifted.T, moved.T, rcond=1e-13)[0].T.astype(np.float64)
    # A sample that is on the coarse grid is taken from there.
    weight[0] = np.arange(width) == width // 2 - 1
    rest: FloatArray = moved - weight @ shifted
    return weight, rest


def scale(response: FloatArray) -> float:
    """A response's width: its standard deviation, if it were a Gaussian or a derivative of one, or less."""
    # The mean distance from the centre, weighted by magnitude, is 0.8, 1.25 and 1.27 sigma for orders 0, 1, 2.
    k = np.abs(np.arange(response.size) - response.size // 2)
    magnitude = np.abs(response)
    return float((k * magnitude).sum() / magnitude.sum()) * 1.25


@kept
def _splits(response: bytes) -> tuple[Split, ...]:
    """Every split worth trying, coarsest first."""
    values = np.frombuffer(response)
    if values.size < LEAST_TAPS:
        return ()
    out = []
    for step in sorted({math.floor(scale(values) / ratio) for ratio in RATIOS}, reverse=True):
        for width in WIDTHS if step >= 2 else ():
            weight, rest = fitted(values, step, width)
            error = float(np.abs(rest).sum(axis=1).max() / np.abs(values).sum())
            out.append(Split(values, step, width, weight, rest, error))
    return tuple(out)


def shortcut(
    responses: Sequence[FloatArray | None], tables: Sequence[TapTable], boundary: str, precision: str
) -> tuple[Branch, ...]:
    """Branches that stand for the tables of axes (z,) y, x, see `Separable.shortcut`; empty where they do not pay.

    Parameters
    ----------
    responses : sequence of ndarray or None
        Weights of neighbours that each table applies.
    tables : sequence of TapTable
        Of `taps.smoothing_table`.
    boundary : str
        Theirs.
    precision : {"single", "double"}
        The numeric contract that the branches must keep.
    """
    plain = planner.along_axes(list(tables), precision)
    plain_cost = planner.pass_cost(plain.tables, plain.order)
    if plain_cost < LEAST_COST:
        return ()
    # What reaches far beyond the axis has many weights and a small table, which is taken as it is.
    found = [
        () if r is None or r.size > BEYOND * t.n_src else _splits(r.tobytes())
        for r, t in zip(responses, tables, strict=True)
    ]
    # Axes of like widths have their candidates in the same order, and take like ones.
    best, cheapest = None, math.inf
    for k in range(max((len(f) for f in found), default=0)):
        choice = [f[min(k, len(f) - 1)] if f else None for f in found]
        rests = _rests(choice, precision)
        if rests is None:
            continue
        cost = max(1, len(rests)) * sum(s.cost for s in choice if s is not None)
        if cost < cheapest:
            best, cheapest = (choice, rests), cost
    if best is None:
        return ()
    branches = _branches(*best, tables, boundary, precision)
    steps = [w for b in branches for w in (b.first, *(w for chain in b.middle for w in chain), b.last)]
    cost = sum(planner.pass_cost(w.tables, w.order) for w in steps)
    return branches if cost < WORTH * plain_cost else ()


def _rests(choice: Sequence[Split | None], precision: str) -> list[int] | None:
    """The axes whose rest must be put right; None if too much would be left out even so."""
    allowed = ALLOWED[precision]
    error = [0.0 if s is None else s.error for s in choice]
    rests = [axis for axis, e in enumerate(error) if e > NO_REST * allowed]
    left_out = sum(e for axis, e in enumerate(error) if axis not in rests)
    # Of three rests there is a product as well, which is a thousandth of this or less.
    pairs = 1.001 * sum(error[a] * error[b] for a in rests for b in rests if a < b)
    return rests if left_out + pairs <= allowed else None


def _branches(
    choice: Sequence[Split | None], rests: list[int], tables: Sequence[TapTable], boundary: str, precision: str
) -> tuple[Branch, ...]:
    """The branches for one choice of splits of axes (z,) y, x."""
    lead = 3 - len(tables)
    whole = [planner.identity_table(1)] * lead + list(tables)
    made = [None if s is None else s.tables(t.n_src, boundary) for s, t in zip(choice, tables, strict=True)]
    parts = [None] * lead + made
    # A term is known by the axis along which it is exact; -1 where no axis has a rest.
    terms = [lead + axis for axis in rests] or [-1]

    def there(axis: int, term: int) -> TapTable:
        part = parts[axis]
        if part is None:
            return whole[axis]
        # The first term has the whole table where the others have the rest.
        return part[0] if axis != term else whole[axis] if term == terms[0] else part[2]

    def back(axis: int, term: int) -> TapTable | None:
        part = parts[axis]
        return None if part is None or axis == term else part[1]

    def home(term: int) -> int:
        """The axis along which a term comes back last: rows along x are dear to turn, so y or z if that can be."""
        axes = [axis for axis in ((1, 0) if term == 0 else (0, 1)) if back(axis, term) is not None]
        return axes[0] if axes else -1

    def step(axes: Sequence[int], table: Callable[[int], TapTable | None], size: list[int]) -> Separable:
        """The work of some axes' tables on an array of this size; `size` becomes the result's."""
        found = [table(axis) if axis in axes else None for axis in range(3)]
        run = [planner.identity_table(n) if t is None else t for t, n in zip(found, size, strict=True)]
        size[:] = [t.n_dst for t in run]
        return planner.along_axes(run, precision)

    homes = [home(term) for term in terms]
    groups = [[t for t, h in zip(terms, homes, strict=True) if h == 1], [t for t in terms if home(t) != 1]]
    out = []
    for axis, group in zip((1, 0), groups, strict=True):
        if not group:
            continue
        # Where one of them has nothing left along z, all come back before they are added up.
        last = -1 if -1 in [home(t) for t in group] else axis
        shared = [axis for axis in range(3) if len(group) == 1 or axis not in group]
        size = [t.n_src for t in whole]
        first = step(shared, partial(there, term=group[0]), size)
        middle, end = [], size
        for term in group:
            end = list(size)
            steps = [
                step([axis for axis in range(3) if axis not in shared], partial(there, term=term), end),
                step([axis for axis in range(3) if axis != last], partial(back, term=term), end),
            ]
            middle.append(tuple(s for s in steps if s.order))
        out.append(Branch(first, tuple(middle), step([last], partial(back, term=group[0]), end)))
    return tuple(out)
